"""The one error root and its leaves: each leaf says whose fault it is and how to mend it."""

from dataclasses import dataclass
from typing import Any, Literal


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that is wrong in a definition, and where; `text` is the line as it is written there."""

    file: str
    message: str
    line: int = 0
    column: int = 0
    text: str = ""
    severity: Literal["error", "warning"] = "error"

    def __str__(self) -> str:
        """Return `file:line:column: message`, and the line below with a caret under the place."""
        place = f"{self.file}:{self.line}:{self.column}" if self.line else self.file
        warning = "warning: " if self.severity == "warning" else ""
        shown = f"\n{self.line:>6} | {self.text}\n{'':>6} | {' ' * (self.column - 1)}^" if self.text else ""
        return f"{place}: {warning}{self.message}{shown}"


class PerdureError(Exception):
    """The root of every error that perdure raises on purpose."""

    exit_code = 3


class BadInput(PerdureError):
    """The caller's input cannot be used; the message names the thing, the place and the mend."""

    exit_code = 2


class DefinitionError(BadInput):
    """A workflow definition is wrong; `problems` holds every problem that was found."""

    def __init__(self, problems: list[Problem]) -> None:
        super().__init__("\n".join(map(str, problems)))
        self.problems = problems


class ExpressionError(BadInput):
    """An expression does not parse, or cannot be evaluated on the data that it was given.

    `offset` is the place within the string that holds it, in characters, where that is known.
    """

    def __init__(self, message: str, offset: int | None = None) -> None:
        super().__init__(message)
        self.offset = offset


class ToolNotFound(BadInput):
    """A tool is named that no module registers and no import path leads to."""


class UnknownKind(BadInput):
    """A node is of a kind that is not installed where it is checked or run."""


class ExecutionExists(BadInput):
    """The execution id is taken by an execution of another definition or input."""


class ExecutionNotFound(BadInput):
    """No execution with this id is in the log."""


class WorkflowNotFound(BadInput):
    """No workflow is registered under this name, or not in this version."""


class ScheduleNotFound(BadInput):
    """There is no schedule of this name."""


class WorkflowDeprecated(BadInput):
    """The version of a registered workflow takes no new starts; the message says why, and the way out."""


class RetryLater(PerdureError):
    """A tool raises it to be tried again, where its node's `retry` allows it, not before so many seconds."""

    def __init__(self, seconds: float, message: str = "") -> None:
        super().__init__(message or f"asks to be tried again in {seconds:g} s")
        self.retry_after = seconds


class CallCancelled(PerdureError):
    """Nobody waits for a call any more: its node was cancelled, timed out, or was silent for too long."""


class EnvironmentProblem(PerdureError):
    """Something outside the workflow is missing or broken: server, cluster, disk, credentials."""


class RuntimeEnvFailed(EnvironmentProblem):
    """Ray could not give a node actor its runtime environment; the message has the end of what the installer said."""


class LogUnavailable(EnvironmentProblem):
    """The log did not answer within the deadline; whether an append was applied is unknown."""


class ModelUnavailable(EnvironmentProblem):
    """An agent is to run and no model endpoint is configured."""


class SecretMissing(EnvironmentProblem):
    """A secret that a workflow names is not set, or cannot be read, where the workflow runs."""


class VersionConflict(PerdureError):
    """Another writer appended to this execution first."""

    def __init__(self, execution: str, expected: int, actual: int) -> None:
        super().__init__(f"execution {execution!r}: expected its last entry at {expected}, found {actual}")
        self.expected = expected
        self.actual = actual


class Deposed(PerdureError):
    """This owner was replaced by a newer one and must stop without any further effect."""


class TakenOver(PerdureError):
    """Another process goes on with what this one was at: a durable subscription, or a batch, has one at a time."""


class SinkUnavailable(EnvironmentProblem):
    """What events are handed on to does not take them now; what was not taken is handed on later."""


class BelongsElsewhere(PerdureError):
    """The execution's workflow asks for a process of its own, and this is not one; nothing was decided."""


class CorruptEntry(PerdureError):
    """A stored entry cannot be decoded by this release."""


class CorruptBlob(PerdureError):
    """A large value that an entry names is missing from the store, or is not what was stored."""


class StateNotReached(PerdureError):
    """An execution ended without being in the state that was waited for."""


class WaitTimeout(PerdureError, TimeoutError):
    """The result was not there in time; the execution goes on."""


class ExecutionFailed(PerdureError):
    """An execution ended without success; says which node failed, at which attempt, and why."""

    exit_code = 1

    def __init__(self, execution: str, node: str | None, attempt: int, error: dict[str, Any]) -> None:
        place = f" at node {node!r} (attempt {attempt})" if node else ""
        super().__init__(f"execution {execution!r} failed{place}: {error['type']}: {error['message']}")
        self.execution = execution
        self.node = node
        self.attempt = attempt
        self.error = error


class ExecutionStopped(PerdureError):
    """An execution ended because somebody cancelled or terminated it, or it was undone with its parent."""

    exit_code = 1

    def __init__(self, execution: str, status: str, reason: str) -> None:
        super().__init__(f"execution {execution!r} was {status}{f': {reason}' if reason else ''}")
        self.execution = execution
        self.status = status
        self.reason = reason


class LimitReached(PerdureError):
    """A limit at which whoever comes too late is rejected had nothing left."""

    exit_code = 1


class QuotaExceeded(LimitReached):
    """There are as many executions as a quota allows, or as many were started in the last minute; start it later."""


class CommandNotAllowed(BadInput):
    """An execution refused a command in the state that it is in; the message has the reason."""
