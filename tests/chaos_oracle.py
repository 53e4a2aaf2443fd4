"""What may have become of an execution, by the commands that were given and how each was answered; written beforehand.

A command is `decided` (its answer said that it is recorded), `stored` (safe in the inbox), `refused`, or `unknown`:
whoever gave it was killed, or heard an error. Where commands race, more than one end is allowed.
"""

from collections import Counter
from dataclasses import dataclass
from typing import Any, Literal

from perdure.events.entry import Recorded
from perdure.events.vocabulary import (
    ExecutionCancelled,
    ExecutionCancelling,
    ExecutionPaused,
    ExecutionResumed,
    ExecutionSucceeded,
    ExecutionTerminated,
    NodeScheduled,
    NodeSucceeded,
    Outcome,
)

Answer = Literal["decided", "stored", "refused", "unknown"]
End = tuple[str, Any]
_ENDS = {ExecutionSucceeded: "succeeded", ExecutionCancelled: "cancelled", ExecutionTerminated: "terminated"}


@dataclass(frozen=True)
class Given:
    """A command as its giver saw it, from a time to a time in seconds; data: of a signal."""

    kind: str
    id: str
    answer: Answer
    began: float
    ended: float
    data: Any = None

    @property
    def surely(self) -> bool:
        """Whether the server has it for certain."""
        return self.answer in ("decided", "stored")


def allowed(history: list[Given]) -> set[End]:
    """Return the ends that an execution may come to that waits for one signal."""
    signals = [each for each in history if each.kind == "signal" and each.answer != "refused"]
    stops = [each for each in history if each.kind in ("cancel", "terminate") and each.answer != "refused"]
    ends: set[End] = {("terminated" if each.kind == "terminate" else "cancelled", None) for each in stops}
    if any(each.kind == "terminate" and each.answer == "decided" for each in stops):
        return {("terminated", None)}
    if any(each.kind == "cancel" and each.answer == "decided" for each in stops):
        return ends
    for signal in signals:
        before = [each for each in (*signals, *stops) if each.surely and each.ended < signal.began]
        if not before:
            ends.add(("succeeded", signal.data))
    return ends


def complaints(history: list[Given], entries: list[Recorded]) -> list[str]:
    """Return what an execution's log says that the commands which were given do not allow."""
    events = [each.event for recorded in entries for each in recorded.unpack()]
    causes = Counter(cause for recorded in entries for cause in recorded.entry.causes)
    outcomes = [event for event in events if isinstance(event, Outcome)]
    found = [f"{len(outcomes)} ends: {outcomes}"] if len(outcomes) != 1 else []
    end = [(_ENDS.get(type(event), str(event)), _output(event)) for event in outcomes]
    found += [f"ended {each}, and may only {allowed(history)}" for each in end if each not in allowed(history)]
    found += [f"{cause} was decided {count} times" for cause, count in causes.items() if count > 1]
    found += [f"{each} was lost" for each in history if each.surely and each.id not in causes and not _so(each, end)]
    counted = Counter(event.node for event in events if isinstance(event, NodeSucceeded))
    found += [f"the result of {node} is recorded {count} times" for node, count in counted.items() if count > 1]
    return [*found, *_chain(entries), *_pauses(history, events)]


def _so(given: Given, end: list[End]) -> bool:
    """Say whether a stop was not even sent, for it had the end that is asked for."""
    return (given.kind, end) in (("cancel", [("cancelled", None)]), ("terminate", [("terminated", None)]))


def _output(event: Outcome) -> Any:
    return event.output["last"] if isinstance(event, ExecutionSucceeded) else None


def _chain(entries: list[Recorded]) -> list[str]:
    """Say where an entry does not follow from the one before."""
    pairs = zip([None, *entries], entries, strict=False)
    return [
        f"entry {number} does not follow the one before"
        for number, (before, recorded) in enumerate(pairs, 1)
        if (recorded.entry.n, recorded.entry.prev) != (number, before.digest if before else "")
    ]


def _pauses(history: list[Given], events: list[Any]) -> list[str]:
    """Say what began while it was paused, and which pause is not recorded."""
    found, paused = [], False
    for event in events:
        if isinstance(event, ExecutionPaused):
            paused = True
        elif isinstance(event, ExecutionResumed | ExecutionCancelling | Outcome):
            paused = False
        elif isinstance(event, NodeScheduled) and paused:
            found.append(f"{event.node} began while it was paused")
    if any(each.kind == "pause" and each.answer == "decided" for each in history) and not any(
        isinstance(event, ExecutionPaused) for event in events
    ):
        found.append("a pause that was decided is not recorded")
    return found
