"""The inbox: which lanes are in each other's way, and what it does not take."""

import pytest

from perdure.actors.inputs import StartExecution
from perdure.cluster.connection import Connection
from perdure.cluster.consumer import overlap
from perdure.cluster.inbox import Inbox
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


async def test_a_start_that_the_server_would_not_take_is_bad_input(connection: Connection) -> None:
    command = StartExecution("c", "x", "w", "sha256:0", "x" * 1_100_000, "0")
    with pytest.raises(BadInput, match="put what is large into a file"):
        await Inbox(connection.nats).start(command)
