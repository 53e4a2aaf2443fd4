"""Values too large for an entry travel beside it, and are there again when it is read."""

import io
from datetime import UTC, datetime
from typing import Any
from uuid import uuid4

import pytest
from log_contract import name

from perdure.cluster.connection import Connection
from perdure.errors import CorruptBlob
from perdure.events.blobs import ENTRY_LIMIT, VALUE_LIMIT, JetStreamBlobs
from perdure.events.entry import Entry
from perdure.events.vocabulary import Event, NodeScheduled, NodeSucceeded, NodeWaiting


def written(*events: Event) -> Entry:
    return Entry(uuid4().hex, 1, "", datetime.now(UTC), list(events))


@pytest.mark.parametrize(
    "events",
    [
        pytest.param([NodeSucceeded("a", 1, "x" * (VALUE_LIMIT + 1)), NodeSucceeded("b", 1, "small")], id="one value"),
        pytest.param(
            [NodeScheduled("a", 1, ["ü" * 99] * 5000), NodeSucceeded("b", 1, {"k": "y" * 9_000_000})], id="two"
        ),
        pytest.param([NodeSucceeded(f"n{n}", 1, "z" * 1000) for n in range(2000)], id="many small values"),
    ],
)
async def test_a_large_entry_is_stored_small_and_read_whole(connection: Connection, events: list[Event]) -> None:
    execution, entry = name(), written(*events)
    stored = await connection.log.append(execution, entry, 0)
    assert len(stored.data) <= ENTRY_LIMIT
    assert stored.slim.blobs
    assert stored.entry == entry
    (again,) = [recorded async for recorded in connection.log.read(execution)]
    assert again == stored
    async for followed in connection.log.follow(execution):
        assert followed.entry == entry
        break
    assert (await connection.log.append(execution, entry, 0)).entry == entry


async def test_reading_all_leaves_large_values_where_they_are(connection: Connection) -> None:
    start, execution = await connection.log.last(), name()
    entry = written(NodeSucceeded("a", 1, "x" * 200_000))
    await connection.log.append(execution, entry, 0)
    (recorded,) = [recorded async for recorded in connection.log.read_all(start)]
    assert recorded.entry.events == [NodeSucceeded("a", 1, None)]
    (blob,) = recorded.entry.blobs
    assert (blob.at, blob.size) == ("/events/0/output", 200_002)


async def test_what_projections_must_see_is_brought_back_for_them(connection: Connection) -> None:
    async def seen(*events: Event) -> list[Event]:
        start = await connection.log.last()
        await connection.log.append(name(), written(*events), 0)
        (recorded,) = [recorded async for recorded in connection.log.read_all(start)]
        return (await connection.log.with_events(recorded)).entry.events

    many: list[Event] = [NodeSucceeded(f"n{n}", 1, "z" * 1000) for n in range(2000)]
    assert await seen(*many) == many
    asks = NodeWaiting("ok", 1, {"approval": True, "details": "x" * 200_000})
    assert await seen(asks) == [asks]
    assert await seen(NodeSucceeded("a", 1, "x" * 200_000)) == [NodeSucceeded("a", 1, None)]


async def test_a_small_entry_names_no_blob(connection: Connection) -> None:
    stored = await connection.log.append(name(), written(NodeSucceeded("a", 1, "x" * 1000)), 0)
    assert b"blobs" not in stored.data


async def large(connection: Connection) -> Any:
    execution = name()
    stored = await connection.log.append(execution, written(NodeSucceeded("a", 1, "x" * 200_000)), 0)
    return execution, stored.slim.blobs[0]


async def test_a_missing_blob_is_named(connection: Connection) -> None:
    execution, blob = await large(connection)
    await connection.log.blobs.delete([blob.name, "not/there"])
    with pytest.raises(CorruptBlob, match=f"{blob.name}.*is missing"):
        _ = [recorded async for recorded in connection.log.read(execution)]


async def test_an_altered_blob_is_named(connection: Connection) -> None:
    execution, blob = await large(connection)
    blobs = connection.log.blobs
    assert isinstance(blobs, JetStreamBlobs)
    await (await blobs._store()).put(blob.name, b"something else")
    with pytest.raises(CorruptBlob, match=f"{blob.name} was altered"):
        _ = [recorded async for recorded in connection.log.read(execution)]


async def test_a_blob_is_read_into_a_file_in_pieces(connection: Connection) -> None:
    class Pieces(io.BytesIO):
        largest = 0

        def write(self, data: Any) -> int:
            self.largest = max(self.largest, len(data))
            return super().write(data)

    _, blob = await large(connection)
    pieces = Pieces()
    await connection.log.blobs.read(blob, pieces)
    assert len(pieces.getvalue()) == blob.size
    assert pieces.largest <= 128 * 1024
