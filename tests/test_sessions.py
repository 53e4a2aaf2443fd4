"""Sessions on the real store: records of any size and name, until they are deleted."""

from uuid import uuid4

import pytest

from perdure.cluster.connection import Connection
from perdure.errors import CorruptBlob
from perdure.events.sessions import JetStreamSessions

LARGE = b"x" * 3_000_000


@pytest.fixture
def sessions(connection: Connection) -> JetStreamSessions:
    return JetStreamSessions(connection.nats)


async def test_a_record_that_is_larger_than_a_message_is_kept_like_others(sessions: JetStreamSessions) -> None:
    name = uuid4().hex
    for key, record in (("1", b"small"), ("2", LARGE), ("2", LARGE), ("3", b"last")):
        await sessions.append(name, record, key)
    assert [data for _, data in await sessions.read(name)] == [b"small", LARGE, b"last"]
    (second, _), (third, _) = (await sessions.read(name))[1:]
    assert [data for _, data in await sessions.read(name, second)] == [b"small", LARGE]
    assert third > second
    assert (await sessions.list())[name] == 3


async def test_a_deleted_session_leaves_nothing_in_the_store(sessions: JetStreamSessions) -> None:
    name, other = uuid4().hex, uuid4().hex
    await sessions.append(name, LARGE, "1")
    await sessions.append(other, LARGE, "1")
    await sessions.delete(name)
    assert await sessions.read(name) == []
    assert name not in await sessions.list()
    left = [info.name or "" for info in await (await sessions._blobs._store()).list(ignore_deletes=True)]
    assert [each.startswith(other) for each in left if each.startswith((name, other))] == [True]
    await sessions.delete(name)  # again is no error


async def test_a_large_record_that_was_lost_is_not_passed_over(sessions: JetStreamSessions) -> None:
    name = uuid4().hex
    await sessions.append(name, LARGE, "1")
    ((_, _, blob),) = await sessions._messages(name)
    await sessions._blobs.delete([blob])
    with pytest.raises(CorruptBlob, match="missing from the store"):
        await sessions.read(name)


@pytest.mark.parametrize("name", ["😀" * 200, "a b", "ann.*.>", "=20", "ünder/way"])
async def test_a_session_may_have_any_printable_name(sessions: JetStreamSessions, name: str) -> None:
    await sessions.append(name, b"one", uuid4().hex)
    assert [data for _, data in await sessions.read(name)] == [b"one"]
    assert (await sessions.list())[name] == 1
    await sessions.delete(name)
    assert name not in await sessions.list()
