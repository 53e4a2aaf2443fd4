"""What an execution can be told: commands from outside, and reports of its own nodes and timers."""

from datetime import datetime
from typing import Any, TypeGuard, get_args

import msgspec

from perdure.events.vocabulary import Error, Parent


class _Input(msgspec.Struct, frozen=True, omit_defaults=True, tag_field="type", tag=True):
    """The base of all inputs; the JSON form carries the class name as `type`."""


class StartExecution(_Input, frozen=True):
    """Begin this execution. `tools` maps the names in the definition to where each tool's code is.

    search: attributes for queries beside those that the definition gives. tags: words for queries.
    """

    id: str
    execution: str
    workflow: str
    digest: str
    input: Any
    lane: str
    tools: dict[str, str] = {}
    priority: int = 5
    parent: Parent | None = None
    search: dict[str, str | int | float | bool] = {}
    tags: list[str] = []


class FireTimer(_Input, frozen=True):
    """A timer that was armed in the past for the UTC time `due` has come due."""

    id: str
    execution: str
    timer: str
    due: datetime

    @classmethod
    def of(cls, execution: str, timer: str, due: datetime) -> "FireTimer":
        """Return the command of a timer: the same, and so counted once, from wherever it comes."""
        return cls(f"{execution}/{timer}/{due.isoformat()}", execution, timer, due)


class ActivateExecution(_Input, frozen=True):
    """Wake an execution whose history came from elsewhere: whatever was under way there goes on here."""

    id: str
    execution: str


class SignalExecution(_Input, frozen=True):
    """Give the execution a signal: a node that waits for it goes on, or one that will finds it."""

    id: str
    execution: str
    signal: str
    data: Any = None


class DecideApproval(_Input, frozen=True):
    """Answer an approval that is asked for at `node`."""

    id: str
    execution: str
    node: str
    approved: bool
    by: str = ""
    data: Any = None


class PauseExecution(_Input, frozen=True):
    """Let nothing new start; what runs goes on to its end and is recorded."""

    id: str
    execution: str
    reason: str = ""
    by: str = ""


class ResumeExecution(_Input, frozen=True):
    """Let a paused execution go on; timers that came due meanwhile count now."""

    id: str
    execution: str
    by: str = ""


class CancelExecution(_Input, frozen=True):
    """Stop what runs, compensate what is completed, run `on_cancel` and `finally`, and end."""

    id: str
    execution: str
    reason: str = ""
    by: str = ""


class TerminateExecution(_Input, frozen=True):
    """End at once; nothing is compensated."""

    id: str
    execution: str
    reason: str = ""
    by: str = ""


class RetryExecution(_Input, frozen=True):
    """Let a failed execution go on from what failed."""

    id: str
    execution: str
    reason: str = ""
    by: str = ""


class SkipNode(_Input, frozen=True):
    """Settle a node that has begun, or not yet, as skipped."""

    id: str
    execution: str
    node: str
    reason: str = ""
    by: str = ""


class CompleteNode(_Input, frozen=True):
    """Settle a node by hand, with this output."""

    id: str
    execution: str
    node: str
    output: Any = None
    reason: str = ""
    by: str = ""


class ChangeInput(_Input, frozen=True):
    """Give a node that has not begun another input."""

    id: str
    execution: str
    node: str
    input: Any = None
    reason: str = ""
    by: str = ""


class ExtendDeadline(_Input, frozen=True):
    """Move the deadline of a node, or the timeout of the execution (node: ""), by so many seconds."""

    id: str
    execution: str
    node: str
    seconds: float
    reason: str = ""
    by: str = ""


class AdmitExecution(_Input, frozen=True):
    """A limit lets the execution in that asked it under this ticket."""

    id: str
    execution: str
    limit: str
    ticket: str


class RefuseExecution(_Input, frozen=True):
    """A limit does not let the execution in, and why."""

    id: str
    execution: str
    limit: str
    ticket: str
    error: Error


class ReportChild(_Input, frozen=True):
    """A child of the execution has ended: with an output, or with an error."""

    id: str
    execution: str
    child: str
    output: Any = None
    error: Error | None = None


class CompensateExecution(_Input, frozen=True):
    """Undo what an execution did that had succeeded: a parent, at this node, is being compensated for this error."""

    id: str
    execution: str
    parent: Parent
    error: Error


class ReportCompensation(_Input, frozen=True):
    """A child of the execution was undone, for the call at `node`; or not, or not wholly, because of the error."""

    id: str
    execution: str
    node: str
    child: str
    error: Error | None = None


class ReportSuccess(_Input, frozen=True):
    """An attempt at a node ended with this output, which took a model so many tokens (`usage`)."""

    node: str
    attempt: int
    output: Any = None
    usage: dict[str, Any] | None = None


class ReportFailure(_Input, frozen=True):
    """An attempt at a node ended with this error; `usage` is what it took a model all the same."""

    node: str
    attempt: int
    error: Error
    usage: dict[str, Any] | None = None


class ReportLoss(_Input, frozen=True):
    """The process that worked on an attempt is gone and gave no answer; `how` says what is known of its end."""

    node: str
    attempt: int
    how: str = ""


class ReportQueued(_Input, frozen=True):
    """An attempt waits at a limit, or for room in a node actor, and for what; no more where that is ""."""

    node: str
    attempt: int
    waits_for: str


class ReportProgress(_Input, frozen=True):
    """An attempt at a node has told how far it is."""

    node: str
    attempt: int
    data: Any = None


class Recover(_Input, frozen=True):
    """A new owner took over; whatever was under way is not any more.

    apart: nodes whose work ran in other processes, or waited for one: that the owner was lost is no fault of theirs.
    """

    apart: frozenset[str] = frozenset()


class Continue(_Input, frozen=True):
    """A decision was left off because it had grown long: go on with it."""


Mending = RetryExecution | SkipNode | CompleteNode | ChangeInput | ExtendDeadline
"""Commands by which somebody mends an execution by hand."""

Control = (
    SignalExecution | DecideApproval | PauseExecution | ResumeExecution | CancelExecution | TerminateExecution | Mending
)
"""Commands of people and programs to an execution that has begun."""

Command = (
    StartExecution
    | FireTimer
    | ActivateExecution
    | AdmitExecution
    | RefuseExecution
    | ReportChild
    | CompensateExecution
    | ReportCompensation
    | Control
)
"""Inputs that travel through the inbox; each has an id, and counts once however often it arrives."""

Report = ReportSuccess | ReportFailure | ReportLoss | ReportQueued | ReportProgress
"""What the work on an attempt says."""

Input = Command | Report | Recover | Continue

_COMMANDS = frozenset(get_args(Command))

_decoder = msgspec.json.Decoder(Command)
_encoder = msgspec.json.Encoder()


def is_command(given: Input) -> TypeGuard[Command]:
    """Say whether an input is a command: quicker than to compare its type with each of theirs."""
    return type(given) in _COMMANDS


def encode_command(command: Command) -> bytes:
    """Return the JSON form of a command."""
    return _encoder.encode(command)


def decode_command(data: bytes) -> Command:
    """Return the command; raises msgspec.DecodeError when it is none of this release."""
    command: Command = _decoder.decode(data)
    return command
