"""The words of the log: every event type, in the past tense, as an immutable value."""

from datetime import datetime
from typing import Any, Literal

import msgspec

from perdure.events.schedules import ScheduleEvent


class Error(msgspec.Struct, frozen=True, omit_defaults=True):
    """Why something failed: a type name that `retry.on` matches, a message for people, data for programs."""

    type: str
    message: str
    data: Any = None


class Parent(msgspec.Struct, frozen=True, omit_defaults=True):
    """The node of another execution that started this one; a detached one tells it nothing."""

    execution: str
    node: str
    attempt: int
    lane: str
    detached: bool = False


class LimitClaim(msgspec.Struct, frozen=True, omit_defaults=True):
    """What is claimed of a limit: of a value of its key, since when (UTC), for which share, how much of a rate."""

    limit: str
    since: datetime
    key: str = ""
    share: str = ""
    cost: float = 1.0


class _Event(msgspec.Struct, frozen=True, omit_defaults=True, tag_field="type", tag=True):
    """The base of all events; the JSON form carries the class name as `type`."""


class ExecutionStarted(_Event, frozen=True):
    """An execution began: of this definition, with this input, its commands on this lane, its tools at these places.

    search: its attributes for queries, by name. tags: words for queries.
    began: when (UTC), where it takes part in limits: of several definitions of a limit that of the newest one counts.
    """

    workflow: str
    digest: str
    input: Any
    lane: str
    tools: dict[str, str] = {}
    priority: int = 5
    parent: Parent | None = None
    search: dict[str, str | int | float | bool] = {}
    tags: list[str] = []
    began: datetime | None = None


class ExecutionQueued(_Event, frozen=True):
    """An execution waits until a limit lets it in; nothing of it begins before."""

    claim: LimitClaim


class ExecutionAdmitted(_Event, frozen=True):
    """A limit has let an execution in, which gives back what it holds when it ends."""

    limit: str


class ExecutionForked(_Event, frozen=True):
    """An execution goes on from the past of another one, as that was after its entry number `at`.

    anew: the nodes of that past that begin again, by path: those under way, those that were asked for, what follows.
    past: its entries, as they were, in a blob of their own.
    """

    execution: str
    at: int
    anew: list[str] = []
    past: list[Any] | None = None


class ChildRequested(_Event, frozen=True):
    """A node starts another workflow as an execution of its own, and waits for it unless that is detached."""

    node: str
    attempt: int
    child: str
    workflow: str
    input: Any = None
    detached: bool = False
    on_close: Literal["cancel", "terminate", "abandon"] = "cancel"


class ChildEnded(_Event, frozen=True):
    """A child has ended, and said so."""

    child: str


class NodeScheduled(_Event, frozen=True):
    """An attempt at a node is to run, with this input. `secrets`: JSON pointers to the references to secrets in it.

    Such a reference is `{"secret": ["Bearer ", {"name": "TOKEN"}]}`: text and names, whose values no event holds.
    limits: what it claims of limits, in the order in which these are asked.
    """

    node: str
    attempt: int
    input: Any = None
    secrets: list[str] = []
    limits: list[LimitClaim] = []


class NodeResumed(_Event, frozen=True):
    """An attempt that was under way in a process that was lost runs again; `why` says what is known of its end."""

    node: str
    attempt: int
    why: str = ""


class NodeQueued(_Event, frozen=True):
    """A call has waited at a limit, or for room in a node actor, for some time; and for what."""

    node: str
    attempt: int
    waits_for: str


class NodePlaced(_Event, frozen=True):
    """A call that had waited does not any more."""

    node: str
    attempt: int


class NodeWaiting(_Event, frozen=True):
    """A node waits for something outside: a time, a signal, a person; `input` says for what."""

    node: str
    attempt: int
    input: Any = None


class NodeOpened(_Event, frozen=True):
    """A node began that has bodies of its own; `input` is a foreach's items, a loop's first value, an agent's question.

    secrets: JSON pointers to the references to secrets in it, as in NodeScheduled.
    """

    node: str
    attempt: int
    input: Any = None
    secrets: list[str] = []


class BodyStarted(_Event, frozen=True):
    """A body of nodes began: an item (`check[3]`), a pass (`again[0]`), a branch (`race/left`), or one of the end.

    forgets: the key of an earlier pass that nothing can read any more.
    """

    body: str
    forgets: str = ""


class BodySucceeded(_Event, frozen=True):
    """A body is done and has its result. `keep`: its nodes that a later compensation would undo, or read."""

    body: str
    output: Any = None
    keep: list[str] = []


class BodyFailed(_Event, frozen=True):
    """A body failed; what it had completed has been compensated."""

    body: str
    error: Error


class CompensationStarted(_Event, frozen=True):
    """What was completed within a part of the execution is to be undone, in this order, because of this error.

    within: "" for all of the execution, a node's path, or a body's; `kind` says which of them.
    """

    within: str
    kind: Literal["execution", "node", "body"]
    undo: list[str]
    error: Error


class BranchTaken(_Event, frozen=True):
    """A switch chose the nodes that run."""

    node: str
    then: list[str]


class NodeSucceeded(_Event, frozen=True):
    """A node has its output. `usage`: the `model` that made it, tokens `input` and `output`, and their `cost`."""

    node: str
    attempt: int
    output: Any = None
    usage: dict[str, Any] | None = None


class NodeCharged(_Event, frozen=True):
    """An attempt failed, as the next event says, and took a model so much all the same; `usage` as of a success."""

    node: str
    attempt: int
    usage: dict[str, Any]


class NodeAttemptFailed(_Event, frozen=True):
    """An attempt failed and another one follows when the timer `retry/<node>` fires."""

    node: str
    attempt: int
    error: Error


class NodeFailed(_Event, frozen=True):
    """A node failed for good at this attempt."""

    node: str
    attempt: int
    error: Error


class NodeCatching(_Event, frozen=True):
    """A node failed, and `handler` runs in its place."""

    node: str
    attempt: int
    error: Error
    handler: str


class NodeCaught(_Event, frozen=True):
    """A node failed, its error was caught, and this output stands for its own."""

    node: str
    attempt: int
    error: Error
    output: Any = None


class NodeSkipped(_Event, frozen=True):
    """A node does not run in this execution."""

    node: str
    reason: str


class NodeCancelled(_Event, frozen=True):
    """A node that was running is not wanted any more."""

    node: str
    reason: str


class TimerArmed(_Event, frozen=True):
    """A timer is to fire at `due` (UTC)."""

    timer: str
    due: datetime


class TimerFired(_Event, frozen=True):
    """A timer's time has come."""

    timer: str


class TimerCancelled(_Event, frozen=True):
    """A timer is not wanted any more."""

    timer: str


class NodeStuck(_Event, frozen=True):
    """A node's tries are spent, and it waits for somebody to mend what is wrong: it is tried again at the resume."""

    node: str
    attempt: int
    error: Error


class InputChanged(_Event, frozen=True):
    """A node that has not begun gets this input in the place of its own."""

    node: str
    input: Any = None


class Intervened(_Event, frozen=True):
    """Somebody did by hand what follows, and why; `node` is "" where all of the execution is meant."""

    action: str
    node: str = ""
    reason: str = ""
    by: str = ""


class ExecutionRetried(_Event, frozen=True):
    """A failed execution goes on: what had not succeeded, or was compensated, is pending again."""


class TimerHeld(_Event, frozen=True):
    """A timer's time has come while the execution was paused: it counts at the resume."""

    timer: str


class SignalReceived(_Event, frozen=True):
    """A signal came, and nobody waited for it yet."""

    signal: str
    data: Any = None


class SignalTaken(_Event, frozen=True):
    """A node took a signal that had come before; `number` is its place among those of its name, from 0."""

    signal: str
    node: str
    number: int = 0


class Taken(msgspec.Struct, frozen=True, omit_defaults=True):
    """A transition that was taken: from a state, on an event, where to, and its guard where it had one that held."""

    source: str
    on: str
    targets: list[str] = []
    guard: str | None = None


class Microstep(msgspec.Struct, frozen=True, omit_defaults=True):
    """Transitions that were taken together on one event, and the states that were left and entered, in order."""

    event: str = ""
    taken: list[Taken] = []
    exited: list[str] = []
    entered: list[str] = []


class MacrostepTaken(_Event, frozen=True):
    """A statechart took an event, and all that followed of it until nothing more did.

    chart: the path of its body, "" for the main one. event: "" when it began. of: the call whose end the event tells.
    held: it had come during a pause. context, history: what changed. calls, invokes: the paths of the nodes asked for.
    undo: those that stand for states which a compensation can undo. ignored: its own events that no transition took.
    ended: it came to a final state at the top, with this output, or failed there.
    """

    chart: str
    event: str
    data: Any = None
    error: Error | None = None
    of: str = ""
    held: bool = False
    steps: list[Microstep] = []
    context: dict[str, Any] = {}
    history: dict[str, list[str]] = {}
    calls: list[str] = []
    invokes: list[str] = []
    undo: list[str] = []
    ignored: list[str] = []
    ended: bool = False
    output: Any = None
    failed: Error | None = None


class EventIgnored(_Event, frozen=True):
    """A statechart did not take an event, and why.

    of: the invocation whose result it tells, where the step failed: a retry of the execution takes it again.
    """

    chart: str
    event: str
    data: Any = None
    reason: str = ""
    held: bool = False
    of: str = ""


class EventHeld(_Event, frozen=True):
    """An event came to a statechart during a pause: it counts at the resume, after those that came before it."""

    chart: str
    event: str
    data: Any = None
    error: Error | None = None
    of: str = ""
    timer: tuple[str, int, int] | None = None


class CallQueued(_Event, frozen=True):
    """An action of a statechart is to call something, when the calls before it have ended."""

    node: str
    input: Any = None
    secrets: list[str] = []


class ExecutionPaused(_Event, frozen=True):
    """Nothing new starts from here on; what runs goes on to its end."""

    reason: str = ""
    by: str = ""


class ExecutionResumed(_Event, frozen=True):
    """A paused execution goes on."""

    by: str = ""


class ExecutionFailing(_Event, frozen=True):
    """An execution will end because of this error; what is to be compensated, and what runs at its end, comes first."""

    error: Error
    node: str | None = None
    attempt: int = 0


class ExecutionCancelling(_Event, frozen=True):
    """An execution is to end: what runs is stopped, what is completed is compensated, `on_cancel` runs."""

    reason: str = ""
    by: str = ""


class ExecutionCompensating(_Event, frozen=True):
    """An execution that had succeeded is undone, for its parent is, because of this error: what it completed goes."""

    command: str
    error: Error


class CommandRefused(_Event, frozen=True):
    """A command could not be carried out in the state that it met."""

    command: str
    reason: str


class ExecutionSucceeded(_Event, frozen=True):
    """An execution is done and has its output."""

    output: Any = None


class ExecutionFailed(_Event, frozen=True):
    """An execution ended because of this error, at this node where one is to blame."""

    error: Error
    node: str | None = None
    attempt: int = 0


class ExecutionCancelled(_Event, frozen=True):
    """An execution ended because somebody cancelled it."""

    reason: str = ""


class ExecutionTerminated(_Event, frozen=True):
    """An execution was ended at once; nothing was compensated."""

    reason: str = ""
    by: str = ""


class ExecutionCompensated(_Event, frozen=True):
    """An execution that had succeeded was undone, for its parent was; `error` says what could not be."""

    error: Error | None = None


class Counted(msgspec.Struct, frozen=True, omit_defaults=True):
    """What statistics count of one node in one hour (UTC); node: "" for the execution. durations: a sketch of them."""

    node: str
    hour: datetime
    succeeded: int = 0
    failed: int = 0
    cancelled: int = 0
    skipped: int = 0
    retried: int = 0
    tokens_in: int = 0
    tokens_out: int = 0
    cost: float = 0.0
    durations: bytes = b""


class ExecutionPurged(_Event, frozen=True):
    """The past of an ended execution was removed; this is what is left of it, and keeps its id taken.

    blobs: names of the large values that go with it. statistics: what it adds to them.
    """

    workflow: str
    digest: str
    status: str
    started: datetime
    ended: datetime
    entries: int
    blobs: list[str] = []
    statistics: list[Counted] = []


Event = (
    ExecutionStarted
    | ExecutionForked
    | ExecutionQueued
    | ExecutionAdmitted
    | ChildRequested
    | ChildEnded
    | NodeScheduled
    | NodeResumed
    | NodeQueued
    | NodePlaced
    | NodeWaiting
    | NodeOpened
    | BodyStarted
    | BodySucceeded
    | BodyFailed
    | CompensationStarted
    | BranchTaken
    | NodeSucceeded
    | NodeCharged
    | NodeAttemptFailed
    | NodeFailed
    | NodeCatching
    | NodeCaught
    | NodeSkipped
    | NodeCancelled
    | NodeStuck
    | InputChanged
    | Intervened
    | ExecutionRetried
    | TimerArmed
    | TimerFired
    | TimerCancelled
    | TimerHeld
    | SignalReceived
    | SignalTaken
    | MacrostepTaken
    | EventIgnored
    | EventHeld
    | CallQueued
    | ExecutionPaused
    | ExecutionResumed
    | ExecutionFailing
    | ExecutionCancelling
    | ExecutionCompensating
    | CommandRefused
    | ExecutionSucceeded
    | ExecutionFailed
    | ExecutionCancelled
    | ExecutionTerminated
    | ExecutionCompensated
    | ExecutionPurged
    | ScheduleEvent
)

Outcome = ExecutionSucceeded | ExecutionFailed | ExecutionCancelled | ExecutionTerminated | ExecutionCompensated
"""How an execution ended."""
