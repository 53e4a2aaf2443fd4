"""Batches: one command for all executions that a query finds, at a steady rate, going on where it was after a crash."""

import asyncio
from collections.abc import Callable
from datetime import UTC, datetime
from functools import partial
from math import inf
from typing import TYPE_CHECKING, Any, get_args
from uuid import uuid4

import msgspec

from perdure.cluster.batch_records import ACTIONS, Action, Batch, BatchRecords, check_recordable, owned
from perdure.cluster.connection import Connection
from perdure.cluster.retention import purge
from perdure.cluster.run import AsyncRun
from perdure.definitions.json_values import to_json_value
from perdure.errors import BadInput, CommandNotAllowed, ExecutionNotFound
from perdure.events.vocabulary import ExecutionPurged
from perdure.projections.queries import Query, begun_between, conditions, counts

if TYPE_CHECKING:
    from perdure.projections.runner import Projections

Told = Callable[[Batch], object]

_PAGE = 100  # executions, after which it is recorded how far it is
_AT_ONCE = 16
_SHOWN = 10


class Batches:
    """Plans batches, and works them off."""

    def __init__(self, connection: Connection, projections: "Projections") -> None:
        self._connection = connection
        self._projections = projections
        self.records = BatchRecords(connection.registry)

    async def plan(self, action: Action, query: dict[str, Any], by: str, rate: float, **more: Any) -> Batch:
        """Return a batch that is not begun: a preview. Raises BadInput for a query, or a rate, that makes no sense."""
        if action not in get_args(Action):
            raise BadInput(f"a batch cannot {action!r}; it can {', '.join(get_args(Action))}")
        if not isinstance(rate, int | float) or not 0 < rate < inf:
            raise BadInput(f"rate {rate!r}: it is a number of executions a second, more than 0")
        if action == "signal" and not more.get("signal"):
            raise BadInput("a signal has a name; say which")
        query = said(query)
        query["status"] = query.get("status") or list(ACTIONS[action])
        check_recordable({**more, "by": by, **query})
        more["data"] = to_json_value(more.get("data"))
        for name in query:
            if name not in Query.__struct_fields__ or name in ("order", "limit", "cursor"):
                raise BadInput(f"a batch cannot be asked for by {name!r}")
        asked = Query(**query)
        conditions(asked)
        until = await self._projections.catch_up(self._connection.log, ["executions"])
        found = await self._projections.read(partial(counts, query=asked))
        first = await self._projections.read(
            partial(begun_between, query=asked, after=0, until=until, limit=_SHOWN)
        )  # fmt: skip
        return Batch(
            id=uuid4().hex[:12], action=action, query=msgspec.to_builtins(query), by=by, began=datetime.now(UTC),
            until=until, matched=sum(found.values()), rate=rate, status="preview",
            first=[execution for _, execution in first], **more,
        )  # fmt: skip

    async def begin(self, batch: Batch, told: Told | None = None) -> Batch:
        """Record a planned batch, and work it off; return it as it ended. Raises TakenOver, LogUnavailable."""
        batch = msgspec.structs.replace(owned(batch), first=[])
        return await self._work_off(batch, await self.records.put(batch, 0), told)

    async def resume(self, id: str, told: Told | None = None) -> Batch:
        """Go on with a batch that was broken off, or stopped; who is at it still is deposed. Raises BadInput."""
        batch, revision = await self.records.read(id)
        if batch.status == "finished":
            raise BadInput(f"batch {id} is finished already")
        batch = owned(batch)
        return await self._work_off(batch, await self.records.put(batch, revision), told)

    async def _work_off(self, batch: Batch, revision: int, told: Told | None) -> Batch:
        pace, log = _Pace(batch.rate), self._connection.log
        batch = await self._taken_up(batch)
        while True:
            await self._projections.catch_up(log, ["executions"])
            rows = await self._projections.read(
                partial(begun_between, query=batch.asked, after=batch.at, until=batch.until, limit=_PAGE)
            )
            if not rows:
                batch = msgspec.structs.replace(batch, status="finished", ended=datetime.now(UTC))
                await self.records.put(batch, revision)
                return batch
            executions = [execution for _, execution in rows]
            batch = msgspec.structs.replace(batch, doing=executions)
            revision = await self.records.put(batch, revision)
            results = await self._page(batch, executions, pace)
            batch = batch.after(rows[-1][0], dict(zip(executions, results, strict=True)))
            revision = await self.records.put(batch, revision)
            if told is not None:
                told(batch)

    async def _taken_up(self, batch: Batch) -> Batch:
        """Count those that had it when the process died, and are not found any more for that very reason."""
        await self._projections.catch_up(self._connection.log, ["executions"])
        rows = await self._projections.read(
            partial(begun_between, query=batch.asked, after=batch.at, until=batch.until, limit=_PAGE)
        )
        found = {execution for _, execution in rows}
        had = [each for each in batch.doing if each not in found and await self._has_it(batch, each)]
        return batch.after(batch.at, dict.fromkeys(had, ("done", "")))

    async def _has_it(self, batch: Batch, execution: str) -> bool:
        """Say whether an execution has answered the command of this batch, or is purged, where that was asked."""
        async for recorded in self._connection.log.read_stored(execution):
            entry = recorded.slim
            if batch.cause(execution) in entry.causes:
                return True
            if batch.action == "purge" and any(isinstance(event, ExecutionPurged) for event in entry.events):
                return True
        return False

    async def _page(self, batch: Batch, executions: list[str], pace: "_Pace") -> list[tuple[str, str]]:
        room = asyncio.Semaphore(_AT_ONCE)

        async def one(execution: str) -> tuple[str, str]:
            async with room:
                await pace.turn()
                return await self._one(batch, execution)

        results = await asyncio.gather(*map(one, executions), return_exceptions=True)
        for result in results:
            if isinstance(result, BaseException):
                raise result  # nothing of this page is recorded: it is done again, and counts once
        return [result for result in results if not isinstance(result, BaseException)]

    async def _one(self, batch: Batch, execution: str) -> tuple[str, str]:
        """Do it to one execution; return the outcome, and why where it is refused."""
        try:
            if batch.action == "purge":
                await purge(self._connection, execution)
                return "done", ""
            recorded = await AsyncRun(execution, self._connection).tell(batch.command(execution))
        except ExecutionNotFound:
            return "gone", ""
        except (CommandNotAllowed, BadInput) as error:
            return "refused", str(error)
        return ("done" if recorded else "queued"), ""


def said(query: dict[str, Any]) -> dict[str, Any]:
    """Return what a query says, without what is left open."""
    return {name: value for name, value in query.items() if value not in (None, "", (), [], {})}


class _Pace:
    """So many turns a second, evenly."""

    def __init__(self, rate: float) -> None:
        self._apart = 1 / rate
        self._next = 0.0

    async def turn(self) -> None:
        """Return when it is the next one's turn."""
        now = asyncio.get_running_loop().time()
        mine = max(now, self._next)
        self._next = mine + self._apart
        await asyncio.sleep(mine - now)
