"""What the synchronous client has for those who want events; see AsyncSubscribing."""

import contextlib
from collections.abc import Coroutine, Sequence
from typing import TYPE_CHECKING, Any, Protocol, Self, TypeVar

from perdure.cluster.subscribing import AsyncSubscribing, Names
from perdure.cluster.subscriptions import Ack, AsyncSubscription, From
from perdure.errors import BadInput
from perdure.events.entry import Happened
from perdure.events.sinks import EventSink

if TYPE_CHECKING:
    from sqlalchemy import Engine

    from perdure.cluster.into_sql import Handle
    from perdure.cluster.webhooks import AsyncWebhooks
    from perdure.projections.webhooks import Webhook

Result = TypeVar("Result")


class _Runs(Protocol):
    def run(self, work: Coroutine[Any, Any, Result]) -> Result: ...


class Subscription:
    """An iterator over events; also a context manager, which closes it. See AsyncSubscription."""

    def __init__(self, subscription: AsyncSubscription, loop: _Runs) -> None:
        self._subscription = subscription
        self._loop = loop

    @property
    def position(self) -> int:
        """The position of the log that is acknowledged."""
        return self._subscription.position

    def next(self, timeout: float | None = None) -> Happened:
        """Return the next event, waiting at most `timeout` seconds for it; see AsyncSubscription.next."""
        return self._loop.run(self._subscription.next(timeout))

    def ack(self, event: Happened | None = None) -> None:
        """Acknowledge what was given up to this event, or all of it."""
        self._loop.run(self._subscription.ack(event))

    def close(self) -> None:
        """End it; what is acknowledged is recorded."""
        with contextlib.suppress(BadInput):  # a client that is closed has ended it
            self._loop.run(self._subscription.close())

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> Happened:
        return self.next()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class Webhooks:
    """The webhooks of a store; see AsyncWebhooks."""

    def __init__(self, webhooks: "AsyncWebhooks", loop: _Runs) -> None:
        self._webhooks = webhooks
        self._loop = loop

    def add(self, name: str, url: str, *, secret: str, **how: Any) -> "Webhook":
        """Declare a webhook; see AsyncWebhooks.add."""
        return self._loop.run(self._webhooks.add(name, url, secret=secret, **how))

    def list(self) -> "Sequence[dict[str, Any]]":
        """Return all webhooks, and how many deliveries are pending and dead."""
        return self._loop.run(self._webhooks.list())

    def remove(self, name: str) -> None:
        """Forget a webhook, with what it has not told yet."""
        self._loop.run(self._webhooks.remove(name))

    def dead(self, name: str | None = None) -> "Sequence[dict[str, Any]]":
        """Return the deliveries that failed at their last attempt."""
        return self._loop.run(self._webhooks.dead(name))

    def retry(self, name: str) -> int:
        """Have the dead deliveries of a webhook tried again; return how many."""
        return self._loop.run(self._webhooks.retry(name))


class Subscribing:
    """The subscriptions of a client."""

    _client: Any
    _loop: Any

    def subscribe(
        self,
        types: Names = (),
        *,
        workflow: Names = (),
        execution: str | None = None,
        from_: From = "now",
        durable: str | None = None,
        ack: Ack = "next",
        imports: bool = False,
    ) -> Subscription:
        """Return an iterator over the events as they come; see AsyncSubscribing.subscribe."""
        work = self._subscribing.subscribe(
            types, workflow=workflow, execution=execution, from_=from_, durable=durable, ack=ack, imports=imports
        )
        return Subscription(self._do(work), self._loop)

    def subscriptions(self) -> list[dict[str, Any]]:
        """Return the durable subscriptions; see AsyncSubscribing.subscriptions."""
        return self._do(self._subscribing.subscriptions())

    def unsubscribe(self, durable: str) -> None:
        """Forget a durable subscription."""
        self._do(self._subscribing.unsubscribe(durable))

    def into_sql(
        self, handle: "Handle", engine: "Engine", name: str, *, stop_at_end: bool = False, **chosen: Any
    ) -> int:
        """Call `handle(connection, event)` for each event, exactly once; see AsyncSubscribing.into_sql."""
        return self._do(self._subscribing.into_sql(handle, engine, name, stop_at_end=stop_at_end, **chosen))

    def forward(self, sink: EventSink | str, name: str, **chosen: Any) -> None:
        """Hand events on to a sink, for ever, at least once; see AsyncSubscribing.forward."""
        self._do(self._subscribing.forward(sink, name, **chosen))

    @property
    def webhooks(self) -> Webhooks:
        """The webhooks of this store."""
        return Webhooks(self._subscribing.webhooks, self._loop)

    @property
    def _subscribing(self) -> AsyncSubscribing:
        client: AsyncSubscribing = self._client
        return client

    def _do(self, work: Coroutine[Any, Any, Result]) -> Result:
        loop: _Runs = self._loop
        return loop.run(work)
