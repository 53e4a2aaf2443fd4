"""What our NATS client writes and reads itself is what nats-py would have written and read."""

from uuid import uuid4

import nats
import pytest
from nats.errors import BadHeaderError

from perdure.cluster.connection import Connection
from perdure.cluster.nats_server import NatsServer


@pytest.mark.parametrize(
    "headers",
    [
        {"ce-id": "17", "Nats-Batch-Sequence": "1"},
        {"tenant": "Zurich: a b"},
        {"empty": ""},
        {"two": "lines\r\nare: one"},
        {"half": "a line\n"},
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
    await plain.publish(subject, b"theirs", headers=headers)
    await plain.flush()
    theirs = await heard.next_msg(timeout=5)
    await connection.nats.publish(subject, b"ours", headers=headers)
    await connection.nats.flush()
    ours = await heard.next_msg(timeout=5)
    assert (ours.data, ours.headers) == (b"ours", theirs.headers)
    await heard.unsubscribe()
    await plain.close()


async def test_a_header_name_with_a_line_break_is_refused(connection: Connection) -> None:
    with pytest.raises(BadHeaderError):
        await connection.nats.publish("test.headers", headers={"two\nlines": "x"})
