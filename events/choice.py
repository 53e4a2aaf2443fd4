"""Which events a subscriber wants: by their types, by the workflow, of one execution."""

from collections import OrderedDict
from collections.abc import Collection, Iterable
from difflib import get_close_matches
from typing import get_args

import msgspec

from perdure.errors import BadInput
from perdure.events.entry import Happened
from perdure.events.log import Log
from perdure.events.vocabulary import Event, ExecutionPurged, ExecutionStarted

TYPES: dict[str, type] = {kind.__name__: kind for kind in get_args(Event)}
_REMEMBERED = 10_000  # workflows of executions


class Choice(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What is chosen of the log; what is empty chooses all.

    types: names of events. workflows: of the executions. execution: this one only. imports: also what happened
    elsewhere and was imported.
    """

    types: tuple[str, ...] = ()
    workflows: tuple[str, ...] = ()
    execution: str | None = None
    imports: bool = False

    @property
    def kinds(self) -> tuple[type, ...]:
        """The classes of the chosen events; empty for all."""
        return tuple(TYPES[name] for name in self.types)


def choice_of(
    types: str | Iterable[str] = (),
    workflow: str | Iterable[str] = (),
    execution: str | None = None,
    *,
    imports: bool = False,
) -> Choice:
    """Return a choice; raise BadInput for a type of events that there is not, or an execution that can be none."""
    names = _several(types)
    for name in names:
        if name not in TYPES:
            close = get_close_matches(name, TYPES, 1)
            hint = f"; did you mean {close[0]!r}?" if close else f"; there are {', '.join(sorted(TYPES))}"
            raise BadInput(f"there are no events of type {name!r}{hint}")
    if execution is not None and (not isinstance(execution, str) or not execution):
        raise BadInput(f"execution={execution!r}: it is the id of one; leave it out for all")
    return Choice(types=names, workflows=_several(workflow), execution=execution, imports=imports)


class Workflows:
    """Knows the workflows of executions: from what it has seen, else from the first entry of an execution."""

    def __init__(self, log: Log) -> None:
        self._log = log
        self._names: OrderedDict[str, str] = OrderedDict()

    async def of(self, execution: str, events: Collection[Happened] = ()) -> str:
        """Return the name of an execution's workflow; events: of it, at hand. Empty where it cannot be known."""
        name = _named_in(events) or self._names.get(execution)
        if name is None:
            async for first in self._log.read(execution, limit=1):
                name = _named_in((await self._log.with_events(first)).unpack())
        self._names[execution] = name or ""
        self._names.move_to_end(execution)
        if len(self._names) > _REMEMBERED:
            self._names.popitem(last=False)
        return name or ""


def _named_in(events: Iterable[Happened]) -> str | None:
    for item in events:
        if isinstance(item.event, ExecutionStarted | ExecutionPurged):
            return item.event.workflow
    return None


def _several(given: str | Iterable[str]) -> tuple[str, ...]:
    return (given,) if isinstance(given, str) else tuple(dict.fromkeys(given))
