"""Who waits for what, and who holds it: the limits, the pools of node actors, and the starts in the inbox."""

import asyncio
import json
import time
from typing import Any

import msgspec
from nats.errors import Error as NatsError
from nats.errors import NoRespondersError
from nats.errors import TimeoutError as NatsTimeout

from perdure.actors.limiting import Report, Request
from perdure.actors.pools import REPORTS, PoolReport
from perdure.cluster.adoption import count_on
from perdure.cluster.connection import Connection
from perdure.cluster.inbox import STREAM
from perdure.cluster.limit_log import LimitLogs
from perdure.cluster.limit_report import report
from perdure.cluster.limiter import ASK_AGAIN, subject_of
from perdure.cluster.starts import PRIORITIES
from perdure.errors import LogUnavailable

_ANSWER_SECONDS = 2.0
_encoder = msgspec.json.Encoder()


async def queues(connection: Connection) -> dict[str, Any]:
    """Return who waits for what and why, and who holds it, as JSON data."""
    logs = LimitLogs(connection.nats, _ANSWER_SECONDS * 5, 1)
    groups = await logs.groups()
    limits = await asyncio.gather(*(limit_report(connection, logs, group) for group in groups))
    return {
        "limits": [each for each in limits if each["keys"]],
        "pools": [each._asdict() for each in await pool_reports(connection)],
        "starts": await _starts(connection),
    }


async def _starts(connection: Connection) -> dict[str, int]:
    """Return how many starts no host has taken yet, by priority, higher ones first."""
    there = await asyncio.gather(*(count_on(connection.nats, f"perdure.start.{each}.>") for each in PRIORITIES))
    waiting, js, seen = dict(zip(PRIORITIES, there, strict=True)), connection.nats.jetstream(), 0
    while page := await js.consumers_info(STREAM, seen):
        seen += len(page)
        for info in page:
            subject = (info.config.filter_subjects or [str(info.config.filter_subject)])[0].split(".")
            if subject[1] == "start" and subject[2] in waiting:
                waiting[subject[2]] -= info.num_ack_pending or 0
    return {priority: count for priority, count in waiting.items() if count > 0}


async def limit_report(connection: Connection, logs: LimitLogs, group: str) -> dict[str, Any]:
    """Return how a limit stands: `decided` says whether somebody decides about it now; else it is what its log says.

    Attempts that wait are known to whoever decides, and in no log.
    """
    request: Request = Report()
    try:
        answer = await connection.nats.request(subject_of(group), _encoder.encode(request), timeout=_ANSWER_SECONDS)
        told = answer.data
    except (NoRespondersError, NatsTimeout):
        told = ASK_AGAIN
    except (NatsError, OSError) as error:
        raise LogUnavailable(f"limit {group!r} does not answer: {error or type(error).__name__}") from error
    if told == ASK_AGAIN:
        state, _, _, at = await logs.load(group)
        waiting = {key: sorted(keyed.queue.values(), key=lambda each: each.since) for key, keyed in state.keys.items()}
        return {**report(group, state, waiting, max(at, time.time())), "decided": False}
    found: dict[str, Any] = json.loads(told)
    return {**found, "decided": True}


async def pool_reports(connection: Connection) -> list[PoolReport]:
    """Return how the pools of node actors stand; none where nobody keeps any, or does not answer now."""
    try:
        answer = await connection.nats.request(REPORTS, timeout=_ANSWER_SECONDS)
    except (NoRespondersError, NatsTimeout):
        return []
    except (NatsError, OSError) as error:
        raise LogUnavailable(f"the pools do not answer: {error or type(error).__name__}") from error
    return msgspec.json.decode(answer.data, type=list[PoolReport])
