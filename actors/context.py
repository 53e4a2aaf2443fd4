"""The context of a call: what code is told about the attempt that it makes, and how it says that it is alive."""

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from time import monotonic
from typing import Any

from pydantic_core import core_schema

from perdure.definitions.json_values import to_json_value
from perdure.errors import BadInput

Beat = Callable[[Any], None]


def idempotency_key(execution: str, path: str, undone: int) -> str:
    """Return the key of a node's effect: the same across attempts and crashes, another one once it was undone."""
    return f"{execution}/{path}" + (f"#{undone + 1}" if undone else "")


def _unheard(progress: Any) -> None:
    """Take a beat that nobody waits for: the node has no `heartbeat`."""


@dataclass(frozen=True)
class Context:
    """What a tool gets for a parameter annotated with this class, whatever its name, and own kinds of nodes always.

    node: its path. deadline: when the node is given up (UTC), where it has one; later extensions are not seen.
    """

    execution: str
    node: str
    attempt: int
    idempotency_key: str
    deadline: datetime | None = None
    _beat: Beat = field(default=_unheard, repr=False, compare=False)

    def heartbeat(self, progress: Any = None) -> None:
        """Say that the tool is alive, and how far it is: JSON data, in the error of an attempt that falls silent.

        May be called from any thread. Raises BadInput where the progress is not JSON data.
        """
        try:
            self._beat(to_json_value(progress))
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

    def __init__(self) -> None:
        self._last: tuple[float, Any] = (monotonic(), None)

    def beat(self, progress: Any) -> None:
        """Take a beat, from any thread; a progress stays until another one is told."""
        self._last = (monotonic(), self._last[1] if progress is None else progress)

    def read(self) -> tuple[float, Any]:
        """Return the seconds since the last beat, and the last progress."""
        at, progress = self._last
        return monotonic() - at, progress

    async def silence(self) -> tuple[float, Any]:
        """Return what `read` does, for who waits on a loop."""
        return self.read()
