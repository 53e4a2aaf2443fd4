"""Commands, leases and owners on a real server: what is done, and by whom, when owners and connections come and go."""

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from pathlib import Path
from uuid import uuid4

import pytest
from hosts_lab import HOLD, RAN, SET, WAIT, Lab, begun, open_gate, until
from nats.aio.client import Client
from nats.aio.msg import Msg
from proxy import Proxy

from perdure import ExecutionStopped
from perdure.actors.inputs import CancelExecution, PauseExecution, ResumeExecution, SignalExecution
from perdure.cluster.connection import Connection
from perdure.cluster.consumer import CommandsLost, Consumer, acknowledge, still_working
from perdure.cluster.inbox import Lanes
from perdure.cluster.leases import Lease
from perdure.cluster.nats_server import NatsServer
from perdure.cluster.ownership import Ownership
from perdure.cluster.run import AsyncRun
from perdure.cluster.serving import Serving
from perdure.cluster.tasks import stop
from perdure.cluster.watching import Watch
from perdure.errors import Deposed
from perdure.events.subjects import partition_of
from perdure.events.vocabulary import (
    ExecutionCancelled,
    ExecutionStarted,
    NodeResumed,
    NodeSucceeded,
    SignalReceived,
)


@pytest.fixture
async def lab(server: NatsServer, connection: Connection) -> AsyncIterator[Lab]:
    lab = Lab(server, connection)
    yield lab
    await Ownership(connection.nats, connection.registry, lab.lane).move(Lanes((lab.lane,)))
    await connection.nats.jetstream().purge_stream("PERDURE_INBOX", subject=f"perdure.cmd.{lab.lane}.*")
    await connection.nats.jetstream().purge_stream("PERDURE_INBOX", subject=f"perdure.start.*.{lab.lane}.*")


def key() -> str:
    return uuid4().hex


async def of_type(run: AsyncRun, *kinds: type) -> list[object]:
    """Return the events of these types that are recorded so far."""
    return [
        each.event for recorded in await run.history() for each in recorded.unpack() if isinstance(each.event, kinds)
    ]


async def test_the_ack_of_a_stale_owner_removes_nothing_and_tells_it_that_it_is_deposed(lab: Lab) -> None:
    """Under the same consumer name it would remove the newer owner's message: reply subjects would be the same."""
    await lab.start(key(), WAIT)
    told: dict[str, list[Msg]] = {"stale": [], "newer": []}
    owners = {name: Ownership(lab.connection.nats, lab.connection.registry, lab.lane) for name in told}
    for name, own in owners.items():
        await own.move(Lanes((lab.lane,)))

        async def take(message: Msg, name: str = name) -> None:
            told[name].append(message)

        consumer = Consumer(lab.connection.nats, f"{lab.lane}-starts-{own.epoch}", own.lanes.starts, take)
        await consumer.create()
        pulling = asyncio.create_task(consumer.pull(1))
        while not told[name]:
            await asyncio.sleep(0)
        await stop(pulling)
    for say in (acknowledge, still_working):
        with pytest.raises(Deposed, match="newer owner"):
            await say(lab.connection.nats, told["stale"][0])
    assert await lab.waiting() == 1
    await acknowledge(lab.connection.nats, told["newer"][0])
    assert await lab.waiting() == 0


async def test_a_command_that_is_lost_on_its_way_is_decided_before_the_one_that_came_after_it(lab: Lab) -> None:
    execution = key()
    async with Proxy.before(lab.server.url) as proxy, lab.host(url=proxy.url) as serving:
        run = await lab.start(execution, WAIT)
        await begun(run)
        epoch, lost = serving.host.own.epoch, list[str]()

        def lose(_subject: str, data: bytes) -> str | None:
            if b'"first"' in data and not lost:
                lost.append("first")
                return "drop"
            return None

        proxy.answers = lose
        for name in ("first", "second"):
            await lab.send(SignalExecution(name, execution, f"for {name}"))
        await until(lambda: _received(run, 2))
        received = await of_type(run, SignalReceived)
    assert lost == ["first"]
    assert [getattr(event, "signal", None) for event in received] == ["for first", "for second"]
    assert serving.host.own.epoch > epoch  # the consumer was made anew


async def test_a_command_that_was_lost_with_the_connection_comes_again_as_soon_as_that_is_back(lab: Lab) -> None:
    """Nothing comes after it that would show the gap, and the server would wait 30 s for its acknowledgement."""
    execution = key()
    async with Proxy.before(lab.server.url) as proxy, lab.host(url=proxy.url):
        run = await lab.start(execution, WAIT)
        await begun(run)
        lost = list[str]()

        def lose(_subject: str, data: bytes) -> str | None:
            if b'"only"' in data and not lost:
                lost.append("only")
                return "cut"
            return None

        proxy.answers = lose
        await lab.send(SignalExecution("only", execution, "go", 1))
        assert await run.result(20) == {"a": 1}
    assert lost == ["only"]


async def test_what_a_child_owes_its_parent_in_the_end_is_sent_by_the_next_host(lab: Lab) -> None:
    each, lost = key(), asyncio.Event()
    child = AsyncRun(f"{each}-child", lab.connection)
    parent = {
        "name": "parent",
        "workflows": {"leaf": SET},
        "nodes": {"c": {"workflow": {"name": "leaf", "id": child.id}}},
    }
    lanes = (lab.lane, str(partition_of(child.id)))

    def lose(_subject: str, data: bytes) -> str | None:
        if b'"ReportChild"' not in data:
            return None
        lost.set()
        return "drop"

    async with Proxy.before(lab.server.url) as proxy, lab.host(url=proxy.url, lanes=lanes):
        proxy.requests = lose
        run = await lab.start(each, parent)
        await asyncio.wait_for(lost.wait(), 20)
        assert await child.result(20) == {"a": 1}
        assert await run.status() == "running"
    async with lab.host(lanes=lanes):
        assert await run.result(20) == {"c": {"a": 1}}
        await until(lambda: _nothing_waits(lab))


async def test_a_hosts_consumers_hold_any_number_of_commands_and_give_them_again_for_ever(lab: Lab) -> None:
    """The server's default of 1,000 that may be held would keep a cancel back while so many executions are active."""
    async with lab.host():
        found = await lab.connection.nats.jetstream().consumers_info("PERDURE_INBOX")
    ours = [info.config for info in found if str(info.name).startswith(f"{lab.lane}-")]
    assert len(ours) > 1
    assert {(each.max_ack_pending, each.max_deliver) for each in ours} == {(-1, -1)}


async def _received(run: AsyncRun, count: int) -> bool:
    return len(await of_type(run, SignalReceived)) == count


async def test_a_lease_that_comes_again_while_it_is_acknowledged_is_acknowledged_again(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    each = key()
    async with lab.host() as serving:
        run = await lab.start(each, HOLD, each)
        await until(lambda: _are([each], [1]))
        (lease,) = serving.host._active.values()
        before = lease.message

        async def late(nats: Client, message: Msg) -> None:
            if message is before:
                serving.host.stale.set()
                await until(lambda: _came_again(lease, before))
            await acknowledge(nats, message)

        monkeypatch.setattr("perdure.cluster.host.acknowledge", late)
        open_gate(each)
        assert await run.result(20) == {"a": each}
        await until(lambda: _nothing_waits(lab))  # sooner than after the 30 s for which the server waits


async def _came_again(lease: Lease, before: Msg) -> bool:
    return lease.message is not before


async def test_a_consumer_notices_deliveries_that_did_not_arrive(lab: Lab) -> None:
    own = Ownership(lab.connection.nats, lab.connection.registry, lab.lane)
    await own.move(Lanes((lab.lane,)))
    came: list[Msg] = []

    async def take(message: Msg) -> None:
        came.append(message)

    consumer = Consumer(lab.connection.nats, f"{lab.lane}-starts-{own.epoch}", own.lanes.starts, take)
    await consumer.create()
    consumer.arrived = 3
    await lab.start(key(), WAIT)
    with pytest.raises(CommandsLost, match="delivery 1 follows delivery 3"):
        await asyncio.wait_for(consumer.pull(1), 20)
    assert came == []


async def test_a_new_owner_begins_with_what_was_active_whatever_its_room_and_not_with_queued_starts(lab: Lab) -> None:
    keys = [key() for _ in range(5)]
    async with lab.host(executions_per_actor=3) as first:
        runs = [await lab.start(each, HOLD, each) for each in keys]
        await until(lambda: _are(keys, [1, 1, 1, 0, 0]))
        assert first.host.status()["active"] == 3
    async with lab.host(executions_per_actor=1) as second:
        await until(lambda: _are(keys, [2, 2, 2, 0, 0]))  # room for one, and all three go on
        assert second.host.status()["active"] == 3
        assert [await run.status() for run in runs[3:]] == ["queued", "queued"]
        open_gate(keys[0])
        open_gate(keys[1])
        assert [await run.result(20) for run in runs[:2]] == [{"a": keys[0]}, {"a": keys[1]}]
        await until(lambda: _active(second, 1))
        assert await runs[3].status() == "queued"  # there is still one that was active
        for each in keys:
            open_gate(each)
        assert [await run.result(20) for run in runs] == [{"a": each} for each in keys]
    assert [RAN[each] for each in keys] == [2, 2, 2, 1, 1]


async def _active(serving: Serving, count: int) -> bool:
    return bool(serving.host.status()["active"] == count)


async def _are(keys: list[str], counts: list[int]) -> bool:
    return [RAN[each] for each in keys] == counts


async def test_queued_starts_that_came_before_one_that_was_active_wait_for_room(lab: Lab) -> None:
    """Hosts that are recovered have lanes of several owners before: what one had delivered says nothing of the rest."""
    keys, other = [key() for _ in range(4)], f"{lab.lane}b"
    async with lab.host() as first:
        for each in keys[:3]:
            await lab.start(each, HOLD, each, lane=other)  # nobody serves that lane
        await lab.start(keys[3], HOLD, keys[3])
        await until(lambda: _are(keys, [0, 0, 0, 1]))
        assert first.host.status()["active"] == 1
    async with lab.host(executions_per_actor=1, lanes=(lab.lane, other)) as second:
        await until(lambda: _are(keys, [0, 0, 0, 2]))
        assert second.host._starts is not None
        assert len(second.host._starts.held) == 3
        for each in keys:
            open_gate(each)
        await until(lambda: _are(keys, [1, 1, 1, 2]))


async def test_where_room_is_short_starts_of_higher_priority_come_first_and_equal_ones_in_their_order(lab: Lab) -> None:
    first, order = key(), list[str]()
    async with lab.host(executions_per_actor=1):
        busy = await lab.start(first, HOLD, first)
        await begun(busy)
        await until(lambda: _are([first], [1]))
        runs = [
            await lab.start(f"{number} {priority} {first}", SET, priority=priority)
            for number, priority in enumerate([1, 5, 9, 5, 0, 9])
        ]

        async def watch() -> None:
            async for recorded in lab.connection.log.follow(None, await lab.connection.log.last()):
                if recorded.execution.endswith(first) and isinstance(recorded.entry.events[0], ExecutionStarted):
                    order.append(recorded.execution[:3])

        watching = asyncio.create_task(watch())
        await asyncio.sleep(0.2)  # time enough to begin them, were there room
        assert [await run.status() for run in runs] == ["queued"] * 6
        open_gate(first)
        for run in runs:
            await run.result(20)
        await stop(watching)
    assert order[-6:] == ["2 9", "5 9", "1 5", "3 5", "0 1", "4 0"]


async def test_a_cancel_is_heard_while_every_place_is_taken(lab: Lab) -> None:
    first, second = key(), key()
    async with lab.host(executions_per_actor=1):
        runs = [await lab.start(each, HOLD, each) for each in (first, second)]
        await begun(runs[0])
        await lab.send(CancelExecution(key(), first))
        with pytest.raises(ExecutionStopped, match="cancelled"):
            await runs[0].result(20)
        await begun(runs[1])
        open_gate(second)
        assert await runs[1].result(20) == {"a": second}


async def test_the_cancel_of_a_queued_start_decides_both_at_once_and_nothing_of_it_runs(lab: Lab) -> None:
    first, second = key(), key()
    async with lab.host(executions_per_actor=1):
        runs = [await lab.start(each, HOLD, each) for each in (first, second)]
        await begun(runs[0])
        assert await runs[1].cancel("too late")
        with pytest.raises(ExecutionStopped, match="cancelled: too late"):
            await runs[1].result(20)
        (entry,) = await runs[1].history()
        assert {ExecutionStarted, ExecutionCancelled} <= {type(each.event) for each in entry.unpack()}
        open_gate(first)
        assert await runs[0].result(20) == {"a": first}
        await until(lambda: _nothing_waits(lab))
    assert RAN[second] == 0


async def _nothing_waits(lab: Lab) -> bool:
    return await lab.waiting() == 0


async def test_a_signal_that_overtakes_the_start_of_its_execution_is_kept_for_it(lab: Lab) -> None:
    first, second = key(), key()
    async with lab.host(executions_per_actor=1, passivate_after=0.0) as serving:
        busy = await lab.start(first, HOLD, first)
        waits = await lab.start(second, WAIT)
        await begun(busy)
        await lab.send(SignalExecution(key(), second, "go", {"n": 1}))
        await until(lambda: _early(serving))
        assert await waits.status() == "queued"
        open_gate(first)
        assert await waits.result(20) == {"a": {"n": 1}}
        await until(lambda: _nothing_waits(lab))


async def _early(serving: Serving) -> bool:
    return bool(serving.host._early)


async def test_commands_that_come_together_with_the_start_count_all_and_in_their_order(lab: Lab) -> None:
    """Starts and commands come by different consumers: whichever is first, none may be decided on nothing."""
    keys = [key() for _ in range(30)]
    for each in keys:
        await lab.start(each, WAIT)
        for command in (PauseExecution(f"{each} p", each), ResumeExecution(f"{each} r", each)):
            await lab.send(command)
        await lab.send(SignalExecution(f"{each} s", each, "go", each))
    async with lab.host(passivate_after=0.0):
        runs = [AsyncRun(each, lab.connection) for each in keys]
        assert [await run.result(20) for run in runs] == [{"a": each} for each in keys]
        await until(lambda: _nothing_waits(lab))
    for run in runs:
        causes = [cause for recorded in await run.history() for cause in recorded.entry.causes]
        assert causes[1:] == [f"{run.id} p", f"{run.id} r", f"{run.id} s"]


async def test_a_command_for_an_execution_that_there_never_was_is_removed(lab: Lab) -> None:
    async with lab.host():
        await lab.send(SignalExecution(key(), key(), "go"))
        await until(lambda: _nothing_waits(lab))


async def test_executions_that_only_wait_give_up_their_places_at_once_where_others_wait_for_them(lab: Lab) -> None:
    keys = [key() for _ in range(12)]
    async with lab.host(executions_per_actor=2, passivate_after=600.0) as serving:
        runs = [await lab.start(each, WAIT) for each in keys]
        await asyncio.gather(*map(begun, runs))
        for each in keys:
            await lab.send(SignalExecution(key(), each, "go", each))
        assert [await run.result(20) for run in runs] == [{"a": each} for each in keys]
        await until(lambda: _active(serving, 0))  # what has ended is not kept at hand


async def test_an_execution_that_only_waits_is_kept_at_hand_for_a_while_and_then_left(lab: Lab) -> None:
    async with lab.host(passivate_after=0.3) as serving:
        run = await lab.start(key(), WAIT)
        await begun(run)
        assert serving.host.status()["active"] == 1
        assert await lab.waiting() == 1
        began = time.monotonic()
        await until(lambda: _active(serving, 0))
        assert 0.2 < time.monotonic() - began < 5
        await until(lambda: _nothing_waits(lab))
        await lab.send(SignalExecution(key(), run.id, "go", 1))
        assert await run.result(20) == {"a": 1}


async def test_what_runs_on_lanes_that_go_ends_before_they_do_and_runs_once(lab: Lab) -> None:
    two = {"name": "two", "nodes": {"a": {"tool": "hosts_lab:hold", "with": {"key": "${{ input }}"}},
                                    "b": {"tool": "hosts_lab:hold", "needs": "a",
                                          "with": {"key": "${{ input + 'b' }}"}}}}  # fmt: skip
    each = key()
    open_gate(each + "b")
    async with lab.host("first-" + lab.lane) as first:
        run = await lab.start(each, two, each)
        await begun(run)
        draining = asyncio.create_task(first.drain(30))
        async with lab.host("second-" + lab.lane) as second:
            assert second.host.own.lanes == Lanes()  # they are the first one's while work runs there
            await asyncio.sleep(0)
            open_gate(each)
            await draining
            assert await run.result(20) == {"b": each + "b"}
            assert second.host.own.lanes == Lanes((lab.lane,))
    assert RAN[each] == RAN[each + "b"] == 1
    assert await of_type(run, NodeSucceeded) == [
        NodeSucceeded("a", 1, each),
        NodeSucceeded("b", 1, each + "b"),
    ]


async def test_work_that_takes_longer_than_a_drain_may_is_stopped_and_run_by_the_next_owner(lab: Lab) -> None:
    each = key()
    async with lab.host() as first:
        run = await lab.start(each, HOLD, each)
        await begun(run)
        await until(lambda: _ran(each, 1))
        await asyncio.wait_for(first.drain(0.05), 20)
        assert first.host.status()["active"] == 0
    async with lab.host():
        await until(lambda: _ran(each, 2))
        open_gate(each)
        assert await run.result(20) == {"a": each}
    assert len(await of_type(run, NodeResumed)) == 1


async def _ran(each: str, times: int) -> bool:
    return RAN[each] == times


@contextmanager
def killed(process: "subprocess.Popen[str]") -> Iterator[None]:
    """Leave no stopped process behind."""
    try:
        yield
    finally:
        process.kill()


STALE = """\
import asyncio, sys, time
from pathlib import Path
from perdure.actors.work import call_in_thread
from perdure.cluster.inbox import Lanes
from perdure.cluster.settings import Settings
from perdure.cluster.wiring import Opener, connect_to
from perdure.errors import Deposed

lane, url, token = sys.argv[1:]

async def main():
    settings = Settings(nats_url=url, nats_token_file=Path(token))
    serving = await Opener(await connect_to(settings), settings, call_in_thread).open(lane, Lanes((lane,)))
    print("serves", serving.host.own.epoch, flush=True)
    try:
        await serving.run()
    except Deposed:
        print("deposed", time.monotonic(), len(serving.host._active), flush=True)

asyncio.run(main())
"""
STALE_TOOLS = """\
import asyncio, os, time
from pathlib import Path

def note(line):
    with (Path(__file__).parent / "effects").open("a") as file:
        file.write(f"{os.getpid()} {line} {time.monotonic()}" + chr(10))

async def work(key: str) -> str:
    note(f"begin {key}")
    try:
        while not (Path(__file__).parent / "go").exists():
            await asyncio.sleep(0.01)
    except asyncio.CancelledError:
        note(f"cancelled {key}")
        raise
    note(f"end {key}")
    return key
"""


async def test_an_owner_that_slept_finds_itself_deposed_and_does_nothing_any_more(
    lab: Lab, tmp_path: Path, store: Path
) -> None:
    """SIGSTOP, another one takes over, SIGCONT: two processes believe that they own one execution."""
    (tmp_path / "tools.py").write_text(STALE_TOOLS)
    (tmp_path / "stale.py").write_text(STALE)
    tool = f"{tmp_path / 'tools.py'}:work"
    workflow = {
        "name": "slept",
        "nodes": {
            "nap": {"wait": "300ms"},  # comes due while the owner sleeps, and again in the one who took over
            "after": {"tool": tool, "needs": "nap", "with": {"key": "after"}},
            "first": {"tool": tool, "with": {"key": "first"}},
            "second": {"tool": tool, "needs": "first", "with": {"key": "second"}},
        },
    }
    command = [sys.executable, str(tmp_path / "stale.py"), lab.lane, lab.server.url, str(store / "token")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as stale, killed(stale):
        assert stale.stdout is not None
        assert (await asyncio.to_thread(stale.stdout.readline)).startswith("serves")
        run = await lab.start(key(), workflow)
        effects = tmp_path / "effects"
        await until(lambda: _exists(effects))
        os.kill(stale.pid, signal.SIGSTOP)
        async with lab.host() as newer:
            await until(lambda: _runs(effects, os.getpid(), "begin first"))
            await until(lambda: _runs(effects, os.getpid(), "begin after"))
            woken = time.monotonic()
            os.kill(stale.pid, signal.SIGCONT)
            word, at, active = (await asyncio.to_thread(stale.stdout.readline)).split()
            (tmp_path / "go").touch()
            assert await run.result(20) == {"second": "second", "after": "after"}
        assert stale.wait(20) == 0
    lines = [line.split() for line in effects.read_text().splitlines()]
    theirs = [(word, key) for pid, word, key, _ in lines if int(pid) == stale.pid]
    cancelled = next(float(when) for pid, word, _, when in lines if int(pid) == stale.pid and word == "cancelled")
    assert theirs == [("begin", "first"), ("cancelled", "first")]  # and nothing was begun after it woke
    assert cancelled - woken < 1
    assert (word, active) == ("deposed", "0")
    assert float(at) - woken < 1
    epochs = [recorded.entry.epoch for recorded in await run.history()]
    assert epochs == sorted(epochs)
    assert set(epochs[epochs.index(newer.host.own.epoch) :]) == {newer.host.own.epoch}


async def _exists(path: Path) -> bool:
    return path.exists()


async def _runs(effects: Path, pid: int, what: str) -> bool:
    return f"{pid} {what} " in effects.read_text()


async def test_a_host_that_is_there_and_silent_is_missing_after_a_while(
    connection: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("perdure.cluster.watching._ANSWER_SECONDS", 0.02)
    monkeypatch.setattr("perdure.cluster.watching.SILENT_FOR", 0.1)
    name, speaks = key(), asyncio.Event()

    async def answer(message: Msg) -> None:
        if speaks.is_set():
            await message.respond(b"{}")

    watch = Watch(connection)
    assert await watch.missing([name]) == [name]  # nobody has the name
    answering = await connection.nats.subscribe(f"perdure.host.{name}", cb=answer)
    assert await watch.missing([name]) == []
    await until(lambda: _is_missing(watch, name))
    speaks.set()
    with monkeypatch.context() as patient:
        patient.setattr("perdure.cluster.watching._ANSWER_SECONDS", 20)
        assert await watch.missing([name]) == []
    speaks.clear()
    assert await watch.missing([name]) == []  # its silence begins anew
    await answering.unsubscribe()
    assert await watch.missing([name]) == [name]
    for reconnected in connection.reconnected:
        reconnected()
    assert await watch.missing([name]) == []  # the server was away: it may only be slower to come back
    connection.reconnected.discard(watch._reconnected)


async def _is_missing(watch: Watch, name: str) -> bool:
    return await watch.missing([name]) == [name]
