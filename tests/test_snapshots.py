"""Snapshots save reading, and are never trusted."""

import asyncio
from typing import Any

import pytest
from log_contract import name
from scenario import EXECUTION, plan_of, start
from test_execution import World

from perdure.actors.loading import load
from perdure.actors.snapshot import EVERY, STATE_FORMAT
from perdure.actors.state import Started
from perdure.actors.work import Work
from perdure.cluster.connection import Connection
from perdure.events.memory_log import MemoryLog


class MemorySnapshots:
    def __init__(self) -> None:
        self.saved: dict[str, bytes] = {}
        self.loads = 0

    async def save(self, execution: str, data: bytes) -> None:
        self.saved[execution] = data

    async def load(self, execution: str) -> bytes | None:
        self.loads += 1
        return self.saved.get(execution)

    async def delete(self, execution: str) -> None:
        self.saved.pop(execution, None)


CHAIN = plan_of({f"n{i}": {"tool": "t", "needs": [f"n{i - 1}"] if i else []} for i in range(EVERY + 50)})


async def long_world() -> tuple[World, MemorySnapshots]:
    """An execution of more entries than EVERY, run to its end with snapshots."""
    world, snapshots = World(CHAIN), MemorySnapshots()
    actor = world.actor(snapshots=snapshots)
    await actor.run(start(CHAIN))
    assert actor._saving.under_way is not None
    await actor._saving.under_way
    return world, snapshots


class CountingLog(MemoryLog):
    def __init__(self, log: MemoryLog) -> None:
        super().__init__()
        self.__dict__ = log.__dict__
        self.given = 0

    async def read(self, execution: str, after: int = 0, limit: int | None = None) -> Any:
        async for recorded in super().read(execution, after, limit):
            self.given += 1
            yield recorded


async def test_a_long_execution_is_loaded_from_its_snapshot_and_the_tail() -> None:
    world, snapshots = await long_world()
    assert isinstance(world.log, MemoryLog)
    whole, read = await load(world.log, None, EXECUTION)
    assert read == whole.n
    counting = CountingLog(world.log)
    assert await load(counting, snapshots, EXECUTION) == (whole, whole.n - EVERY)
    assert isinstance(whole.state, Started)
    assert whole.state.status == "succeeded"
    assert counting.given == EVERY + 1 + (whole.n - EVERY)  # the short read, the snapshot's own entry, the tail


async def test_after_a_long_load_the_next_append_saves_a_snapshot() -> None:
    """As where the snapshot was lost, or its format has changed."""
    plan = plan_of({**{f"n{i}": {"tool": "t", "needs": [f"n{i - 1}"] if i else []} for i in range(EVERY + 5)}})
    gate = asyncio.Event()

    async def tool(work: Work) -> None:
        if work.node.name == f"n{EVERY + 2}":
            await gate.wait()

    world, snapshots = World(plan, tool), MemorySnapshots()
    first = asyncio.create_task(world.actor().run(start(plan)))
    async for recorded in world.log.follow(EXECUTION):
        if recorded.entry.n > EVERY + 2:
            break
    first.cancel()
    await asyncio.wait([first])
    gate.set()
    actor = world.actor(2, snapshots=snapshots)
    await actor.run(start(plan))
    assert actor._saving.under_way is not None
    await actor._saving.under_way
    assert EXECUTION in snapshots.saved


async def test_an_execution_that_comes_to_rest_leaves_a_short_tail() -> None:
    chain = {f"n{i}": {"tool": "t", "needs": [f"n{i - 1}"] if i else []} for i in range(EVERY + 50)}
    plan = plan_of({**chain, "go": {"wait": {"signal": "go"}, "needs": [f"n{EVERY + 49}"]}})
    world, snapshots = World(plan), MemorySnapshots()
    actor = world.actor(snapshots=snapshots)
    running = asyncio.create_task(actor.run(start(plan)))
    while EXECUTION not in snapshots.saved or (await load(world.log, snapshots, EXECUTION))[1]:
        await asyncio.sleep(0)
    assert await load(world.log, snapshots, EXECUTION) == ((await load(world.log, None, EXECUTION))[0], 0)
    running.cancel()
    await asyncio.wait([running])


async def test_a_short_execution_never_asks_for_a_snapshot() -> None:
    snapshots = MemorySnapshots()
    plan = plan_of({"a": {"tool": "t"}})
    world = World(plan)
    await world.actor().run(start(plan))
    await load(world.log, snapshots, EXECUTION)
    assert snapshots.loads == 0


def changed(data: bytes, **parts: Any) -> bytes:
    import msgspec

    return msgspec.msgpack.encode({**msgspec.msgpack.decode(data), **parts})


@pytest.mark.parametrize(
    "spoil",
    [
        pytest.param(lambda data: data[:-5], id="cut short"),
        pytest.param(lambda data: b"nonsense", id="unreadable"),
        pytest.param(lambda data: changed(data, format=STATE_FORMAT - 1), id="an older format"),
        pytest.param(lambda data: changed(data, format=STATE_FORMAT + 1), id="a newer format"),
        pytest.param(lambda data: changed(data, prev="0" * 64), id="of another past"),
        pytest.param(lambda data: changed(data, position=10_000), id="beyond the log"),
        pytest.param(lambda data: changed(data, position=1), id="at another place"),
    ],
)
async def test_a_snapshot_that_does_not_fit_is_ignored(spoil: Any) -> None:
    world, snapshots = await long_world()
    snapshots.saved[EXECUTION] = spoil(snapshots.saved[EXECUTION])
    assert await load(world.log, snapshots, EXECUTION) == await load(world.log, None, EXECUTION)
    assert snapshots.loads == 1


async def test_snapshots_on_jetstream_keep_the_last_whole_one(connection: Connection) -> None:
    snapshots, execution = connection.snapshots, name()
    assert await snapshots.load(execution) is None
    await snapshots.save(execution, b"one")
    await snapshots.save(execution, b"two")
    assert await snapshots.load(execution) == b"two"
    big = b"".join(number.to_bytes(4, "big") for number in range(500_000))
    await snapshots.save(execution, big)
    assert await snapshots.load(execution) == big
    await snapshots.save(execution, b"small again")
    assert await snapshots.load(execution) == b"small again"
    await snapshots.delete(execution)
    assert await snapshots.load(execution) is None


async def test_a_torn_snapshot_is_none(connection: Connection) -> None:
    snapshots, execution = connection.snapshots, name()
    big = b"".join(number.to_bytes(4, "big") for number in range(500_000))
    await snapshots.save(execution, big)
    saving = asyncio.create_task(snapshots.save(execution, bytes(reversed(big))))
    js = connection.nats.jetstream()
    first = (await js.stream_info("PERDURE_SNAPSHOTS")).state.last_seq
    while (await js.stream_info("PERDURE_SNAPSHOTS")).state.last_seq == first:
        pass
    saving.cancel()
    await asyncio.wait([saving])
    assert await snapshots.load(execution) in (None, bytes(reversed(big)))
