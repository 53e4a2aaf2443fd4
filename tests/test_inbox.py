"""The inbox: which lanes are in each other's way, what it does not take, and that it sends again what was lost."""

import asyncio
from typing import Any
from uuid import uuid4

import pytest
from nats.aio.msg import Msg
from proxy import Proxy

from perdure.actors.inputs import SignalExecution, StartExecution, decode_command
from perdure.cluster.connection import Connection, open_connection
from perdure.cluster.consumer import overlap
from perdure.cluster.inbox import STREAM, Inbox
from perdure.cluster.nats_server import NatsServer
from perdure.errors import BadInput
from perdure.events.direct_get import DirectGet
from perdure.events.group_writer import BATCH_FROM


@pytest.mark.parametrize(
    ("one", "other", "expected"),
    [
        ("perdure.cmd.1.*", "perdure.cmd.1.*", True),
        ("perdure.cmd.1.*", "perdure.cmd.2.*", False),
        ("perdure.cmd.1.*", "perdure.cmd.1.x", True),
        ("perdure.cmd.solo.x", "perdure.cmd.solo.y", False),
        ("perdure.start.*.1.*", "perdure.cmd.1.*", False),
        ("perdure.start.*.1.*", "perdure.start.5.1.x", True),
        ("perdure.start.*.1.*", "perdure.start.*.solo.x", False),
    ],
)
def test_subjects_overlap_where_one_message_can_be_on_both(one: str, other: str, expected: bool) -> None:
    assert overlap(one, other) is overlap(other, one) is expected


async def test_a_start_that_the_server_would_not_take_is_bad_input(connection: Connection) -> None:
    command = StartExecution("c", "x", "w", "sha256:0", "x" * 1_100_000, "0")
    with pytest.raises(BadInput, match="put what is large into a file"):
        await Inbox(connection.nats).start(command)


@pytest.mark.parametrize("count", [1, BATCH_FROM * 2])
async def test_commands_whose_connection_is_lost_are_sent_again_at_once(server: NatsServer, count: int) -> None:
    lane = f"test{uuid4().hex}"
    async with Proxy.before(server.url) as proxy:
        connection = await open_connection(proxy.url, server.token, timeout=60)
        cuts = 0

        def cut_once(subject: str, _data: bytes) -> str | None:
            nonlocal cuts
            cuts += subject.startswith("perdure.cmd.")
            return "cut" if cuts == 1 and subject.startswith("perdure.cmd.") else None

        proxy.requests = cut_once
        try:
            async with asyncio.timeout(20):
                lost = [connection.inbox.send(SignalExecution(f"c{n}", f"x{n}", "go"), lane) for n in range(count)]
                await asyncio.gather(*lost)
            assert cuts > 1
            gets = DirectGet(connection.nats, STREAM, 5.0).read(f"perdure.cmd.{lane}.*")
            assert {decode_command(message.data).execution async for message in gets} == {f"x{n}" for n in range(count)}
        finally:
            await connection.nats.jetstream().purge_stream(STREAM, subject=f"perdure.cmd.{lane}.*")
            await connection.close()


async def test_many_commands_to_one_execution_are_stored_in_their_order_and_with_few_writes(
    connection: Connection,
) -> None:
    lane, inbox = f"test{uuid4().hex}", Inbox(connection.nats)
    sent = [SignalExecution(f"c{number}", "x", "go") for number in range(BATCH_FROM * 4)]
    replies, request = list[str](), connection.nats.request

    async def counted(subject: str, *rest: Any, **more: Any) -> Msg:
        replies.append(subject)
        return await request(subject, *rest, **more)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(connection.nats, "request", counted)
        await asyncio.gather(*(inbox.send(command, lane) for command in sent))
    assert len(replies) <= 4
    subject = f"perdure.cmd.{lane}.x"
    stored = [message async for message in DirectGet(connection.nats, STREAM, 5.0).read(subject)]
    await connection.nats.jetstream().purge_stream(STREAM, subject=subject)
    assert [decode_command(message.data) for message in stored] == sent
