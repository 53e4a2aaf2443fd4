"""The context of a call: what code is told about the attempt that it makes, and how it says that it is alive."""

import logging
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import datetime
from time import monotonic
from typing import Any

from pydantic_core import core_schema

from perdure.actors.outside import Outside
from perdure.actors.tool_logger import ToolLogger
from perdure.definitions.json_values import to_json_value
from perdure.errors import BadInput, CallCancelled

Beat = Callable[[Any], None]


def idempotency_key(execution: str, path: str, undone: int) -> str:
    """Return the key of a node's effect: the same across attempts and crashes, another one once it was undone."""
    return f"{execution}/{path}" + (f"#{undone + 1}" if undone else "")


def _unheard(progress: Any) -> None:
    """Take a beat that nobody waits for: the call is made by hand, or played."""


def _wanted() -> bool:
    return False


@dataclass(frozen=True)
class Context:
    """What a tool gets for a parameter annotated with this class, whatever its name, and own kinds of nodes always.

    node: its path. deadline: when the node is given up (UTC), where it has one; later extensions are not seen.
    outside: what perdure's own tools reach things with; yours need `secret` only.
    """

    execution: str
    node: str
    attempt: int
    idempotency_key: str
    deadline: datetime | None = None
    _beat: Beat = field(default=_unheard, repr=False, compare=False)
    _stopped: Callable[[], bool] = field(default=_wanted, repr=False, compare=False)
    outside: Outside = field(default_factory=Outside, repr=False, compare=False)

    @property
    def cancelled(self) -> bool:
        """Whether nobody waits for the call any more: who does not end now is killed after the `grace` of its pool."""
        return self._stopped()

    @property
    def logger(self) -> ToolLogger:
        """A logger whose lines say what they are about, with the values of secrets taken out."""
        about = {"execution": self.execution, "node": self.node, "attempt": self.attempt}
        return ToolLogger(logging.getLogger("perdure.tool"), about, self.outside.secrets.redact)

    def secret(self, name: str) -> str:
        """Return the value of a secret, of the process that the tool runs in; it is taken out of whatever it gives.

        Raises SecretMissing.
        """
        return self.outside.secrets.value_of(name)

    def heartbeat(self, progress: Any = None) -> None:
        """Say that the tool is alive, and how far it is: JSON data that who follows the execution sees.

        May be called from any thread. Raises CallCancelled where nobody waits for the call any more, and BadInput where
        the progress is not JSON data.
        """
        if self.cancelled:
            raise CallCancelled(f"the call of {self.node!r} is not wanted any more")
        try:
            self._beat(self.outside.secrets.redact(to_json_value(progress)))
        except ValueError as error:
            raise BadInput(f"the progress of a heartbeat of {self.node!r} is not JSON data: {error}") from None

    @classmethod
    def __get_pydantic_core_schema__(cls, _source: Any, _handler: Any) -> core_schema.CoreSchema:
        return core_schema.is_instance_schema(cls)

    @classmethod
    def __get_pydantic_json_schema__(cls, _schema: Any, _handler: Any) -> dict[str, Any]:
        return {}  # a tool's schema leaves the parameter out


class Beats:
    """When a call last said that it is alive, and what it said; it begins with a beat."""

    def __init__(self, told: Beat | None = None) -> None:
        self._last: tuple[float, Any] = (monotonic(), None)
        self._told = told
        self.stopped = False

    def of(self, context: Context) -> Context:
        """Return the context with its heartbeats heard here."""
        return replace(context, _beat=self.beat, _stopped=lambda: self.stopped)

    def stop(self) -> None:
        """Let the call see that nobody waits for it any more."""
        self.stopped = True

    def beat(self, progress: Any) -> None:
        """Take a beat, from any thread; a progress stays until another one is told."""
        self._last = (monotonic(), self._last[1] if progress is None else progress)
        if self._told is not None and progress is not None:
            self._told(progress)

    def read(self) -> tuple[float, Any]:
        """Return the seconds since the last beat, and the last progress."""
        at, progress = self._last
        return monotonic() - at, progress

    async def silence(self) -> tuple[float, Any]:
        """Return what `read` does, for who waits on a loop."""
        return self.read()
