"""Cursors: how far durable subscribers are, each in a record of the registry that its newest subscriber moves."""

import socket
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from os import getpid
from uuid import uuid4

import msgspec

from perdure.cluster.registry import Changed, Registry
from perdure.errors import BadInput, TakenOver
from perdure.events.choice import Choice
from perdure.events.reading import Place
from perdure.events.subjects import execution_of, token_of

_GROUP = "subscriptions"
_TRIES = 20


class CursorRecord(msgspec.Struct, frozen=True, omit_defaults=True):
    """What is recorded. owner: of the last process that subscribed; moved: when the place was written."""

    name: str
    choice: Choice
    place: Place
    owner: str
    where: str
    moved: datetime


class Cursor:
    """The place of one durable subscriber, which it has for itself until another one opens it."""

    def __init__(self, registry: Registry, record: CursorRecord, revision: int) -> None:
        self._registry = registry
        self._record = record
        self._revision = revision

    @property
    def place(self) -> Place:
        """The place that is recorded."""
        return self._record.place

    @classmethod
    async def open(
        cls, registry: Registry, name: str, choice: Choice, first: Callable[[], Awaitable[Place]]
    ) -> "Cursor":
        """Take a cursor over, made at the place `first` where there is none.

        Raises BadInput where it was made for another choice of events.
        """
        if not name or len(name) > 200:
            raise BadInput("the name of a durable subscription has 1 to 200 characters")
        owner, where = uuid4().hex, f"{socket.gethostname()}, process {getpid()}"
        for _ in range(_TRIES):
            found, revision = await read(registry, name)
            if found is not None and found.choice != choice:
                raise BadInput(
                    f"the subscription {name!r} was made for other events ({_told(found.choice)}); choose another one, "
                    f"or delete it: perdure subscriptions delete {name}"
                )
            place = found.place if found else await first()
            record = CursorRecord(name, choice, place, owner, where, datetime.now(UTC))
            try:
                return cls(registry, record, await registry.swap(_key(name), msgspec.json.encode(record), revision))
            except Changed:
                continue
        raise TakenOver(f"others keep opening the subscription {name!r}; let one process have it")

    async def move(self, place: Place) -> None:
        """Record a place. Raises TakenOver where another one has opened the cursor, LogUnavailable."""
        record = msgspec.structs.replace(self._record, place=place, moved=datetime.now(UTC))
        try:
            self._revision = await self._registry.swap(_key(record.name), msgspec.json.encode(record), self._revision)
        except Changed:
            found, revision = await read(self._registry, record.name)
            if found is None or found.owner != record.owner:
                who = f"by {found.where}" if found else "or deleted"
                raise TakenOver(f"the subscription {record.name!r} was taken over {who}") from None
            self._record, self._revision = found, revision  # our own write, whose answer was lost
            if found.place != place:
                await self.move(place)
            return
        self._record = record


async def read(registry: Registry, name: str) -> tuple[CursorRecord | None, int]:
    """Return a cursor's record, None where there is none, and its revision."""
    data, revision = await registry.read(_key(name))
    return (msgspec.json.decode(data, type=CursorRecord) if data else None), revision


async def all_of(registry: Registry) -> list[CursorRecord]:
    """Return the records of all cursors, by name."""
    names = sorted(execution_of(each) for each in await registry.keys_under(_GROUP))
    return [record for name in names if (record := (await read(registry, name))[0]) is not None]


async def delete(registry: Registry, name: str) -> None:
    """Forget a cursor; who subscribes to it now notices with its next acknowledgement. Raises BadInput."""
    if (await read(registry, name))[0] is None:
        raise BadInput(f"there is no subscription {name!r}; perdure subscriptions list shows those that there are")
    await registry.forget(_key(name))


def _key(name: str) -> str:
    return f"{_GROUP}.{token_of(name)}"


def _told(choice: Choice) -> str:
    parts = [f"types {', '.join(choice.types)}" if choice.types else "all types"]
    parts += [f"workflow {', '.join(choice.workflows)}"] if choice.workflows else []
    parts += [f"execution {choice.execution}"] if choice.execution else []
    parts += ["with imports"] if choice.imports else []
    return "; ".join(parts)
