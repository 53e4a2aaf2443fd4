"""Listening to an execution: what its models say, its calls of tools, and their progress, as they come."""

import asyncio
import contextlib
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import aclosing
from typing import TYPE_CHECKING, Any, Literal

import msgspec
from nats.aio.msg import Msg
from nats.errors import Error as NatsError

from perdure.actors.state import Started
from perdure.cluster.connection import Connection
from perdure.cluster.progress import NodeProgress, progress_subject
from perdure.cluster.streams import Piece, join_subject, stream_subject
from perdure.definitions.paths import is_within
from perdure.definitions.plan import Plan
from perdure.errors import ExecutionNotFound
from perdure.events.vocabulary import ExecutionStarted, NodeFailed, NodeScheduled, NodeSucceeded

if TYPE_CHECKING:
    from perdure.cluster.run import AsyncRun


Now = Callable[[], Awaitable[tuple[Started, int]]]
"""Gives the state as of now, and its place in the log."""


class Heard(msgspec.Struct, frozen=True, omit_defaults=True):
    """What was heard of a node.

    text: the next piece of what its model says (`again`: the reply begins anew, forget what was heard of it). call: the
    arguments that its tool is called with; result: what that gave; progress: what that tells of itself.
    """

    node: str
    attempt: int
    kind: Literal["text", "call", "result", "progress"]
    text: str = ""
    data: Any = None
    again: bool = False


class _Ear:
    """Puts the pieces of replies in order, and drops those that were heard before."""

    def __init__(self, lost: Callable[[], Awaitable[None]]) -> None:
        self._lost = lost
        self._heard: dict[str, tuple[str, int]] = {}

    async def take(self, piece: Piece) -> Heard | None:
        """Return what is new in a piece; where one before it was lost, ask for all of it again.

        Calls are none of its affair: they are in the log, where none is lost.
        """
        if piece.kind != "text":
            return None
        reply, length = self._heard.get(piece.node, ("", 0))
        if reply != piece.reply:
            length = 0
        if piece.at > length:
            await self._lost()
            return None
        new = piece.text[length - piece.at :]
        self._heard[piece.node] = (piece.reply, max(length, piece.at + len(piece.text)))
        again = reply not in ("", piece.reply)
        return Heard(piece.node, piece.attempt, "text", new, again=again) if new or again else None


async def listen(connection: Connection, run: "AsyncRun", now: Now, within: str = "") -> AsyncIterator[Heard]:
    """Yield what is heard of an execution from now on, up to its end; of replies under way all that was said so far.

    within: only what is heard of this node, and of those within it.
    """
    async with aclosing(_all(connection, run, now)) as everything:
        async for heard in everything:
            if not within or heard.node == within or is_within(heard.node, within):
                yield heard


async def _all(connection: Connection, run: "AsyncRun", now: Now) -> AsyncGenerator[Heard, None]:
    queue: asyncio.Queue[Heard | None] = asyncio.Queue()
    nats = connection.nats

    async def ask() -> None:
        with contextlib.suppress(NatsError, OSError):
            await nats.publish(join_subject(run.id), b"")

    ear = _Ear(ask)

    async def said(message: Msg) -> None:
        if (heard := await ear.take(msgspec.json.decode(message.data, type=Piece))) is not None:
            queue.put_nowait(heard)

    async def told(message: Msg) -> None:
        each = msgspec.json.decode(message.data, type=NodeProgress)
        queue.put_nowait(Heard(each.node, each.attempt, "progress", data=each.progress))

    subscriptions = [
        await nats.subscribe(stream_subject(run.id), cb=said),
        await nats.subscribe(progress_subject(run.id), cb=told),
    ]
    following = asyncio.create_task(_calls(connection, run, now, queue))
    try:
        await ask()
        while (heard := await queue.get()) is not None:
            yield heard
        await following
        for each in subscriptions:
            await each.drain()  # type: ignore[no-untyped-call]  # what was said before the end may still be on its way
        while not queue.empty():
            if (heard := queue.get_nowait()) is not None:
                yield heard
    finally:
        following.cancel()
        for each in subscriptions:
            with contextlib.suppress(NatsError, OSError):
                await each.unsubscribe()


async def _calls(connection: Connection, run: "AsyncRun", now: Now, queue: asyncio.Queue[Heard | None]) -> None:
    """Tell the calls of tools that are under way, those that begin and end from now on, and then the end."""
    last, plan = 0, None
    try:
        with contextlib.suppress(ExecutionNotFound):  # it is queued
            state, last = await now()
            plan = await connection.registry.plan(state.started.digest)
            if state.outcome is not None:
                return
            for path, node in state.running.items():  # the calls that are under way
                if plan.node(path).calls == "tool":
                    queue.put_nowait(Heard(path, node.attempt, "call", data=node.input))
        async for happened in run.events(last):
            if isinstance(happened.event, ExecutionStarted):
                plan = await connection.registry.plan(happened.event.digest)
            if (heard := _heard(plan, happened.event)) is not None:
                queue.put_nowait(heard)
    finally:
        queue.put_nowait(None)


def _heard(plan: Plan | None, event: Any) -> Heard | None:
    if plan is None or not isinstance(event, NodeScheduled | NodeSucceeded | NodeFailed):
        return None
    if plan.node(event.node).calls != "tool":
        return None
    if isinstance(event, NodeScheduled):
        return Heard(event.node, event.attempt, "call", data=event.input)
    data = event.output if isinstance(event, NodeSucceeded) else {"error": msgspec.to_builtins(event.error)}
    return Heard(event.node, event.attempt, "result", data=data)
