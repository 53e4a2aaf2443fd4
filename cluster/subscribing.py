"""What a client has for those who want events: subscriptions, exactly-once into SQL, sinks."""

import asyncio
import logging
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from perdure.cluster import cursors
from perdure.cluster.cursors import Cursor
from perdure.cluster.queries import AsyncQueries
from perdure.cluster.subscriptions import Ack, AsyncSubscription, From, first_place
from perdure.errors import SinkUnavailable
from perdure.events.choice import choice_of
from perdure.events.cloud_events import message_of
from perdure.events.sinks import EventSink, open_sink

if TYPE_CHECKING:
    from sqlalchemy import Engine

    from perdure.cluster.into_sql import Handle
    from perdure.cluster.webhooks import AsyncWebhooks

Names = str | Iterable[str]
_BATCH = 500
_LONGEST_WAIT = 60.0  # seconds
_log = logging.getLogger("perdure.sinks")


class AsyncSubscribing(AsyncQueries):
    """The subscriptions of a client."""

    @property
    def webhooks(self) -> "AsyncWebhooks":
        """The webhooks of this store."""
        from perdure.cluster.webhooks import AsyncWebhooks

        return AsyncWebhooks(self._connection, self._projections.store, self._settings)

    async def subscribe(
        self,
        types: Names = (),
        *,
        workflow: Names = (),
        execution: str | None = None,
        from_: From = "now",
        durable: str | None = None,
        ack: Ack = "next",
        imports: bool = False,
    ) -> AsyncSubscription:
        """Return an iterator over the events as they come, in the order of the log.

        types: names of events, all where absent. workflow, execution: only of these. from_: now, beginning, or behind a
        position. durable: a name under which it goes on where it was acknowledged, `from_` or not; one process has it
        at a time, the one that subscribed last. ack: see AsyncSubscription. imports: also what was imported.
        Raises BadInput, LogUnavailable.
        """
        choice, log = choice_of(types, workflow, execution, imports=imports), self._connection.log
        if durable is None:
            return AsyncSubscription(log, choice, await first_place(log, from_), None, ack)
        registry = self._connection.registry
        cursor = await Cursor.open(registry, durable, choice, lambda: first_place(log, from_))
        return AsyncSubscription(log, choice, cursor.place, cursor, ack)

    async def subscriptions(self) -> list[dict[str, Any]]:
        """Return the durable subscriptions: name, position, lag behind the end of the log, events, last subscriber."""
        last = await self._connection.log.last()
        return [
            {"name": each.name, "position": each.place.position - 1, "lag": max(0, last - each.place.position + 1),
             "types": list(each.choice.types), "workflows": list(each.choice.workflows),
             "execution": each.choice.execution, "subscriber": each.where, "moved": each.moved}
            for each in await cursors.all_of(self._connection.registry)
        ]  # fmt: skip

    async def unsubscribe(self, durable: str) -> None:
        """Forget a durable subscription. Raises BadInput where there is none of this name."""
        await cursors.delete(self._connection.registry, durable)

    async def into_sql(
        self,
        handle: "Handle",
        engine: "Engine",
        name: str,
        *,
        types: Names = (),
        workflow: Names = (),
        execution: str | None = None,
        from_: From = "now",
        imports: bool = False,
        stop_at_end: bool = False,
    ) -> int:
        """Call `handle(connection, event)` for each event, exactly once: in a transaction that also moves the position.

        engine: SQLAlchemy's, of your database; the position `name` is in its table perdure_positions. stop_at_end:
        return, when all that the log holds now is handled, how many events were; else it goes on for ever. What
        `handle` raises undoes its transaction and is raised here.
        """
        from perdure.cluster.into_sql import IntoSql

        choice, log = choice_of(types, workflow, execution, imports=imports), self._connection.log
        until = await log.last() if stop_at_end else None
        return await IntoSql(log, engine, name, choice, handle).run(from_, until)

    async def forward(
        self,
        sink: EventSink | str,
        name: str,
        *,
        types: Names = (),
        workflow: Names = (),
        execution: str | None = None,
        from_: From = "now",
        imports: bool = False,
    ) -> None:
        """Hand events on to a sink, for ever, at least once: `name` is the durable subscription that knows how far.

        sink: an EventSink, or the URL of one. While it does not take events it is asked again, after 1 to 60 s.
        """
        into = await open_sink(sink) if isinstance(sink, str) else sink
        try:
            async with await self.subscribe(
                types, workflow=workflow, execution=execution, from_=from_, durable=name, ack="manual", imports=imports
            ) as subscription:
                await _forward(subscription, into, await self._connection.log.identity())
        finally:
            if into is not sink:
                await into.close()


async def _forward(subscription: AsyncSubscription, sink: EventSink, log: str) -> None:
    while True:
        messages = [message_of(happened, workflow, log) for happened, workflow in await subscription.batch(_BATCH)]
        wait = 1.0
        while True:
            try:
                await sink.put(messages)
                break
            except SinkUnavailable as error:
                _log.warning("%d events wait, and are sent again in %g s: %s", len(messages), wait, error)
                await asyncio.sleep(wait)
                wait = min(2 * wait, _LONGEST_WAIT)
        await subscription.ack()
