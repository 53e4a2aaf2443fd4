"""What our NATS client writes and reads itself is what nats-py would have written and read."""

import asyncio
import contextlib
from uuid import uuid4

import nats
import pytest
from nats.aio.client import Client as Nats
from nats.aio.msg import Msg
from nats.aio.subscription import Subscription
from nats.errors import BadHeaderError
from nats.errors import TimeoutError as NatsTimeout
from nats.js.api import Header

from perdure.cluster.connection import Connection
from perdure.cluster.nats_server import NatsServer


@pytest.mark.parametrize(
    "headers",
    [
        {"ce-id": "17", "Nats-Batch-Sequence": "1"},
        {"tenant": "Zürich: 北京"},
        {"empty": ""},
        {"two": "lines\r\nare: one"},
        {"half": "a line\n"},
        {Header.EXPECTED_LAST_SUBJECT_SEQUENCE: "1"},  # a member of an Enum
        None,
        {},
    ],
)
async def test_headers_arrive_as_nats_py_sends_them(
    connection: Connection, server: NatsServer, headers: dict[str, str] | None
) -> None:
    subject = f"test.{uuid4().hex}"
    plain = await nats.connect(server.url, token=server.token)
    heard = await connection.nats.subscribe(subject)
    await connection.nats.flush()
    theirs = await _heard(plain, heard, subject, b"theirs", headers)
    ours = await _heard(connection.nats, heard, subject, b"ours", headers)
    assert (ours.data, ours.headers) == (b"ours", theirs.headers)
    await heard.unsubscribe()
    await plain.close()


async def _heard(client: Nats, heard: Subscription, subject: str, data: bytes, headers: dict[str, str] | None) -> Msg:
    """Publish until it is heard: the first message with headers to a new subscription may be lost on the way."""
    for _ in range(10):
        await client.publish(subject, data, headers=headers)
        await client.flush()
        with contextlib.suppress(NatsTimeout):
            return await heard.next_msg(timeout=1)
    raise AssertionError(f"{data!r} was never heard")


async def test_a_header_name_with_a_line_break_is_refused(connection: Connection) -> None:
    with pytest.raises(BadHeaderError):
        await connection.nats.publish("test.headers", headers={"two\nlines": "x"})


async def test_a_flush_that_is_given_up_does_not_make_the_client_deaf(connection: Connection) -> None:
    nats = connection.nats
    for turns in range(8):  # of the loop, in which the answer comes at some time
        flush = asyncio.create_task(nats.flush())
        for _ in range(turns):
            await asyncio.sleep(0)
        flush.cancel()
        await asyncio.wait([flush])
        await nats.flush()
        assert await connection.log.last() >= 0
