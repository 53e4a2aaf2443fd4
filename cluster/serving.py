"""Serving: opens a host and keeps it the owner of what it is to serve, through changes, losses and drains."""

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable
from typing import Any

from perdure.cluster.consumer import LanesTaken
from perdure.cluster.host import Host
from perdure.cluster.inbox import Lanes
from perdure.cluster.tasks import finish, stop
from perdure.errors import Deposed, LogUnavailable

PULSE = 0.5  # seconds between two looks at whether this is still the owner, and of what
_LOOK_AGAIN = 0.05  # seconds, while something comes to its end
_log = logging.getLogger("perdure.host")


class Serving:
    """A host at work. wanted: says which lanes it is to serve; close: what else to close in the end.

    drain: seconds that what is under way may take to come to its end when lanes go to another host.
    """

    def __init__(
        self,
        host: Host,
        wanted: Callable[[], Awaitable[Lanes]],
        drain: float,
        close: Callable[[], Awaitable[None]],
        about: dict[str, Any] | None = None,
    ) -> None:
        self.host = host
        self._wanted = wanted
        self._drain_seconds = drain
        self._close = close
        self._about = about or {}
        self._until: float | None = None
        self._resting = False
        self._rested = asyncio.Event()

    async def open(self) -> None:
        """Take the host's name and its lanes. Raises LanesTaken when another one was faster."""
        await self.host.answer(lambda: {**self.host.status(), **self._about})
        try:
            await self.host.serve(await self._wanted())
        except BaseException:
            await self.host.close()
            raise

    async def run(self) -> None:
        """Serve until drained; raise Deposed when a newer owner took over. Nothing of it goes on after that."""
        tasks = [asyncio.create_task(self.host.ended()), asyncio.create_task(self._keep_owning())]
        resting = asyncio.create_task(self._rested.wait())
        try:
            done, _ = await asyncio.wait([*tasks, resting], return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()
        except Deposed as error:
            _log.warning("host %s stops: %s", self.host.name, error)
            raise
        finally:
            await finish(self._end(*tasks, resting))

    async def _end(self, *tasks: "asyncio.Task[Any]") -> None:
        await stop(*tasks)
        await self.host.close()
        await self._close()

    async def drain(self, seconds: float) -> None:
        """Begin nothing more, let what is under way come to its end for so many seconds, and let `run` return."""
        self._resting, self._drain_seconds, self._until = True, seconds, None
        self.host.stale.set()
        await self._rested.wait()

    async def _keep_owning(self) -> None:
        while True:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self.host.stale.wait(), _LOOK_AGAIN if self._until else PULSE)
            try:
                await self.host.fence.look()
                await self._follow()
            except (LogUnavailable, LanesTaken) as error:
                _log.warning("host %s: %s; looked again in %g s", self.host.name, error, PULSE)
                self.host.stale.set()
                await asyncio.sleep(PULSE)

    async def _follow(self) -> None:
        """Bring what is served in line with what is to be: lanes leave when they are at rest, and come when free."""
        wanted, own = Lanes() if self._resting else await self._wanted(), self.host.own
        leaving = set(own.lanes.names) - set(wanted.names)
        self.host.leave(leaving)
        still = await self._still_leaving(leaving)
        if self._resting or not (own.lanes.names or wanted.names):
            self.host.stale.clear()
            if not still:
                self._rested.set()
            return
        come = wanted.without(own.lanes.names)
        if come.names:
            come = await own.free(come)
        if self.host.stale.is_set() or come.names or (leaving and not still):
            kept = own.lanes if still else own.lanes.without(leaving)
            await self.host.serve(Lanes((*kept.names, *come.names), wanted.of if wanted.names else kept.of))
            _log.info("host %s serves %d lanes since epoch %d", self.host.name, len(own.lanes.names), own.epoch)

    async def _still_leaving(self, leaving: set[str]) -> bool:
        """Say whether something is under way on lanes that leave; what has had its time is stopped."""
        now = asyncio.get_running_loop().time()
        if not self.host.active_on(leaving):
            self._until = None
            return False
        if self._until is None:
            self._until = now + self._drain_seconds
        if now < self._until:
            return True
        _log.warning("host %s: not everything came to its end within %g s", self.host.name, self._drain_seconds)
        await self.host.abandon(leaving)
        self._until = None
        return False
