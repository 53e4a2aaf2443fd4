"""What subscribers read of a log: chosen events from a place on, in memory, without a server."""

import asyncio
from datetime import UTC, datetime

import pytest
from histories import append, start
from hypothesis import given, settings
from hypothesis import strategies as st

from perdure.errors import BadInput
from perdure.events.choice import TYPES, Choice, choice_of
from perdure.events.cloud_events import message_of
from perdure.events.entry import Happened
from perdure.events.memory_log import MemoryLog
from perdure.events.reading import Place, chosen
from perdure.events.vocabulary import ExecutionSucceeded, NodeScheduled, NodeSucceeded

START = Place()


async def read(log: MemoryLog, choice: Choice, place: Place = START) -> list[Happened]:
    return [item async for entry in chosen(log, choice, place, await log.last()) for item in entry.events]


async def two_workflows() -> MemoryLog:
    log = MemoryLog()
    await append(log, "a-1", start("order"), NodeScheduled("n", 1))
    await append(log, "b-1", start("refund"))
    await append(log, "a-1", NodeSucceeded("n", 1, 1), ExecutionSucceeded(1), n=2)
    await append(log, "b-1", ExecutionSucceeded(2), n=2)
    return log


async def test_events_are_chosen_by_type_workflow_and_execution() -> None:
    log = await two_workflows()
    assert [item.id for item in await read(log, choice_of())] == ["1.0", "1.1", "2.0", "3.0", "3.1", "4.0"]
    assert [item.id for item in await read(log, choice_of("ExecutionSucceeded"))] == ["3.1", "4.0"]
    assert [item.id for item in await read(log, choice_of(workflow="refund"))] == ["2.0", "4.0"]
    assert [item.id for item in await read(log, choice_of(["ExecutionSucceeded"], ["order"], "a-1"))] == ["3.1"]
    assert await read(log, choice_of(execution="c-1")) == []


async def test_a_workflow_is_known_of_executions_that_began_before_the_place() -> None:
    log = await two_workflows()
    assert [item.id for item in await read(log, choice_of(workflow="order"), Place(2))] == ["3.0", "3.1"]


async def test_a_type_that_does_not_exist_is_refused_with_the_one_that_was_meant() -> None:
    with pytest.raises(BadInput, match="'ExecutionFaild'; did you mean 'ExecutionFailed'"):
        choice_of("ExecutionFaild")


def test_every_event_can_become_a_cloud_event() -> None:
    at = datetime(2026, 1, 1, tzinfo=UTC)
    message = message_of(Happened("x-1", 2, 7, at, ExecutionSucceeded({"a": 1}), 3), "order", "log-1")
    assert (message.id, message.type, message.execution) == ("b8260cf725d5-7-3", "ExecutionSucceeded", "x-1")
    assert message.body == (
        b'{"specversion":"1.0","id":"b8260cf725d5-7-3","source":"perdure","type":"perdure.ExecutionSucceeded",'
        b'"subject":"x-1","time":"2026-01-01T00:00:00+00:00","datacontenttype":"application/json",'
        b'"perdureworkflow":"order","perdureposition":"7","data":{"output":{"a":1}}}'
    )
    assert len(TYPES) > 40


@settings(max_examples=50, deadline=None)
@given(
    sizes=st.lists(st.integers(1, 4), min_size=1, max_size=12),
    stops=st.lists(st.integers(1, 5), max_size=30),
    types=st.sampled_from([(), ("NodeScheduled",), ("NodeSucceeded",)]),
)
def test_reading_that_stops_anywhere_and_goes_on_gives_every_event_once_and_in_order(
    sizes: list[int], stops: list[int], types: tuple[str, ...]
) -> None:
    async def play() -> None:
        log, choice = MemoryLog(), choice_of(types)
        for n, size in enumerate(sizes, 1):
            events = [NodeScheduled("n", n) if i % 2 else NodeSucceeded("n", n, i) for i in range(size)]
            await append(log, "x-1", *events, n=n)
        whole, place, found = await read(log, choice), Place(), list[Happened]()
        for stop in stops:
            taken = (await read(log, choice, place))[:stop]
            found += taken
            place = Place.after(taken[-1]) if taken else place
        assert found + await read(log, choice, place) == whole

    asyncio.run(play())
