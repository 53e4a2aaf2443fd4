"""What a played execution gives back: how it ended, what happened in it and when, and the calls that it made."""

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from perdure.actors.listeners import active_states
from perdure.actors.state import NodeState, Started
from perdure.errors import ExecutionFailed, ExecutionStopped, PerdureError
from perdure.events.vocabulary import (
    Error,
    Event,
    ExecutionCancelled,
    ExecutionCompensated,
    ExecutionSucceeded,
    ExecutionTerminated,
)
from perdure.events.vocabulary import ExecutionFailed as Failed
from perdure.scripts import shown


class NotEnded(PerdureError):
    """A played execution came to no end: it waits for what its script does not have."""


@dataclass(frozen=True)
class Call:
    """One call that was made: of which tool or agent, by which node, at which attempt, with what, and when."""

    name: str
    node: str
    attempt: int
    input: Any
    at: datetime


@dataclass(frozen=True)
class Sent:
    """One signal that a statechart sent: to which execution, its name and data, and when."""

    to: str
    event: str
    data: Any
    at: datetime


@dataclass(frozen=True)
class Happening:
    """An event with its virtual time."""

    at: datetime
    event: Event


class Played:
    """A played execution: how it ended, what happened in it and when, and the calls that it made."""

    def __init__(self, execution: str, begin: datetime) -> None:
        self.id = execution
        self.began = begin
        self.now = begin
        self.events: list[Happening] = []
        self.calls: list[Call] = []
        self.sent: list[Sent] = []
        self.children: dict[str, Played] = {}
        self.state: Started

    @property
    def status(self) -> str:
        """How it stands: `succeeded`, `failed`, `cancelled`, `terminated`, `compensated`, or that it has not ended."""
        return self.state.status

    @property
    def output(self) -> Any:
        """Its output. Raises ExecutionFailed, ExecutionStopped or NotEnded, with the reason."""
        match self.state.outcome:
            case ExecutionSucceeded(output):
                return output
            case Failed(error, node, attempt):
                told = {"type": error.type, "message": error.message, "data": error.data}
                raise ExecutionFailed(self.id, node, attempt, told)
            case ExecutionCancelled(reason) | ExecutionTerminated(reason):
                raise ExecutionStopped(self.id, self.status, reason)
            case ExecutionCompensated(error):
                raise ExecutionStopped(self.id, self.status, error.message if error else "")
        raise NotEnded(f"the execution is {self.status} and has not ended: {self._why()}")

    @property
    def error(self) -> Error | None:
        """The error that it failed with: `type`, `message`, `data`; None where it did not fail."""
        return self.state.outcome.error if isinstance(self.state.outcome, Failed) else None

    @property
    def nodes(self) -> dict[str, NodeState]:
        """Its nodes by path, with `status`, `output`, `error` and `attempt`."""
        return self.state.nodes

    @property
    def states(self) -> tuple[str, ...]:
        """The active states of a statechart, in the order in which they were entered; those it ended in, at the end."""
        return self.state.main.chart.configuration if self.state.main.chart is not None else ()

    @property
    def context(self) -> dict[str, Any]:
        """The context of a statechart."""
        return self.state.main.chart.context if self.state.main.chart is not None else {}

    @property
    def took(self) -> timedelta:
        """The virtual time from its start to its end."""
        return self.now - self.began

    def inputs(self, name: str) -> list[Any]:
        """Return what a tool or agent was called with, call by call."""
        return [call.input for call in self.calls if call.name == name]

    def happened(self, kind: type[Event] | str) -> list[Any]:
        """Return the events of one type (or of that name), oldest first."""
        name = kind if isinstance(kind, str) else kind.__name__
        return [each.event for each in self.events if type(each.event).__name__ == name]

    def __str__(self) -> str:
        """Return what happened, a line for each event."""
        return "\n".join(f"{each.at - self.began!s:>18}  {each.event}" for each in self.events)

    def _why(self) -> str:
        at_work = [f"node {path!r} is at work" for path in self.state.running]
        waiting = [
            f"node {path!r} waits for {shown(node.input)}"
            for path, node in self.nodes.items()
            if node.status == "waiting"
        ]
        states = [f"it is in {', '.join(active)}"] if (active := active_states(self.state)) else []
        return "; ".join([*at_work, *waiting, *states]) or "nothing is under way"
