"""The inbox: which lanes are in each other's way, and that only those that are lose their consumers."""

import pytest
from nats.aio.msg import Msg

from perdure.actors.inputs import StartExecution
from perdure.cluster.connection import Connection
from perdure.cluster.inbox import STREAM, Consumer, Inbox, Lanes, LanesTaken, overlap, take_over
from perdure.errors import BadInput


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


async def nothing(_message: object) -> None:
    """Handle no message."""


async def consumers(connection: Connection) -> set[str]:
    return {str(info.name) for info in await connection.nats.jetstream().consumers_info(STREAM)}


async def test_taking_over_leaves_the_consumers_on_other_lanes_alone(connection: Connection) -> None:
    lanes = {name: Lanes.of_execution(name, "test") for name in ("mine", "gone", "other")}
    stale = {"gone": lanes["mine"], "other": lanes["other"], "mine": lanes["gone"]}
    for name, share in stale.items():
        await Consumer(connection.nats, f"{name}-commands-1", share.commands, nothing).create()
    await take_over(connection.nats, "mine", lanes["mine"])
    left = await consumers(connection)
    assert "other-commands-1" in left  # gone as well, but not in the way
    assert not {"gone-commands-1", "mine-commands-1"} & left
    await connection.nats.jetstream().delete_consumer(STREAM, "other-commands-1")


async def test_a_host_that_answers_keeps_its_lanes(connection: Connection) -> None:
    share = Lanes.of_execution("answering", "test")
    await Consumer(connection.nats, "answering-commands-1", share.commands, nothing).create()

    async def answer(message: Msg) -> None:
        await message.respond(b"")

    answering = await connection.nats.subscribe("perdure.host.answering", cb=answer)
    await take_over(connection.nats, "newcomer", share)
    with pytest.raises(LanesTaken):
        await Consumer(connection.nats, "newcomer-commands-2", share.commands, nothing).create()
    await answering.unsubscribe()
    await take_over(connection.nats, "newcomer", share)
    assert "answering-commands-1" not in await consumers(connection)


async def test_a_start_that_the_server_would_not_take_is_bad_input(connection: Connection) -> None:
    command = StartExecution("c", "x", "w", "sha256:0", "x" * 1_100_000, "0")
    with pytest.raises(BadInput, match="put what is large into a file"):
        await Inbox(connection.nats).start(command)
