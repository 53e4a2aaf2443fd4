"""The supervisor: sees to it that every host is served by some process, and that one more stands by."""

import asyncio
import contextlib
import json
import logging
import os
import socket
import time
from collections.abc import Awaitable, Callable
from typing import Any, Protocol

from nats.aio.client import Client as Nats
from nats.aio.msg import Msg
from nats.errors import Error as NatsError
from nats.errors import NoRespondersError
from nats.errors import TimeoutError as NatsTimeout

from perdure.cluster.adoption import adopt
from perdure.cluster.assignment import assignment
from perdure.cluster.connection import Connection
from perdure.cluster.hosting import SUPERVISOR
from perdure.cluster.standby import have_taken_over
from perdure.cluster.tasks import stop
from perdure.cluster.watching import Watch
from perdure.errors import EnvironmentProblem, LogUnavailable, PerdureError

LOOK_SECONDS = 0.25
_COUNT_SECONDS = 2.0
_STOP = "perdure.supervisor.stop"
DOWN = "perdure.down"
"""The subject on which the supervisor says that the cluster is down."""

_log = logging.getLogger("perdure.supervisor")


class Processes(Protocol):
    """The processes that hosts run in. lost: set when one of them has ended."""

    lost: asyncio.Event

    async def ensure(self, count: int) -> list[str]:
        """See to it that there are so many, end those above it that stand by, and return the host that each serves."""
        ...

    async def end(self, drain: float) -> None:
        """Let what is under way come to its end, for so many seconds, and end all of them for good."""
        ...


class Supervisor:
    """Looks four times a second, and when a process is lost; close: what to do once all is stopped."""

    def __init__(self, connection: Connection, processes: Processes, close: Callable[[], Awaitable[None]]) -> None:
        self._connection = connection
        self._nats = connection.nats
        self._processes = processes
        self._close = close
        self._watch = Watch(connection)
        self._serve: list[str] = []
        self._missing: list[str] = []
        self._since = time.time()
        self._count_at = float("-inf")
        self._short = asyncio.Event()
        self._keeping: asyncio.Task[None] | None = None
        self._stopping: asyncio.Task[None] | None = None

    async def run(self) -> None:
        """Supervise until told to stop."""
        await self._nats.subscribe(f"perdure.host.{SUPERVISOR}", cb=self._answer)
        await self._nats.subscribe(_STOP, cb=self._stop)
        self._keeping = asyncio.create_task(self._keep(), name="perdure-processes")
        while self._stopping is None:
            if self._keeping.done():
                self._keeping.result()  # what broke it, and nobody foresaw, breaks this process
            try:
                await self._look()
            except PerdureError as error:
                _log.warning("looked again in %g s: %s", LOOK_SECONDS, error)
            await _within(LOOK_SECONDS, self._processes.lost)
            self._processes.lost.clear()
        await self._stopping

    async def _look(self) -> None:
        hosts = list(await assignment(self._connection.registry))
        before, self._missing = self._missing, await self._watch.missing(hosts)
        for host in self._missing:
            if host not in before:
                _log.warning("nobody serves %s", host)
            self._count_at = time.monotonic() + _COUNT_SECONDS  # a process that starts takes a second of CPU from it
            if self._stopping is None and not await have_taken_over(self._nats, host):
                self._short.set()  # nobody stands by: see to it that there are processes

    async def _keep(self) -> None:
        """See to it that there are processes; apart from looking, for those that start are slow to answer."""
        while True:
            self._count_at = time.monotonic() + _COUNT_SECONDS
            try:
                self._serve = await self._processes.ensure(len(await assignment(self._connection.registry)) + 1)
                await adopt(self._connection)
            except PerdureError as error:
                _log.warning("counted again: %s", error)
            while not self._short.is_set() and (left := self._count_at - time.monotonic()) > 0:
                await _within(left, self._short)
            self._short.clear()

    async def _answer(self, message: Msg) -> None:
        standing_by = sum(not host for host in self._serve)
        told: dict[str, Any] = {
            "since": self._since, "processes": len(self._serve), "standing_by": standing_by,
            "pid": os.getpid(), "node": socket.gethostname(),
        }  # fmt: skip
        await message.respond(json.dumps(told).encode())

    async def _stop(self, message: Msg) -> None:
        if self._stopping is None:
            self._stopping = asyncio.create_task(self._end(float(message.data), message))

    async def _end(self, drain: float, asked: Msg) -> None:
        if self._keeping is not None:
            await stop(self._keeping)
        await self._processes.end(drain)
        await asked.respond(b"")
        await self._nats.publish(DOWN, b"")
        with contextlib.suppress(NatsError, OSError):
            await self._nats.flush()
        await self._close()


async def _within(seconds: float, event: asyncio.Event) -> None:
    """Return when something has happened, or after so many seconds."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await event.wait()


async def stop_cluster(nats: Nats, drain: float) -> bool:
    """Have the supervisor stop everything, which may take so many seconds; return False where there is none."""
    try:
        await nats.request(_STOP, str(drain).encode(), timeout=drain + 30.0)
    except NoRespondersError:
        return False
    except NatsTimeout:
        raise EnvironmentProblem(f"the cluster did not stop within {drain + 30.0:g} s") from None
    except (NatsError, ConnectionError) as error:
        raise LogUnavailable(f"the server did not answer: {error or type(error).__name__}") from error
    return True
