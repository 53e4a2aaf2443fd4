"""Batches as they are recorded: who does what to which executions, how far it is, and how each of them took it."""

import socket
from collections.abc import Mapping
from datetime import UTC, datetime
from os import getpid
from typing import Any, Literal
from uuid import uuid4

import msgspec

from perdure.actors.inputs import (
    CancelExecution,
    Control,
    PauseExecution,
    ResumeExecution,
    RetryExecution,
    SignalExecution,
    TerminateExecution,
)
from perdure.cluster.registry import Changed, Registry
from perdure.definitions.json_values import to_json_value
from perdure.errors import BadInput, TakenOver
from perdure.projections.queries import Query

Action = Literal["cancel", "terminate", "pause", "resume", "retry", "signal", "purge"]

_GOING = ("queued", "running", "paused", "compensating")
ACTIONS: dict[str, tuple[str, ...]] = {
    "cancel": _GOING,
    "terminate": (*_GOING, "cancelling"),
    "pause": ("running", "compensating"),
    "resume": ("paused",),
    "retry": ("failed",),
    "signal": _GOING,
    "purge": ("succeeded", "failed", "cancelled", "terminated", "compensated"),
}
"""What can be done to many executions, and to those of which status where none is asked for."""

_GROUP = "batches"
_LARGEST = 500_000
REFUSALS = 20


class Batch(msgspec.Struct, frozen=True, kw_only=True):
    """A batch. query: see Query; who, from when. until: executions that began behind this position are not concerned.

    at: the start's position of the last execution that is done. matched: how many there were at the beginning.
    outcomes: how many took it (`done`), have it in the inbox (`queued`), refused it (`refused`), or are gone (`gone`).
    refusals: the first 20, by id. doing: those that are told now, also to be counted after a crash. first: some of the
    executions that are concerned, where it is only a preview.
    """

    id: str
    action: Action
    query: dict[str, Any]
    signal: str = ""
    data: Any = None
    reason: str = ""
    by: str
    began: datetime
    until: int
    matched: int
    rate: float
    at: int = 0
    outcomes: dict[str, int] = {}
    refusals: dict[str, str] = {}
    status: Literal["preview", "running", "stopped", "finished"] = "running"
    ended: datetime | None = None
    owner: str = ""
    where: str = ""
    doing: list[str] = []
    first: list[str] = []

    @property
    def asked(self) -> Query:
        """The query."""
        return Query(**self.query)

    def cause(self, execution: str) -> str:
        """Return the id of the command for one execution."""
        return f"batch/{self.id}/{execution}"

    def command(self, execution: str) -> Control:
        """Return the command for one execution; its id is the same each time, so it counts once."""
        name = self.cause(execution)
        match self.action:
            case "cancel":
                return CancelExecution(name, execution, self.reason, self.by)
            case "terminate":
                return TerminateExecution(name, execution, self.reason, self.by)
            case "pause":
                return PauseExecution(name, execution, self.reason, self.by)
            case "resume":
                return ResumeExecution(name, execution, self.by)
            case "retry":
                return RetryExecution(name, execution, self.reason, self.by)
            case "signal":
                return SignalExecution(name, execution, self.signal, self.data)
        raise AssertionError(self.action)

    def after(self, at: int, results: Mapping[str, tuple[str, str]]) -> "Batch":
        """Return the batch with the outcomes of some more executions."""
        outcomes, refusals = dict(self.outcomes), dict(self.refusals)
        for execution, (outcome, why) in results.items():
            outcomes[outcome] = outcomes.get(outcome, 0) + 1
            if why and len(refusals) < REFUSALS:
                refusals[execution] = why
        return msgspec.structs.replace(self, at=at, outcomes=outcomes, refusals=refusals, doing=[])


def check_recordable(said: Mapping[str, Any]) -> None:
    """Raise BadInput where what a batch says cannot be recorded with it, or not be read again."""
    for name, value in said.items():
        if name in ("signal", "reason", "by") and not isinstance(value, str):
            raise BadInput(f"{name} {value!r}: it is text")
        try:
            size = len(msgspec.json.encode(value if isinstance(value, datetime) else to_json_value(value)))
        except ValueError as error:
            raise BadInput(f"{name} cannot be recorded: {error}") from None
        if size > _LARGEST:
            raise BadInput(
                f"{name} has {size} bytes as JSON, and with a batch {_LARGEST} at most are kept; put what is large "
                "into a file, and its name into the data"
            )


class BatchRecords:
    """The records of batches in the registry; the process that took one over last writes it."""

    def __init__(self, registry: Registry) -> None:
        self._registry = registry

    async def put(self, batch: Batch, revision: int) -> int:
        """Record a batch; raise TakenOver where another one has written it since."""
        try:
            return await self._registry.swap(_key(batch.id), msgspec.json.encode(batch), revision)
        except Changed:
            found, revision = await self.read(batch.id)
            if found == batch:  # our own write, whose answer was lost
                return revision
            what = "stopped" if found.status == "stopped" else f"taken over by {found.where}"
            raise TakenOver(f"batch {batch.id} was {what}; perdure batch show {batch.id} says how far it is") from None

    async def read(self, id: str) -> tuple[Batch, int]:
        """Return a batch and its revision. Raises BadInput where there is none of this id."""
        data, revision = await self._registry.read(_key(id))
        if not data:
            raise BadInput(f"there is no batch {id!r}; perdure batch list shows those that there are")
        return msgspec.json.decode(data, type=Batch), revision

    async def all(self) -> list[Batch]:
        """Return all batches, newest first."""
        found = [(await self.read(each))[0] for each in await self._registry.keys_under(_GROUP)]
        return sorted(found, key=lambda batch: batch.began, reverse=True)

    async def stop(self, id: str) -> Batch:
        """Have a batch do no more; the process that is at it notices after some executions. Raises BadInput."""
        batch, revision = await self.read(id)
        if batch.status != "running":
            raise BadInput(f"batch {id} is {batch.status} already")
        batch = msgspec.structs.replace(batch, status="stopped", ended=datetime.now(UTC))
        await self.put(batch, revision)
        return batch


def owned(batch: Batch) -> Batch:
    """Return a batch as one that this process is at."""
    where = f"{socket.gethostname()}, process {getpid()}"
    return msgspec.structs.replace(batch, owner=uuid4().hex, where=where, status="running", ended=None)


def _key(id: str) -> str:
    if not id.isalnum():
        raise BadInput(f"there is no batch {id!r}; perdure batch list shows those that there are")
    return f"{_GROUP}.{id}"
