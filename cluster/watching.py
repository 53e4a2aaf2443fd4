"""Watching hosts: who is gone, because nobody has its name any more, and who is silent for too long."""

import asyncio
import time
from collections.abc import Collection

from nats.aio.msg import Msg
from nats.errors import Error as NatsError
from nats.errors import NoRespondersError
from nats.errors import TimeoutError as NatsTimeout

from perdure.cluster.connection import Connection
from perdure.cluster.tasks import stop
from perdure.errors import LogUnavailable

SILENT_FOR = 5.0  # seconds after which a host that is there and does not answer is replaced; more than ownership.FRESH
COMING_BACK = 1.5  # seconds after the server was lost in which hosts come back to it too
_ANSWER_SECONDS = 1.0
_ASK_AGAIN = 0.1  # seconds


class Watch:
    """Remembers since when each host has been silent, and when the server was lost: hosts need a moment after that."""

    def __init__(self, connection: Connection) -> None:
        self._nats = connection.nats
        self._silent: dict[str, float] = {}
        self._back = float("-inf")
        connection.reconnected.add(self._reconnected)

    def _reconnected(self) -> None:
        self._back = time.monotonic()

    async def missing(self, hosts: Collection[str]) -> list[str]:
        """Return those of the hosts that are gone, or silent for too long. Raises LogUnavailable without a server."""
        if time.monotonic() - self._back < COMING_BACK:
            return []
        gone = await asyncio.gather(*(self._is_missing(host) for host in hosts))
        return [host for host, is_gone in zip(hosts, gone, strict=True) if is_gone]

    async def _is_missing(self, host: str) -> bool:
        try:
            await self._ask(host)
        except NoRespondersError:
            self._silent.pop(host, None)
            return True
        except NatsTimeout:
            if not self._nats.is_connected:
                raise LogUnavailable("the connection to the server was lost") from None
            now = time.monotonic()
            return now - self._silent.setdefault(host, now) > SILENT_FOR
        except (NatsError, ConnectionError) as error:
            raise LogUnavailable(f"the server did not answer: {error or type(error).__name__}") from error
        self._silent.pop(host, None)
        return False

    async def _ask(self, host: str) -> None:
        """Return when a host answers. Asks again meanwhile: one that dies takes the questions before with it."""
        question = f"perdure.host.{host}"
        asked: set[asyncio.Task[Msg]] = set()
        try:
            until = time.monotonic() + _ANSWER_SECONDS
            while (left := until - time.monotonic()) > 0:
                asked.add(asyncio.create_task(self._nats.request(question, b"", timeout=left)))
                done, _ = await asyncio.wait(asked, timeout=_ASK_AGAIN, return_when=asyncio.FIRST_COMPLETED)
                if done:
                    done.pop().result()
                    return
            raise NatsTimeout
        finally:
            await stop(*asked)
