"""Telling webhooks: fills their outbox from the log, and delivers what is in it, again and again until it is taken."""

import asyncio
import logging
import random
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any

from sqlalchemy import Connection as Sql

from perdure.cluster import webhooks as declaring
from perdure.cluster.connection import Connection
from perdure.cluster.secret_sources import value_of
from perdure.cluster.settings import Settings
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
        self._projections: Projections | None = None
        self._noted = 0.0

    async def run(self) -> None:
        """Tell, until cancelled; what keeps it from that is said, and tried again."""
        while True:
            try:
                more = await self.once()
                if not more:
                    await asyncio.sleep(_LOOK_SECONDS if self._hooks else _LOOK_RARELY)
            except PerdureError as error:
                _log.warning("webhooks are not told, and tried again in %g s: %s", _LOOK_RARELY, error)
                await asyncio.sleep(_LOOK_RARELY)

    async def once(self) -> int:
        """Fill the outbox, and try what is due in it; return how many deliveries that were."""
        await self._refresh()
        if self._projections is None:
            return 0
        await self._projections.catch_up(
            self._connection.log, ["executions", *(f"webhook:{name}" for name in self._hooks)]
        )
        now = datetime.now(UTC)
        until = now + timedelta(seconds=2 * max(hook.timeout for hook in self._hooks.values()) + 10)
        found = partial(webhooks.due, webhooks=list(self._hooks), now=now, limit=_AT_ONCE)
        rows = await self._projections.read(found)
        if rows:  # else nothing is written: a writer of SQLite keeps others waiting
            rows = await self._write(partial(webhooks.claim, rows=rows, until=until))
        answers = await asyncio.gather(*map(self._tried, rows))
        if rows:
            await self._write(partial(self._settle, rows=rows, answers=answers))
        await self._note()
        return len(rows)

    def close(self) -> None:
        """Close what is open."""
        if self._projections is not None:
            self._projections.close()
            self._projections = None

    async def _refresh(self) -> None:
        """Look at what is declared; a new webhook's position begins where it is declared from."""
        hooks = {hook.name: hook for hook in await declaring.declared(self._connection.registry)}
        if hooks.keys() == self._hooks.keys() and all(hooks[name].made == self._hooks[name].made for name in hooks):
            return
        self.close()
        self._hooks = hooks
        if hooks:
            log = self._connection.log
            outboxes = [Outbox(hook, await log.identity()) for hook in hooks.values()]
            self._projections = Projections(self._settings.projections_at, outboxes)
            await self._projections.prepare(log)
            await self._write(self._skip)

    def _skip(self, sql: Sql) -> None:
        for name, hook in self._hooks.items():
            tracking.advance(sql, f"webhook:{name}", 0, max(hook.since, hook.settled))

    async def _tried(self, row: Any) -> Answer:
        hook = self._hooks[row.webhook]
        try:
            secret = await asyncio.to_thread(value_of, self._settings.secrets_dir, hook.secret)
            return await post(hook.url, secret, row.id, row.body, hook.timeout, self._settings.http_allow)
        except (PerdureError, ValueError) as error:
            return Answer(str(error))

    def _settle(self, sql: Sql, rows: Sequence[Any], answers: Sequence[Answer]) -> None:
        for row, answer in zip(rows, answers, strict=True):
            self._settle_one(sql, row, answer)

    def _settle_one(self, sql: Sql, row: Any, answer: Answer) -> None:
        hook, attempt, due = self._hooks[row.webhook], row.attempts + 1, None
        if answer.why is not None:
            if attempt < hook.attempts and not answer.gone:
                due = datetime.now(UTC) + timedelta(seconds=wait_after(attempt, answer.wait))
            what = "is tried again" if due else "is given up; see perdure webhooks dead"
            _log.warning(
                "webhook %s: event %s of %s, attempt %d: %s; it %s",
                hook.name, row.id, row.execution, attempt, answer.why, what,
            )  # fmt: skip
        webhooks.settle(sql, row, answer.why, due)

    async def _note(self) -> None:
        """Note now and then up to where everything is told."""
        now = asyncio.get_running_loop().time()
        if now - self._noted < _SETTLE_SECONDS or self._projections is None:
            return
        self._noted = now
        reached = await self._projections.read(tracking.positions)
        for name in self._hooks:
            first = await self._projections.read(partial(webhooks.first_open, webhook=name))
            position = reached[f"webhook:{name}"] if first is None else first - 1
            await declaring.settled(self._connection.registry, name, position)

    async def _write(self, work: Any) -> Any:
        projections = self._projections
        assert projections is not None  # noqa: S101 (whoever writes has opened them)

        def write() -> Any:
            with projections.store.writing() as connection:
                return work(connection)

        return await asyncio.to_thread(write)


async def keep_telling(connection: Connection, settings: Settings) -> None:
    """Tell webhooks, until cancelled."""
    teller = Teller(connection, settings)
    try:
        await teller.run()
    finally:
        teller.close()
