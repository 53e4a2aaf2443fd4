"""Telling webhooks: fills their outbox from the log, and delivers what is in it, again and again until it is taken."""

import asyncio
import logging
import random
from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any, TypeVar

from sqlalchemy import Connection as Sql

from perdure.cluster import webhooks as declaring
from perdure.cluster.connection import Connection
from perdure.cluster.secret_sources import value_of
from perdure.cluster.settings import Settings
from perdure.cluster.tasks import stop
from perdure.cluster.webhook_http import Answer, post
from perdure.errors import PerdureError
from perdure.projections import tracking, webhooks
from perdure.projections.runner import Projections
from perdure.projections.webhooks import Outbox, Webhook

_LOOK_SECONDS = 0.2
_LOOK_RARELY = 2.0  # seconds, where nothing is declared
_SETTLE_SECONDS = 5.0
_AT_ONCE = 32
_FIRST, _FACTOR, _CAP = 5.0, 3.0, 3600.0  # seconds between the attempts
_log = logging.getLogger("perdure.webhooks")
_T = TypeVar("_T")


def wait_after(attempt: int, asked: float | None = None) -> float:
    """Return the seconds to wait after so many attempts: 5, 15, 45, ... up to an hour, or as many as are asked for."""
    backoff = min(_CAP, _FIRST * _FACTOR ** (attempt - 1))
    return max(asked or 0.0, backoff * random.uniform(0.8, 1.2))  # noqa: S311 (so that not all come at once)


class Teller:
    """Tells the webhooks of one store. Several may be at it: a delivery is taken by one of them at a time."""

    def __init__(self, connection: Connection, settings: Settings) -> None:
        self._connection = connection
        self._settings = settings
        self._hooks: dict[str, Webhook] = {}
        self._telling: dict[str, asyncio.Task[int]] = {}
        self._projections: Projections | None = None
        self._noted = 0.0

    async def run(self) -> None:
        """Tell, until cancelled; what keeps it from that is said, and tried again."""
        works = [asyncio.create_task(self._again_and_again(work)) for work in (self._fill, self._begin)]
        try:
            await asyncio.gather(*works)
        finally:
            await stop(*works, *self._telling.values())

    async def once(self) -> int:
        """Fill the outbox, and try what is due in it; return how many deliveries that were."""
        await self._fill()
        return sum(await asyncio.gather(*map(self._tell, await self._due())))

    def close(self) -> None:
        """Close what is open."""
        if self._projections is not None:
            self._projections.close()
            self._projections = None

    async def _again_and_again(self, work: Callable[[], Awaitable[None]]) -> None:
        while True:
            try:
                await work()
                idle = work == self._fill and not self._hooks
                await asyncio.sleep(_LOOK_RARELY if idle else _LOOK_SECONDS)
            except PerdureError as error:
                _log.warning("webhooks are not told, and tried again in %g s: %s", _LOOK_RARELY, error)
                await asyncio.sleep(_LOOK_RARELY)

    async def _fill(self) -> None:
        await self._refresh()
        if self._projections is not None:
            names = ["executions", *(f"webhook:{name}" for name in self._hooks)]
            await self._projections.catch_up(self._connection.log, names)
            await self._note()

    async def _begin(self) -> None:
        """Have each webhook told apart from the others: one whose other side is slow keeps itself waiting only."""
        for name, task in list(self._telling.items()):
            if task.done():
                del self._telling[name]
                task.result()
        for name in set(await self._due()) - self._telling.keys():
            self._telling[name] = asyncio.create_task(self._tell_all(name), name=f"perdure-webhook-{name}")

    async def _due(self) -> Sequence[str]:
        if self._projections is None:
            return ()
        found = await self._projections.read(partial(webhooks.with_due, now=datetime.now(UTC)))
        return [name for name in found if name in self._hooks]

    async def _tell_all(self, name: str) -> int:
        count = 0
        while more := await self._tell(name):
            count += more
        return count

    async def _tell(self, name: str) -> int:
        """Try what is due of one webhook, so many at once; return how many deliveries that were."""
        hook, projections = self._hooks.get(name), self._projections
        if hook is None or projections is None:
            return 0
        now = datetime.now(UTC)
        rows = await projections.read(partial(webhooks.due, webhook=name, now=now, limit=_AT_ONCE))
        if rows:  # else nothing is written: a writer of SQLite keeps others waiting
            until = now + timedelta(seconds=2 * hook.timeout + 10)
            rows = await _written(projections, partial(webhooks.claim, rows=rows, until=until))
        answers = await asyncio.gather(*(self._tried(hook, row) for row in rows))
        if rows:
            await _written(projections, partial(_settle, hook, rows, answers))
        return len(rows)

    async def _refresh(self) -> None:
        """Look at what is declared; a new webhook's position begins where it is declared from."""
        hooks = {hook.name: hook for hook in await declaring.declared(self._connection.registry)}
        gone = [name for name, hook in self._hooks.items() if name not in hooks or hooks[name].made != hook.made]
        if not gone and hooks.keys() == self._hooks.keys():
            return
        await stop(*(self._telling.pop(name) for name in gone if name in self._telling))
        if self._projections is not None and gone:  # what was put into the outbox while it was being removed
            await _written(self._projections, partial(_forget, gone))
        self.close()
        if hooks:
            log = self._connection.log
            projections = Projections(
                self._settings.projections_at, [Outbox(hook, await log.identity()) for hook in hooks.values()]
            )
            await projections.prepare(log)
            await _written(projections, partial(_skip, hooks))
            self._projections = projections
        self._hooks = hooks

    async def _tried(self, hook: Webhook, row: Any) -> Answer:
        try:
            secret = await asyncio.to_thread(value_of, self._settings.secrets_dir, hook.secret)
            return await post(hook.url, secret, row.id, row.body, hook.timeout, self._settings.http_allow)
        except (PerdureError, ValueError) as error:
            return Answer(str(error))

    async def _note(self) -> None:
        """Note now and then up to where everything is told."""
        now = asyncio.get_running_loop().time()
        if now - self._noted < _SETTLE_SECONDS or self._projections is None:
            return
        self._noted = now
        reached = await self._projections.read(tracking.positions)
        for name in self._hooks:
            first = await self._projections.read(partial(webhooks.first_open, webhook=name))
            position = reached.get(f"webhook:{name}", 0) if first is None else first - 1
            await declaring.settled(self._connection.registry, name, position)


async def _written(projections: Projections, work: Callable[[Sql], _T]) -> _T:
    def write() -> _T:
        with projections.store.writing() as connection:
            return work(connection)

    return await asyncio.to_thread(write)


def _skip(hooks: Mapping[str, Webhook], sql: Sql) -> None:
    for name, hook in hooks.items():
        tracking.advance(sql, f"webhook:{name}", 0, max(hook.since, hook.settled))


def _forget(names: Sequence[str], sql: Sql) -> None:
    for name in names:
        webhooks.forget(sql, name)


def _settle(hook: Webhook, rows: Sequence[Any], answers: Sequence[Answer], sql: Sql) -> None:
    for row, answer in zip(rows, answers, strict=True):
        attempt, due = row.attempts + 1, None
        if answer.why is not None:
            if attempt < hook.attempts and not answer.gone:
                due = datetime.now(UTC) + timedelta(seconds=wait_after(attempt, answer.wait))
            what = "is tried again" if due else "is given up; see perdure webhooks dead"
            _log.warning(
                "webhook %s: event %s of %s, attempt %d: %s; it %s",
                hook.name, row.id, row.execution, attempt, answer.why, what,
            )  # fmt: skip
        webhooks.settle(sql, row, answer.why, due)


async def keep_telling(connection: Connection, settings: Settings) -> None:
    """Tell webhooks, until cancelled."""
    teller = Teller(connection, settings)
    try:
        await teller.run()
    finally:
        teller.close()
