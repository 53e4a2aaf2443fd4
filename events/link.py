"""The link: a NATS connection on a thread of its own, for callers that are not asynchronous."""

import asyncio
import threading
import weakref
from collections.abc import Coroutine
from concurrent.futures import CancelledError
from contextlib import suppress
from typing import Any, TypeVar

from nats.aio.client import Client as Nats
from nats.aio.msg import Msg
from nats.aio.subscription import Subscription

from perdure.errors import LogUnavailable
from perdure.events.nats_connection import connect

T = TypeVar("T")


class Loss:
    """Tells who waits for an answer that the connection was lost: a request does not fail with it, it times out."""

    def __init__(self) -> None:
        self._lost: asyncio.Future[None] | None = None

    async def guard(self, work: Coroutine[Any, Any, T]) -> T:
        """Return what `work` returns; raises ConnectionError as soon as the connection is lost."""
        lost = self._lost = self._lost or asyncio.get_running_loop().create_future()
        task = asyncio.ensure_future(work)
        try:
            await asyncio.wait((task, lost), return_when=asyncio.FIRST_COMPLETED)
            if task.done():
                return task.result()
            raise ConnectionError("the connection was lost")
        finally:
            task.cancel()

    def happened(self) -> None:
        """Wake all who wait."""
        if self._lost is not None:
            self._lost.set_result(None)
            self._lost = None


class Link:
    """Connects when it is made. Nobody needs to close it: it ends with its last user, or with the process.

    url, token: as in `connect`. Raises EnvironmentProblem when the server cannot be reached or used.
    """

    def __init__(self, url: str, token: str | None) -> None:
        loop, nats = asyncio.new_event_loop(), Nats()
        self.nats = nats
        self.loss = loss = Loss()
        self._loop = loop
        self._lock = threading.Lock()
        self._listeners: set[threading.Event] = set()
        self._thread = threading.Thread(target=_serve, args=(loop, nats), name="perdure-link", daemon=True)
        self._thread.start()
        self._end = weakref.finalize(self, _stop, loop)  # nothing on the thread refers to the link itself
        listeners = self._listeners

        async def disconnected() -> None:
            loss.happened()

        async def reconnected() -> None:
            for event in tuple(listeners):
                event.set()

        try:
            self.run(connect(nats, url, token, disconnected, reconnected))
        except BaseException:
            self.close()
            raise

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Return what a coroutine returns that runs on the link's thread. Raises LogUnavailable when it is closed."""
        with self._lock:
            if not self._end.alive:
                work.close()
                raise LogUnavailable("the connection is closed")
            future = asyncio.run_coroutine_threadsafe(work, self._loop)
        try:
            return future.result()
        except CancelledError:
            raise LogUnavailable("the connection was closed meanwhile") from None
        except BaseException:
            future.cancel()
            raise

    def listen(self, subject: str, event: threading.Event) -> Subscription:
        """Set the event at each message of a subject, and when the connection is back."""

        async def wake(_message: Msg) -> None:
            event.set()

        async def subscribe() -> Subscription:
            subscription = await self.nats.subscribe(subject, cb=wake)
            await self.nats.flush()  # the server knows of it before the listener looks for what is there
            return subscription

        self._listeners.add(event)
        return self.run(subscribe())

    def unlisten(self, subscription: Subscription, event: threading.Event) -> None:
        """Stop setting the event; returns at once, for a garbage collector may call it on the link's own thread."""

        async def unsubscribe() -> None:
            if not self.nats.is_closed:
                await subscription.unsubscribe()

        self._listeners.discard(event)
        with suppress(RuntimeError):  # closed
            self._loop.call_soon_threadsafe(lambda: self._loop.create_task(unsubscribe()))

    def close(self) -> None:
        """Close the connection and end the thread; calls under way raise LogUnavailable."""
        with self._lock:
            self._end()
        if threading.current_thread() is not self._thread:
            self._thread.join()


def _serve(loop: asyncio.AbstractEventLoop, nats: Nats) -> None:
    asyncio.set_event_loop(loop)
    try:
        loop.run_forever()
        loop.run_until_complete(_finish(nats))
        loop.run_until_complete(loop.shutdown_asyncgens())
    finally:
        loop.close()


async def _finish(nats: Nats) -> None:
    await nats.close()
    rest = asyncio.all_tasks() - {asyncio.current_task()}
    for task in rest:
        task.cancel()
    await asyncio.gather(*rest, return_exceptions=True)


def _stop(loop: asyncio.AbstractEventLoop) -> None:
    with suppress(RuntimeError):
        loop.call_soon_threadsafe(loop.stop)
