"""Perdure's own entries are readable as stored events of the `eventsourcing` library."""

import asyncio
from collections.abc import Iterator
from datetime import UTC, datetime
from itertools import islice

import pytest
from eventsourcing.persistence import NotSupportedError, OperationalError
from eventsourcing.utils import resolve_topic
from log_contract import entry, fill, name
from recorder_factory import factory

from perdure.cluster.connection import Connection
from perdure.cluster.nats_server import NatsServer
from perdure.errors import CorruptEntry
from perdure.events.direct_get import DirectGet
from perdure.events.entry import Entry, encode
from perdure.events.entry_recorder import EntryRecorder, unpack
from perdure.events.jetstream_log import STREAM
from perdure.events.subjects import events_subject
from perdure.events.vocabulary import ExecutionSucceeded, NodeSucceeded

pytestmark = pytest.mark.usefixtures("recorder_environment")


@pytest.fixture
def recorder(connection: Connection) -> Iterator[EntryRecorder]:
    made = factory()
    yield made.entry_recorder()
    made.close()


async def test_an_entry_is_a_stored_event_of_its_execution(connection: Connection, recorder: EntryRecorder) -> None:
    execution = name()
    stored = await fill(connection.log, execution, 5)
    found = await asyncio.to_thread(recorder.select_events, execution)
    assert [item.originator_id for item in found] == [execution] * 5
    assert [item.originator_version for item in found] == [1, 2, 3, 4, 5]
    assert [item.state for item in found] == [recorded.data for recorded in stored]
    assert {resolve_topic(item.topic) for item in found} == {Entry}
    assert found[1:3] == await asyncio.to_thread(recorder.select_events, execution, gt=1, lte=3)
    assert found[-1:] == await asyncio.to_thread(recorder.select_events, execution, desc=True, limit=1)


async def test_notifications_are_the_positions_and_unpack_to_the_events(
    connection: Connection, recorder: EntryRecorder
) -> None:
    execution, start = name(), await connection.log.last()
    written = Entry("id" + execution, 1, "", datetime.now(UTC), [NodeSucceeded("a", 1), ExecutionSucceeded(2)])
    stored = await connection.log.append(execution, written, 0)
    (found,) = await asyncio.to_thread(recorder.select_notifications, start, 10, inclusive_of_start=False)
    assert found.id == stored.position == await asyncio.to_thread(recorder.max_notification_id)
    assert unpack(found) == stored.unpack()
    assert [happened.event for happened in unpack(found)] == written.events


async def test_a_subscription_follows_the_log(connection: Connection, recorder: EntryRecorder) -> None:
    start = await connection.log.last()
    with await asyncio.to_thread(recorder.subscribe, start) as subscription:
        reading = asyncio.create_task(asyncio.to_thread(list, islice(subscription, 20)))
        stored = [recorded for _ in range(4) for recorded in await fill(connection.log, name(), 5)]
        assert [item.id for item in await reading] == [recorded.position for recorded in stored]


async def test_an_entry_of_a_later_release_is_handed_on_and_not_unpacked(
    connection: Connection, recorder: EntryRecorder
) -> None:
    execution, start = name(), await connection.log.last()
    data = encode(entry(7)).replace(b"NodeSucceeded", b"NodeAscended!")
    await connection.nats.jetstream().publish(events_subject(execution), data)
    (found,) = await asyncio.to_thread(recorder.select_notifications, start + 1, 10)
    assert (found.originator_version, found.state) == (7, data)
    with pytest.raises(CorruptEntry, match="NodeAscended!"):
        unpack(found)
    await connection.nats.jetstream().purge_stream(STREAM, subject=events_subject(execution))  # others read it all


def test_the_log_is_read_only(recorder: EntryRecorder) -> None:
    with pytest.raises(NotSupportedError, match="PERDURE_EVENTS is read-only"):
        recorder.insert_events([])


def test_a_server_without_a_log_is_named(server: NatsServer, recorder: EntryRecorder) -> None:
    recorder._store.gets = DirectGet(recorder._store.link.nats, "NO_SUCH_STREAM", 1.0)
    recorder._store.reader._gets = recorder._store.gets
    with pytest.raises(OperationalError, match="NO_SUCH_STREAM does not exist"):
        recorder.max_notification_id()
