"""What a statechart's log amounts to: its configuration, history, context and counters, as plain data."""

from typing import Any

import msgspec
from immutables import Map

from perdure.events.vocabulary import CallQueued, Error


class ChartEvent(msgspec.Struct, frozen=True, omit_defaults=True):
    """An event of a statechart.

    of: the call whose end it tells. timer: of a delay that is over, the state, which entry of it, and which delay.
    """

    name: str
    data: Any = None
    error: Error | None = None
    of: str = ""
    timer: tuple[str, int, int] | None = None

    def as_data(self) -> dict[str, Any]:
        """Return what expressions see of it."""
        seen: dict[str, Any] = {"name": self.name, "data": self.data}
        if self.error is not None:
            seen["error"] = {"type": self.error.type, "message": self.error.message, "data": self.error.data}
        return seen


class ChartState(msgspec.Struct, frozen=True, omit_defaults=True):
    """Where a statechart stands.

    configuration: the paths of the active states, in the order in which they were entered. entries: how often each
    state was entered. history: what each history remembers. held: events that came during a pause. calls: those that
    wait for their turn. asked: how often a call was asked for while its state was active. steps: how many it has taken.
    ended: it is in a final state at the top, with this output, or the error that it fails with.
    """

    configuration: tuple[str, ...] = ()
    entries: Map[str, int] = Map()
    history: Map[str, tuple[str, ...]] = Map()
    context: dict[str, Any] = {}
    held: tuple[ChartEvent, ...] = ()
    calls: tuple[CallQueued, ...] = ()
    asked: Map[str, int] = Map()
    steps: int = 0
    ended: bool = False
    output: Any = None
    failed: Error | None = None

    def is_active(self, state: str, entry: int) -> bool:
        """Say whether a state is active since its entry of this number."""
        return state in self.configuration and self.entries.get(state) == entry
