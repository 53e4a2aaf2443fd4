"""A power cut takes what was not synced: every acknowledged entry was synced before it was acknowledged.

Killing the server proves nothing of this, as the page cache outlives it. Here strace records the system calls of a
server with `sync_interval: always`; `power_cut.py`, which says what it takes for safe, replays them up to a chosen
moment, and another server starts on what would be left.
"""

import asyncio
import random
import signal
from collections import defaultdict
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
from log_contract import entry
from nats_process import nats_process
from power_cut import Ack, acks, calls, disk_at, tracer, why_strace_cannot_run

from perdure.cluster.connection import open_connection
from perdure.events.group_writer import BATCH_FROM
from perdure.events.jetstream_log import STREAM
from perdure.events.log import Log

pytestmark = pytest.mark.skipif(why_strace_cannot_run() is not None, reason=str(why_strace_cannot_run()))

SINGLES = 20
BATCHES = 6
CUTS = 12


@dataclass
class Run:
    """A recorded run: what was appended, at its position, and what left the server."""

    record: Path
    store: Path
    written: dict[int, tuple[str, str]]
    acks: list[Ack]

    @property
    def block(self) -> str:
        """The file that holds the stream's messages; short runs fit in one."""
        return f"{self.store}/jetstream/$G/streams/{STREAM}/msgs/1.blk"

    @property
    def end(self) -> int:
        """The moment after all that was recorded."""
        return max(call.ended for call in calls(self.record)) + 1

    def acknowledged(self, moment: int) -> set[int]:
        """Return the positions that were acknowledged by then, or are just being."""
        return {position for ack in self.acks if ack.began <= moment for position in range(ack.first, ack.last + 1)}


class Writer:
    """Appends behind what it appended before, and keeps what was acknowledged."""

    def __init__(self, log: Log) -> None:
        self._log = log
        self._last: defaultdict[str, list[int]] = defaultdict(list)
        self.written: dict[int, tuple[str, str]] = {}

    async def append(self, execution: str, output: object = None) -> None:
        last = self._last[execution]
        each = entry(len(last) + 1, output)
        last.append((await self._log.append(execution, each, last[-1] if last else 0)).position)
        self.written[last[-1]] = (execution, each.id)

    async def singly(self, times: int, output: object = None) -> None:
        for _ in range(times):
            await self.append("alone", output)

    async def in_batches(self, times: int) -> None:
        for _ in range(times):
            await asyncio.gather(*(self.append(f"x-{number}") for number in range(BATCH_FROM * 4)))


async def recorded(folder: Path, work: Callable[[Writer], Awaitable[None]], sync: str = "always") -> Run:
    """Record what a server does while a writer works."""
    record = folder / "strace"
    with nats_process(folder / "server", tracer(record), sync) as server:
        connection = await open_connection(server.url, None)
        writer = Writer(connection.log)
        await work(writer)
        await connection.close()
        server.kill(signal.SIGTERM)  # what it writes when it ends may be cut, too
    return Run(record, server.folder / "jetstream", writer.written, acks(record, STREAM))


async def found_after(run: Run, moment: int, folder: Path, chance: random.Random, kept: float) -> set[int]:
    """Start a server on what a cut at this line leaves, and return the positions of the entries that it has."""
    disk_at(run.record, run.store, moment).left(folder / "jetstream", chance, kept)
    with nats_process(folder) as server:
        connection = await open_connection(server.url, None)
        stored = [recorded async for recorded in connection.log.read_all()]
        await connection.close()
    found = {recorded.position: (recorded.execution, recorded.entry.id) for recorded in stored}
    assert found.items() <= run.written.items(), "an entry is not where it was appended"
    assert list(found) == sorted(found)
    numbers: defaultdict[str, list[int]] = defaultdict(list)
    for each in stored:
        numbers[each.execution].append(each.entry.n)
    assert all(each == list(range(1, len(each) + 1)) for each in numbers.values())
    return set(found)


@pytest.fixture(scope="module")
async def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    async def work(writer: Writer) -> None:
        await writer.singly(SINGLES)
        await writer.in_batches(BATCHES)

    return await recorded(tmp_path_factory.mktemp("traced"), work)


async def test_every_append_and_every_batch_is_synced_before_it_is_acknowledged(
    run: Run, record_property: Callable[[str, object], None]
) -> None:
    """At least one fsync of the block of messages begins after its entries were written and ends before the ack."""
    syncs = [call for call in calls(run.record) if call.name in ("fsync", "fdatasync")]
    of_block = [call for call in syncs if call.paths == [run.block]]
    writes = [call for call in calls(run.record) if call.name == "pwrite64" and call.paths == [run.block]]
    singles = [ack for ack in run.acks if ack.first == ack.last]
    batches = [ack for ack in run.acks if ack.first != ack.last]
    assert len(singles) >= SINGLES
    assert len(batches) >= BATCHES
    for ack in run.acks:
        for position in range(ack.first, ack.last + 1):
            entry_id = run.written[position][1].encode()
            written = next(call for call in writes if entry_id in call.data)
            assert any(written.ended < call.began and call.ended < ack.began for call in of_block)
    for kind, some in (("append", singles), ("batch", batches)):
        before = dict(zip([ack.began for ack in run.acks], [0, *(ack.began for ack in run.acks)], strict=False))
        for name, group in (("all", syncs), ("of the block", of_block)):
            counts = [sum(before[ack.began] < call.ended < ack.began for call in group) for ack in some]
            record_property(f"fsyncs per {kind}, {name}", sorted(counts))


@pytest.mark.parametrize("kept", [0.0, 0.5], ids=["all that was not synced is lost", "half of it is kept by chance"])
async def test_after_a_power_cut_every_acknowledged_entry_is_there_once(run: Run, kept: float, tmp_path: Path) -> None:
    chance = random.Random(11)
    after_acks = [ack.began for ack in chance.sample(run.acks, CUTS // 2)]
    anywhere = [chance.randrange(run.acks[0].began, run.acks[-1].began) for _ in range(CUTS // 2)]
    for number, moment in enumerate([*after_acks, *anywhere, run.acks[-1].began, run.end]):
        found = await found_after(run, moment, tmp_path / str(number), chance, kept)
        assert run.acknowledged(moment) <= found, f"cut at line {moment}: acknowledged entries are lost"


async def test_a_power_cut_beside_a_new_block_of_messages_loses_nothing(tmp_path: Path) -> None:
    run = await recorded(tmp_path / "traced", lambda writer: writer.singly(90, "x" * 120_000))
    opened = [call for call in calls(run.record) if call.name == "openat" and call.paths[0].endswith("/msgs/2.blk")]
    new_block = opened[0].began
    beside = [ack.began for ack in run.acks if ack.began > new_block][:2]
    for number, moment in enumerate([new_block, *beside, run.end]):
        found = await found_after(run, moment, tmp_path / str(number), random.Random(number), kept=0.5)
        assert run.acknowledged(moment) <= found, f"cut at line {moment}: acknowledged entries are lost"


async def test_a_server_that_syncs_now_and_then_loses_what_it_acknowledged(tmp_path: Path) -> None:
    """The counter-check: with NATS's own default of two minutes these tests see the loss."""
    run = await recorded(tmp_path / "traced", lambda writer: writer.singly(SINGLES), sync="2m")
    moment = run.acks[-1].began
    found = await found_after(run, moment, tmp_path / "cut", random.Random(1), kept=0)
    assert len(run.acknowledged(moment)) == SINGLES
    assert not found
