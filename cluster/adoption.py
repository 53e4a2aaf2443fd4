"""Executions that their own client drove and left behind: the cluster serves their lanes while they are busy."""

import json

import msgspec
from nats.aio.client import Client as Nats
from nats.errors import Error as NatsError

from perdure.cluster.connection import Connection
from perdure.cluster.inbox import STREAM, Lanes, is_solo
from perdure.cluster.ownership import is_alive
from perdure.cluster.registry import Changed, Registry
from perdure.errors import LogUnavailable

_KEY = "adopted"


async def adopted(registry: Registry) -> list[str]:
    """Return the lanes that the cluster serves for drivers that are gone."""
    data, _ = await registry.read(_KEY)
    return msgspec.json.decode(data, type=list[str]) if data else []


async def adopt(connection: Connection) -> list[str]:
    """Adopt the lanes with commands that no driver serves, give up those that are quiet; return those that are adopted.

    A lane whose executions only wait has no commands: it is adopted when a timer comes due, or somebody tells one.
    """
    data, revision = await connection.registry.read(_KEY)
    before = msgspec.json.decode(data, type=list[str]) if data else []
    after = []
    for lane in await connection.registry.hosts():
        left = is_solo(lane) and (lane in before or not await is_alive(connection.nats, lane))
        if left and await count(connection.nats, Lanes((lane,))):
            after.append(lane)
    if after != before:
        try:
            await connection.registry.swap(_KEY, msgspec.json.encode(after), revision)
        except Changed:
            return before  # another supervisor was faster; the next look is soon
    return after


async def count(nats: Nats, lanes: Lanes) -> int:
    """Return how many starts and commands there are on lanes, held ones too."""
    return sum([await count_on(nats, subject) for subject in (*lanes.starts, *lanes.commands)])


async def count_on(nats: Nats, subject: str) -> int:
    """Return how many messages the inbox has on a subject: the first one says how many follow (NATS ADR-31)."""
    query = json.dumps({"seq": 1, "next_by_subj": subject, "batch": 1}).encode()
    try:
        answer = await nats.request(f"$JS.API.DIRECT.GET.{STREAM}", query, timeout=5.0)
    except (NatsError, ConnectionError) as error:
        raise LogUnavailable(f"the inbox did not answer: {error or type(error).__name__}") from error
    headers = answer.headers or {}
    return 0 if "Status" in headers else int(headers["Nats-Num-Pending"]) + 1
