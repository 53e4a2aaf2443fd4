"""The state of a cluster as anyone can ask for it who reaches its NATS server."""

import asyncio
import json
from functools import partial
from typing import Any

from nats.aio.client import Client as Nats
from nats.errors import Error as NatsError
from nats.errors import NoRespondersError
from nats.errors import TimeoutError as NatsTimeout

from perdure.cluster.adoption import count_on
from perdure.cluster.assignment import assignment
from perdure.cluster.connection import Connection
from perdure.cluster.hosting import SUPERVISOR
from perdure.cluster.inbox import STREAM
from perdure.cluster.projecting import NAME
from perdure.cluster.settings import Settings
from perdure.errors import LogUnavailable

_ANSWER_SECONDS = 2.0
_KINDS = {"starts": "perdure.start.>", "commands": "perdure.cmd.>", "timers": "perdure.timer.>"}


async def status(connection: Connection, settings: Settings) -> dict[str, Any]:
    """Return who serves what, how much waits, and how far the log and its read models are, as JSON data.

    settings: of the store; they say where the read models are.
    """
    hosts = await host_states(connection)
    supervisor = await answer_of(connection.nats, SUPERVISOR)
    active = sum(host.get("active", 0) for host in hosts)
    read_models, under_way = await _read_models(connection, settings)
    return {
        "up": supervisor is not None,
        "supervisor": supervisor,
        "hosts": hosts,
        "executions": {"active": active, "passive": max(0, under_way - active)},
        "inbox": await _inbox(connection),
        "log": {"position": await connection.log.last()},
        "projections": read_models,
        "projecting": await answer_of(connection.nats, NAME),
    }


async def host_states(connection: Connection) -> list[dict[str, Any]]:
    """Return what each host says of itself; `state` is `serving`, `silent` or `gone`."""
    names = list(await assignment(connection.registry))
    answers = await asyncio.gather(*(answer_of(connection.nats, name) for name in names))
    return [
        {"host": name, "state": "gone" if told is None else "serving" if told else "silent", **(told or {})}
        for name, told in zip(names, answers, strict=True)
    ]


async def answer_of(nats: Nats, host: str) -> dict[str, Any] | None:
    """Return what a host, or the supervisor, says of itself; nothing where it is silent, None where it is gone."""
    try:
        answer = await nats.request(f"perdure.host.{host}", b"", timeout=_ANSWER_SECONDS)
    except NoRespondersError:
        return None
    except NatsTimeout:
        return {}
    except (NatsError, ConnectionError) as error:
        raise LogUnavailable(f"the server did not answer: {error or type(error).__name__}") from error
    told: dict[str, Any] = json.loads(answer.data)
    return told


async def _inbox(connection: Connection) -> dict[str, int]:
    """Return how many messages of each kind are in the inbox, and how many of them somebody holds."""
    counts = await asyncio.gather(*(count_on(connection.nats, subject) for subject in _KINDS.values()))
    js, held, seen = connection.nats.jetstream(), 0, 0
    while page := await js.consumers_info(STREAM, seen):
        seen += len(page)
        held += sum(info.num_ack_pending or 0 for info in page)
    return {**dict(zip(_KINDS, counts, strict=True)), "held": held}


async def _read_models(connection: Connection, settings: Settings) -> tuple[dict[str, Any], int]:
    """Return how far each projection is, and how many executions have not ended."""
    from perdure.cluster.run import ENDED
    from perdure.projections.queries import Query, counts
    from perdure.projections.runner import Projections

    projections = Projections(settings.projections_at)
    try:
        lag = await projections.lag(connection.log)
        await projections.catch_up(connection.log, ["executions"])
        found = await projections.read(partial(counts, query=Query()))
        return lag, sum(count for state, count in found.items() if state not in ENDED)
    finally:
        projections.close()
