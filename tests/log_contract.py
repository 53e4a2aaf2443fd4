"""What every log must do: a test file for an implementation subclasses this and gives the `log` fixture."""

import asyncio
from contextlib import aclosing
from datetime import UTC, datetime
from uuid import uuid4

import pytest

from perdure.errors import CorruptEntry, VersionConflict
from perdure.events.entry import Entry, Recorded, encode
from perdure.events.log import Log
from perdure.events.vocabulary import ExecutionSucceeded, NodeSucceeded


def entry(n: int = 1, output: object = None, prev: str = "") -> Entry:
    return Entry(uuid4().hex, n, prev, datetime(2026, 1, 1, tzinfo=UTC), [NodeSucceeded("a", 1, output)], ["c-1"], 7)


def name() -> str:
    return f"x {uuid4().hex}.*"  # with characters that are not safe in a subject


async def fill(log: Log, execution: str, count: int) -> list[Recorded]:
    stored: list[Recorded] = []
    for number in range(count):
        expected = stored[-1].position if stored else 0
        stored.append(await log.append(execution, entry(number + 1, number), expected))
    return stored


class LogContract:
    async def test_an_appended_entry_is_read_back_as_it_was(self, log: Log) -> None:
        execution, written = name(), entry(output={"text": "ü", "list": [1, None, 2.5]})
        stored = await log.append(execution, written, 0)
        assert [recorded async for recorded in log.read(execution)] == [stored]
        assert stored.entry == written
        assert stored.execution == execution
        assert stored.data == encode(written)

    async def test_positions_grow_over_all_executions(self, log: Log) -> None:
        first, second = name(), name()
        one = await log.append(first, entry(), 0)
        two = await log.append(second, entry(), 0)
        three = await log.append(first, entry(2), one.position)
        assert one.position < two.position < three.position
        assert (await log.last(first), await log.last(second)) == (three.position, two.position)
        assert await log.last() >= three.position

    async def test_an_unknown_execution_is_empty(self, log: Log) -> None:
        execution = name()
        assert [recorded async for recorded in log.read(execution)] == []
        assert await log.last(execution) == 0

    async def test_a_stale_append_is_refused_with_both_positions(self, log: Log) -> None:
        execution = name()
        first = await log.append(execution, entry(), 0)
        with pytest.raises(VersionConflict) as caught:
            await log.append(execution, entry(), 0)
        assert (caught.value.expected, caught.value.actual) == (0, first.position)
        assert len([recorded async for recorded in log.read(execution)]) == 1

    async def test_an_append_to_an_execution_that_is_not_there_is_refused(self, log: Log) -> None:
        with pytest.raises(VersionConflict) as caught:
            await log.append(name(), entry(), 5)
        assert (caught.value.expected, caught.value.actual) == (5, 0)

    async def test_the_same_entry_twice_is_stored_once(self, log: Log) -> None:
        execution, written = name(), entry()
        first = await log.append(execution, written, 0)
        again = await log.append(execution, written, 0)
        assert again == first
        assert len([recorded async for recorded in log.read(execution)]) == 1

    async def test_of_concurrent_appends_at_one_position_exactly_one_wins(self, log: Log) -> None:
        execution = name()
        outcomes = await asyncio.gather(*(log.append(execution, entry(), 0) for _ in range(20)), return_exceptions=True)
        assert sum(isinstance(outcome, Recorded) for outcome in outcomes) == 1
        assert sum(isinstance(outcome, VersionConflict) for outcome in outcomes) == 19

    async def test_reading_begins_behind_a_position_and_stops_at_the_limit(self, log: Log) -> None:
        execution = name()
        stored = await fill(log, execution, 10)
        assert [recorded async for recorded in log.read(execution, stored[3].position)] == stored[4:]
        assert [recorded async for recorded in log.read(execution, stored[3].position, 2)] == stored[4:6]
        assert [recorded async for recorded in log.read(execution, stored[-1].position)] == []
        assert [recorded async for recorded in log.read(execution, limit=0)] == []

    async def test_more_entries_than_one_batch_are_read_in_order(self, log: Log) -> None:
        execution = name()
        stored = await fill(log, execution, 2500)
        assert [recorded async for recorded in log.read(execution)] == stored

    async def test_reading_all_gives_every_execution_in_order_of_position(self, log: Log) -> None:
        start = await log.last()
        one, two = name(), name()
        stored = [*await fill(log, one, 3), *await fill(log, two, 3)]
        assert [recorded async for recorded in log.read_all(start)] == stored
        assert [recorded async for recorded in log.read_all(start, 4)] == stored[:4]

    async def test_following_gives_the_past_and_then_the_new(self, log: Log) -> None:
        execution = name()
        past = await fill(log, execution, 3)
        async with aclosing(log.follow(execution, past[0].position)) as entries:  # type: ignore[type-var]
            assert [await anext(entries), await anext(entries)] == past[1:]
            waiting = asyncio.ensure_future(anext(entries))
            new = await log.append(execution, entry(4), past[-1].position)
            assert await waiting == new
            await log.append(name(), entry(), 0)
            newer = await log.append(execution, entry(5), new.position)
            assert await anext(entries) == newer

    async def test_following_all_misses_nothing_while_many_append(self, log: Log) -> None:
        start = await log.last()
        async with aclosing(log.follow(after=start)) as entries:  # type: ignore[type-var]
            appending = asyncio.gather(*(fill(log, name(), 5) for _ in range(20)))
            seen = [await anext(entries) for _ in range(100)]
            stored = sorted((item for run in await appending for item in run), key=lambda item: item.position)
        assert seen == stored

    async def test_an_entry_of_unknown_events_is_named(self, log: Log) -> None:
        execution = name()
        stored = await log.append(execution, entry(), 0)
        strange = Recorded(execution, stored.position, stored.data.replace(b"NodeSucceeded", b"NodeAscended!"))
        with pytest.raises(CorruptEntry, match=f"position {stored.position}.*NodeAscended!"):
            _ = strange.entry

    async def test_an_event_ends_up_as_one_happening(self, log: Log) -> None:
        execution = name()
        written = Entry("id-1" + execution, 1, "", datetime.now(UTC), [NodeSucceeded("a", 1), ExecutionSucceeded(2)])
        stored = await log.append(execution, written, 0)
        assert [(item.n, item.position, item.event) for item in stored.unpack()] == [
            (1, stored.position, written.events[0]),
            (1, stored.position, written.events[1]),
        ]
