"""A host's process: serves the host of its own name, or stands by to take over whichever is lost."""

import asyncio
import contextlib
import logging

from nats.aio.client import Client as Nats
from nats.aio.msg import Msg
from nats.errors import Error as NatsError
from nats.errors import NoRespondersError
from nats.errors import TimeoutError as NatsTimeout

from perdure.cluster.assignment import assignment
from perdure.cluster.consumer import LanesTaken
from perdure.cluster.ownership import is_alive
from perdure.cluster.serving import Serving
from perdure.cluster.wiring import Opener, keep_serving
from perdure.errors import EnvironmentProblem, LogUnavailable, PerdureError

_SUBJECT = "perdure.standby"
_TAKE_OVER_SECONDS = 5.0
_TRY_AGAIN = 0.5  # seconds
_log = logging.getLogger("perdure.host")


class HostProcess:
    """One process that serves one host at a time. `serves` is that host's name, "" while it stands by."""

    def __init__(self, opener: Opener, name: str) -> None:
        self.serves = ""
        self._opener = opener
        self._nats = opener.connection.nats
        self._name = name
        self._serving: Serving | None = None

    async def run(self) -> None:
        """Serve, and stand by in between, until cancelled."""
        if await self._is_needed():
            await self._serve(self._name, None)
        while True:
            asked = await self._next_question()
            await self._serve(asked.data.decode(), asked)

    async def drain(self, seconds: float) -> None:
        """Let what is under way come to its end, for so many seconds, and stop serving."""
        if self._serving is not None:
            await self._serving.drain(seconds)

    async def _is_needed(self) -> bool:
        while True:
            try:
                return self._name in await assignment(self._opener.connection.registry) and not await is_alive(
                    self._nats, self._name
                )
            except LogUnavailable as error:
                _log.warning("%s: %s", self._name, error)
                await asyncio.sleep(_TRY_AGAIN)

    async def _next_question(self) -> Msg:
        """Stand by: wait until somebody asks for a host to be taken over."""
        first: asyncio.Future[Msg] = asyncio.get_running_loop().create_future()

        async def asked(message: Msg) -> None:
            if not first.done():
                first.set_result(message)

        standing_by = await self._nats.subscribe(_SUBJECT, queue="standby", cb=asked)
        try:
            return await first
        finally:
            with contextlib.suppress(NatsError, OSError):
                await standing_by.unsubscribe()

    async def _serve(self, host: str, asked: Msg | None) -> None:
        try:
            self._serving = await self._opener.open(host)
        except (LanesTaken, LogUnavailable, EnvironmentProblem) as error:
            _log.warning("%s did not take over %s: %s", self._name, host, error)
            if asked is not None:
                await asked.respond(str(error).encode())
            return
        self.serves = host
        _log.info("%s serves %s since epoch %d", self._name, host, self._serving.host.own.epoch)
        if asked is not None:
            await asked.respond(b"")
        try:
            await keep_serving(self._serving, self._open_again)
        finally:
            self.serves, self._serving = "", None

    async def _open_again(self) -> Serving:
        self._serving = await self._opener.open(self.serves)
        return self._serving


async def have_taken_over(nats: Nats, host: str) -> bool:
    """Have a process that stands by take over a host; return False where none does."""
    try:
        answer = await nats.request(_SUBJECT, host.encode(), timeout=_TAKE_OVER_SECONDS)
    except NoRespondersError:
        return False
    except NatsTimeout:
        raise PerdureError(f"who was asked to take over {host} did not answer") from None
    except (NatsError, ConnectionError) as error:
        raise LogUnavailable(f"the server did not answer: {error or type(error).__name__}") from error
    if answer.data:
        _log.warning("%s was not taken over: %s", host, answer.data.decode())
    return not answer.data
