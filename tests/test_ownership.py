"""Who owns which lanes: records, epochs, what is left to whom, and how partitions are spread over hosts."""

import asyncio
import json
from collections.abc import AsyncIterator
from uuid import uuid4

import pytest
from hypothesis import given
from hypothesis import strategies as st
from nats.aio.msg import Msg

from perdure.cluster.assignment import balanced
from perdure.cluster.connection import Connection
from perdure.cluster.consumer import Consumer, LanesTaken
from perdure.cluster.hosting import default_hosts
from perdure.cluster.inbox import STREAM, Lanes
from perdure.cluster.ownership import Fence, Ownership, owned
from perdure.cluster.registry import Registry
from perdure.cluster.settings import Settings
from perdure.errors import Deposed, EnvironmentProblem, LogUnavailable
from perdure.events.subjects import PARTITIONS


async def nothing(_message: object) -> None:
    """Handle no message."""


def ownership(connection: Connection, host: str) -> Ownership:
    return Ownership(connection.nats, connection.registry, host)


async def consuming(connection: Connection, own: Ownership) -> Consumer:
    consumer = Consumer(connection.nats, f"{own.host}-commands-{own.epoch}", own.lanes.commands, nothing)
    await consumer.create()
    return consumer


async def consumers(connection: Connection) -> set[str]:
    return {str(info.name) for info in await connection.nats.jetstream().consumers_info(STREAM)}


@pytest.fixture
async def lane(connection: Connection) -> AsyncIterator[str]:
    lane = f"test{uuid4().hex}"
    yield lane
    for info in await connection.nats.jetstream().consumers_info(STREAM):
        if lane in str(info.config.filter_subjects) + str(info.config.filter_subject):
            await connection.nats.jetstream().delete_consumer(STREAM, str(info.name))


async def test_each_owner_has_a_higher_epoch_and_the_one_before_is_deposed(connection: Connection, lane: str) -> None:
    first, second = ownership(connection, lane), ownership(connection, lane)
    await first.move(Lanes((lane,)))
    await first.verify()
    await second.move(Lanes((lane,)))
    assert second.epoch > first.epoch
    found, _ = await owned(connection.registry, lane)
    assert found is not None
    assert (found.owner, found.epoch, found.lanes) == (second.owner, second.epoch, (lane,))
    with pytest.raises(Deposed, match="newer owner"):
        await first.verify()
    with pytest.raises(Deposed, match="newer owner"):
        await first.move(Lanes((lane,)))
    await second.verify()


async def test_of_two_that_open_at_once_one_is_told_that_the_other_was_faster(
    connection: Connection, lane: str
) -> None:
    outcomes = await asyncio.gather(
        *(ownership(connection, lane).move(Lanes((lane,))) for _ in range(5)), return_exceptions=True
    )
    assert outcomes.count(None) >= 1
    assert {type(outcome) for outcome in outcomes if outcome is not None} <= {LanesTaken}


async def test_the_consumers_of_hosts_that_are_gone_are_deleted_where_they_are_in_the_way_and_their_hosts_deposed(
    connection: Connection, lane: str
) -> None:
    gone, other = ownership(connection, f"gone{lane}"), ownership(connection, f"other{lane}")
    await gone.move(Lanes((lane,)))
    await other.move(Lanes((f"{lane}b",)))
    stale, beside = await consuming(connection, gone), await consuming(connection, other)
    await ownership(connection, f"new{lane}").move(Lanes((lane,)))
    left = await consumers(connection)
    assert beside.name in left
    assert stale.name not in left
    await other.verify()
    with pytest.raises(Deposed):
        await gone.verify()  # should it only have slept


async def test_the_lanes_of_a_host_that_answers_are_left_to_it_until_it_gives_them_up(
    connection: Connection, lane: str
) -> None:
    holder, newcomer = ownership(connection, f"holder{lane}"), ownership(connection, f"new{lane}")

    async def answer(message: Msg) -> None:
        await message.respond(b"")

    answering = await connection.nats.subscribe(f"perdure.host.holder{lane}", cb=answer)
    await holder.move(Lanes((lane, f"{lane}b")))
    await consuming(connection, holder)
    await newcomer.move(Lanes((lane, f"{lane}c")))
    assert newcomer.lanes == Lanes((f"{lane}c",))
    await holder.move(Lanes((f"{lane}b",)))
    await consuming(connection, holder)
    assert await newcomer.free(Lanes((lane, f"{lane}b"))) == Lanes((lane,))
    await newcomer.move(Lanes((lane, f"{lane}c")))
    assert newcomer.lanes == Lanes((lane, f"{lane}c"))
    await answering.unsubscribe()


async def test_a_stale_owner_that_rests_takes_nothing_from_the_newer_one(connection: Connection, lane: str) -> None:
    stale, newer = ownership(connection, lane), ownership(connection, lane)
    await stale.move(Lanes((lane,)))
    await newer.move(Lanes((lane,)))
    consumer = await consuming(connection, newer)
    await stale.rest()
    assert consumer.name in await consumers(connection)


async def test_a_record_that_another_release_wrote_belongs_to_nobody(connection: Connection, lane: str) -> None:
    await connection.registry.swap(f"hosts.{lane}", b"0123abcd", 0)
    found, revision = await owned(connection.registry, lane)
    assert found is None
    assert revision > 0
    await ownership(connection, lane).move(Lanes((lane,)))
    data, _ = await connection.registry.read(f"hosts.{lane}")
    assert json.loads(data or b"")["lanes"] == [lane]


async def test_a_fence_looks_again_only_after_a_while_and_waits_while_nobody_can_say(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    answers: list[Exception | None] = [LogUnavailable("away"), None, Deposed("newer")]
    asked = 0

    async def verify() -> None:
        nonlocal asked
        asked += 1
        answer = answers.pop(0)
        if answer is not None:
            raise answer

    monkeypatch.setattr("perdure.cluster.ownership._TRY_AGAIN", 0.001)
    fence = Fence(verify)
    await fence()
    assert asked == 0  # who has just opened is the owner
    monkeypatch.setattr("perdure.cluster.ownership.FRESH", 0.05)
    fence._seen -= 1.0
    await asyncio.gather(*(fence() for _ in range(10)))
    assert asked == 2  # once for all of them, and once more after the server was away
    fence._seen -= 1.0
    with pytest.raises(Deposed, match="newer"):
        await fence()


@pytest.mark.parametrize(("cpus", "hosts"), [(None, 1), (1, 1), (2, 1), (3, 1), (4, 2), (64, 32)])
def test_there_is_one_host_for_two_cpus_and_at_least_one(
    cpus: int | None, hosts: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("os.cpu_count", lambda: cpus)
    assert default_hosts(Settings()) == hosts
    assert default_hosts(Settings(hosts=5)) == 5
    assert Settings().executions_per_actor == 256


async def test_a_store_of_another_number_of_partitions_is_refused(
    connection: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With another number nobody would find what there is: it goes by what is recorded."""
    await Registry.open(connection.nats)
    recorded, _ = await connection.registry.read("partitions")
    assert recorded == b"64" == str(PARTITIONS).encode()
    monkeypatch.setattr("perdure.cluster.registry.PARTITIONS", 128)
    with pytest.raises(EnvironmentProblem, match="has 64 partitions, and this release of perdure 128: use the release"):
        await Registry.open(connection.nats)


@given(st.lists(st.integers(1, PARTITIONS), min_size=1, max_size=6))
def test_partitions_are_spread_evenly_each_to_one_host_and_as_few_move_as_can(sizes: list[int]) -> None:
    before: dict[str, list[int]] = {}
    for hosts in sizes:
        after = balanced(before, hosts)
        assert sorted(part for parts in after.values() for part in parts) == list(range(PARTITIONS))
        lengths = [len(parts) for parts in after.values()]
        assert len(lengths) == hosts
        assert max(lengths) - min(lengths) <= 1
        moved = sum(len(set(parts) - set(before.get(name, []))) for name, parts in after.items())
        # what the hosts that came or went have, and no more
        many = sorted((len(parts) for parts in (after if len(after) > len(before) else before).values()), reverse=True)
        assert moved <= sum(many[min(len(after), len(before)) :]) + abs(hosts - len(before)) or not before
        before = after
