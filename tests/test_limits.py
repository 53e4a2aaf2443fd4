"""Limits on a real server: shared by three hosts, whoever decides about them, and whoever of them dies."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from typing import Any
from uuid import uuid4

import pytest
from hosts_lab import GATES, MOST_AT_ONCE, RAN, SET, Lab, begun, open_gate, until
from nats.aio.msg import Msg
from nats.errors import TimeoutError as NatsTimeout

from perdure import ExecutionFailed as Failed
from perdure import ExecutionStopped
from perdure.cluster.connection import Connection
from perdure.cluster.limit_log import LimitLogs
from perdure.cluster.limiter import ASK_AGAIN, subject_of
from perdure.cluster.nats_server import NatsServer
from perdure.cluster.queue_report import limit_report
from perdure.cluster.run import AsyncRun
from perdure.cluster.serving import Serving
from perdure.events.vocabulary import NodeQueued, NodeResumed


class Labs:
    """Three lanes and a host for each, which have nothing in common but the server."""

    def __init__(self, server: NatsServer, connection: Connection) -> None:
        self.connection = connection
        self.labs = [Lab(server, connection) for _ in range(3)]
        self.name = f"l{uuid4().hex[:10]}"
        self.stacks: list[AsyncExitStack] = []
        self.serving: list[Serving] = []

    async def serve(self, **settings: Any) -> None:
        for lab in self.labs:
            await self.serve_one(lab, **settings)

    async def serve_one(self, lab: Lab, **settings: Any) -> None:
        stack = AsyncExitStack()
        how = {"limit_lease": 1.0, **settings}
        self.serving.append(await stack.enter_async_context(lab.host(f"{lab.lane}-{len(self.stacks)}", **how)))
        self.stacks.append(stack)

    async def kill(self, number: int) -> None:
        """Lose a host as when its process is killed."""
        await self.stacks[number].aclose()

    def workflow(self, limit: dict[str, Any], *, use: Any = None, **parts: Any) -> dict[str, Any]:
        node = {
            "tool": "hosts_lab:counted",
            "with": {"key": "${{ input.key }}", "of": self.name},
            "limit": use or self.name,
            "retry": {"attempts": 1},
        }
        return {"name": self.name, "limits": {self.name: limit}, "nodes": {"a": {**node, **parts}}}

    async def start(self, workflow: dict[str, Any], number: int, **how: Any) -> AsyncRun:
        """Start an execution on one of the lanes in turn; its gate and its id have the same name."""
        priority = how.pop("priority", 5)
        execution = how.pop("id", f"{self.name}-{number}")
        return await self.labs[number % 3].start(execution, workflow, {"key": execution, **how}, priority=priority)

    async def ran(self, count: int) -> list[str]:
        """Wait until so many tools have begun; return their keys."""
        await until(lambda: _is(len(self.begun()) >= count))
        return self.begun()

    def begun(self) -> list[str]:
        return [key for key in RAN if key.startswith(f"{self.name}-") and RAN[key]]


async def _is(what: bool) -> bool:
    return what


async def events_of(run: AsyncRun, *kinds: type) -> list[Any]:
    return [
        each.event for recorded in await run.history() for each in recorded.unpack() if isinstance(each.event, kinds)
    ]


@pytest.fixture
async def labs(server: NatsServer, connection: Connection) -> AsyncIterator[Labs]:
    labs = Labs(server, connection)
    yield labs
    for stack in labs.stacks:
        await stack.aclose()
    for lab in labs.labs:
        await lab.forget()


async def test_three_hosts_share_one_limit_on_nodes(labs: Labs) -> None:
    await labs.serve()
    workflow = labs.workflow({"concurrency": 2})
    runs = [await labs.start(workflow, number) for number in range(9)]
    for count in range(2, 10):
        keys = await labs.ran(count)
        open_gate(next(key for key in keys if not GATES[key].is_set()))
    for key in labs.begun():
        open_gate(key)
    assert [await run.result(10) for run in runs] == [{"a": run.id} for run in runs]
    assert MOST_AT_ONCE[labs.name] == 2


async def test_a_limit_outlives_the_process_that_decides_about_it_and_what_that_held_lapses(labs: Labs) -> None:
    await labs.serve()
    workflow = labs.workflow({"concurrency": 1})
    first = await labs.start(workflow, 0)  # its host is the first to ask: it decides
    await labs.ran(1)
    others = [await labs.start(workflow, number) for number in (1, 2)]
    await asyncio.gather(*map(begun, others))
    await labs.kill(0)
    await labs.ran(2)
    assert MOST_AT_ONCE[labs.name] == 1  # the killed host's tool was stopped with it
    for run in others:
        open_gate(run.id)
    assert [await run.result(10) for run in others] == [{"a": run.id} for run in others]
    await labs.serve_one(labs.labs[0], limit_lease=1.0)
    open_gate(first.id)
    assert await first.result(10) == {"a": first.id}
    assert len(await events_of(first, NodeResumed)) == 1


async def test_a_resumed_attempt_takes_up_its_own_lease(labs: Labs) -> None:
    await labs.serve(limit_lease=60.0)
    workflow = labs.workflow({"concurrency": 1})
    deciding = await labs.start(workflow, 1)  # so that the second host decides, and lives on
    await labs.ran(1)
    open_gate(deciding.id)
    await deciding.result(10)
    run = await labs.start(workflow, 0)
    await labs.ran(2)
    await labs.kill(0)
    await labs.serve_one(labs.labs[0], limit_lease=60.0)  # far sooner than its lease lapses
    open_gate(run.id)
    assert await run.result(10) == {"a": run.id}


async def test_whoever_waits_longest_is_next_though_the_one_who_decides_has_died(labs: Labs) -> None:
    await labs.serve()
    workflow = labs.workflow({"concurrency": 1})
    held = await labs.start(workflow, 1)
    await labs.ran(1)
    older = await labs.start(workflow, 2)
    await until(lambda: _waits(labs, 1))
    newer = [await labs.start(workflow, number) for number in (3, 5, 6)]
    urgent = await labs.start(workflow, 8, priority=9)
    await until(lambda: _waits(labs, 5))
    assert [lab.openers[0].limits.decides(labs.name) for lab in labs.labs] == [False, True, False]
    await labs.labs[1].openers[0].limits.close()  # it decides nothing more, and its own attempts are not renewed
    open_gate(held.id)
    await labs.ran(2)
    assert labs.begun()[-1] == urgent.id
    open_gate(urgent.id)
    await labs.ran(3)
    assert labs.begun()[-1] == older.id
    for run in (older, *newer):
        open_gate(run.id)
    await asyncio.gather(*(run.result(10) for run in (older, *newer)))


async def test_who_was_too_busy_to_hear_an_answer_does_not_take_a_limit_over(
    labs: Labs, monkeypatch: pytest.MonkeyPatch
) -> None:
    await labs.serve()
    workflow = labs.workflow({"concurrency": 1})
    held = await labs.start(workflow, 0)
    await labs.ran(1)
    deciding, busy = (labs.labs[number].openers[0].limits for number in (0, 1))
    request, unheard = busy._nats.request, [1]

    async def heard(*args: Any, **how: Any) -> Any:
        answer = await request(*args, **how)
        if unheard and args[0] == subject_of(labs.name):
            unheard.pop()
            raise NatsTimeout
        return answer

    monkeypatch.setattr(busy._nats, "request", heard)
    late = await labs.start(workflow, 1)
    await until(lambda: _waits(labs, 1))
    assert not unheard
    assert deciding.decides(labs.name)
    assert not busy.decides(labs.name)
    for run in (held, late):
        open_gate(run.id)
        await run.result(10)


async def test_a_report_while_a_limit_changes_hands_is_what_its_log_says(labs: Labs) -> None:
    async def hands_over(message: Msg) -> None:
        await message.respond(ASK_AGAIN)

    listening = await labs.connection.nats.subscribe(subject_of(labs.name), cb=hands_over)
    told = await limit_report(labs.connection, LimitLogs(labs.connection.nats, 5.0, 1), labs.name)
    await listening.unsubscribe()
    assert not told["decided"]
    assert told["keys"] == []


async def _waits(labs: Labs, count: int, kind: str = "") -> bool:
    told = await limit_report(labs.connection, LimitLogs(labs.connection.nats, 5.0, 1), kind + labs.name)
    return bool(told["decided"]) and sum(key["waits"] for key in told["keys"]) == count


def whole(labs: Labs, **parts: Any) -> dict[str, Any]:
    """Return a workflow that is limited as a whole; its one tool runs until its gate is opened."""
    with_ = {"key": "${{ input.key }}", "of": labs.name}
    return {"name": labs.name, "nodes": {"a": {"tool": "hosts_lab:counted", "with": with_}}, **parts}


async def statuses(runs: list[AsyncRun]) -> list[str]:
    return [await run.status() for run in runs]


async def test_three_hosts_share_the_concurrency_of_a_workflow_and_who_waits_is_in_no_hosts_memory(labs: Labs) -> None:
    await labs.serve(passivate_after=0.0)
    workflow = whole(labs, concurrency=2)
    runs = [await labs.start(workflow, number) for number in range(12)]
    await asyncio.gather(*map(begun, runs))
    await labs.ran(2)
    await until(lambda: _is(sum(each.host.status()["active"] for each in labs.serving) == 2))
    assert sorted(await statuses(runs)) == ["queued"] * 10 + ["running"] * 2
    for number in range(12):
        keys = await labs.ran(number + 1)
        open_gate(keys[number])
    assert [await run.result(10) for run in runs] == [{"a": run.id} for run in runs]
    assert MOST_AT_ONCE[labs.name] == 2


async def test_who_waits_is_let_in_though_the_one_who_decides_dies_and_so_does_the_one_who_holds(labs: Labs) -> None:
    await labs.serve()
    workflow = whole(labs, concurrency=1)
    holds = await labs.start(workflow, 0)
    await labs.ran(1)
    waits = await labs.start(workflow, 1)
    await begun(waits)
    await until(lambda: _waits(labs, 1, "workflow:"))
    await labs.kill(0)  # it holds the slot, and decides
    assert await waits.status() == "queued"  # the slot has no lease: its execution has not ended
    await labs.serve_one(labs.labs[0])
    open_gate(holds.id)
    assert await holds.result(10) == {"a": holds.id}
    open_gate(waits.id)
    assert await waits.result(10) == {"a": waits.id}


async def test_a_slot_of_an_execution_that_ended_and_did_not_say_so_is_found(
    labs: Labs, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("perdure.cluster.limiter.SWEEP", 0.1)
    await labs.serve()
    with monkeypatch.context() as silent:

        async def say_nothing(*_: Any) -> None: ...

        silent.setattr("perdure.cluster.limits.ClusterLimits.give_back", say_nothing)
        workflow = whole(labs, concurrency=1)
        first = await labs.start(workflow, 0)
        await labs.ran(1)
        open_gate(first.id)
        await first.result(10)
    second = await labs.start(workflow, 1)
    open_gate(second.id)
    assert await second.result(10) == {"a": second.id}


async def test_of_a_singleton_only_the_newest_goes_on(labs: Labs) -> None:
    await labs.serve()
    workflow = whole(labs, concurrency={"limit": 1, "key": "input.of", "at_limit": "cancel_older"})
    oldest = await labs.start(workflow, 0, of="a")
    other = await labs.start(workflow, 3, of="b")
    await labs.ran(2)
    middle = await labs.start(workflow, 1, of="a")
    with pytest.raises(ExecutionStopped, match=r"cancels the older one"):
        await oldest.result(10)
    newest = await labs.start(workflow, 2, of="a")
    with pytest.raises(ExecutionStopped, match=r"cancels the older one"):
        await middle.result(10)
    for run in (newest, other):
        open_gate(run.id)
    assert await newest.result(10) == {"a": newest.id}
    assert await other.result(10) == {"a": other.id}
    assert MOST_AT_ONCE[labs.name] == 2


async def test_nodes_that_come_too_late_fail_at_a_limit_that_rejects_and_older_ones_at_one_that_cancels(
    labs: Labs,
) -> None:
    await labs.serve()
    rejects = labs.workflow({"concurrency": 1, "at_limit": "reject"})
    first = await labs.start(rejects, 0)
    await labs.ran(1)
    late = await labs.start(rejects, 1)
    with pytest.raises(Failed, match=r"LimitReached: limit .* has nothing left"):
        await late.result(10)
    open_gate(first.id)
    await first.result(10)
    cancels = labs.workflow({"concurrency": 1, "at_limit": "cancel_older"})
    cancels["limits"] = {"c": cancels["limits"][labs.name]}
    cancels["nodes"]["a"]["limit"] = "c"
    older = await labs.start(cancels, 2)
    await labs.ran(2)
    newer = await labs.start(cancels, 4)
    with pytest.raises(Failed, match=r"Superseded: .*came after it"):
        await older.result(10)
    open_gate(newer.id)
    await newer.result(10)


async def test_a_wait_at_a_limit_has_its_queue_timeout_and_is_recorded_with_its_reason(
    labs: Labs, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("perdure.cluster.limits._SHOWN_AFTER", 0.02)
    await labs.serve()
    workflow = labs.workflow({"concurrency": 1, "key": "input.of"}, queue_timeout=0.2)
    held = await labs.start(workflow, 0, of="k")
    await labs.ran(1)
    late = await labs.start(workflow, 1, of="k")
    with pytest.raises(Failed, match=r"QueueTimeout: limit .* \(key 'k'\) had no room within 0.2 s: 0 before it"):
        await late.result(10)
    (queued,) = await events_of(late, NodeQueued)
    assert queued.waits_for == f"limit {labs.name!r} (key 'k'): 0 before it"
    open_gate(held.id)
    await held.result(10)


async def test_executions_that_wait_at_limits_do_not_fill_a_host(labs: Labs) -> None:
    await labs.serve_one(labs.labs[0], executions_per_actor=2)
    workflow = labs.workflow({"concurrency": 1})
    runs = [await labs.start(workflow, number) for number in range(0, 24, 3)]
    await asyncio.gather(*map(begun, runs))
    free = await labs.labs[0].start(f"{labs.name}-free", SET)
    await free.result(10)
    for run in runs:
        open_gate(run.id)
    await asyncio.gather(*(run.result(10) for run in runs))


async def test_a_rate_is_shared_and_settled_with_what_was_taken_in_truth(labs: Labs) -> None:
    await labs.serve()
    use = {"name": labs.name, "cost": 1, "spent": "input.spent"}
    workflow = labs.workflow({"rate": 10, "per": "1s", "burst": 10}, use=use)
    dear = await labs.start(workflow, 0, spent=13)
    open_gate(dear.id)
    await dear.result(10)
    began = time.monotonic()
    after = await labs.start(workflow, 1, spent=1)
    open_gate(after.id)
    await after.result(10)
    assert time.monotonic() - began > 0.3  # 3 in debt, and 1 more


async def test_what_the_settings_say_goes_before_what_a_definition_says(labs: Labs) -> None:
    name = labs.name
    await labs.serve(limits={name: {"concurrency": 1}})
    runs = [await labs.start(labs.workflow({"concurrency": 5}), number) for number in range(3)]
    runs.append(await labs.start(labs.workflow({"of_cluster": True}), 3))
    for number in range(4):
        open_gate((await labs.ran(number + 1))[number])
    await asyncio.gather(*(run.result(10) for run in runs))
    assert MOST_AT_ONCE[name] == 1
    unknown = labs.workflow({"of_cluster": True})
    unknown["limits"], unknown["nodes"]["a"]["limit"] = {"nowhere": {"of_cluster": True}}, "nowhere"
    with pytest.raises(Failed, match="LimitUnknown: limit 'nowhere' is the cluster's"):
        await (await labs.start(unknown, 5)).result(10)


async def test_a_log_that_grows_is_written_anew_and_means_the_same(labs: Labs, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("perdure.cluster.limiter._COMPACT", 3)
    await labs.serve()
    workflow = whole(labs, concurrency=1)
    runs = [await labs.start(workflow, number) for number in range(6)]
    for number in range(6):
        open_gate((await labs.ran(number + 1))[number])
    await asyncio.gather(*(run.result(10) for run in runs))
    logs = LimitLogs(labs.connection.nats, 5.0, 1)

    async def is_empty() -> bool:
        state, _, entries, _ = await logs.load(f"workflow:{labs.name}")
        assert entries <= 6  # of some thirty
        return not any(keyed.held or keyed.queue for keyed in state.keys.values())

    await until(is_empty)


@pytest.mark.parametrize(("ageing", "next_one"), [(60.0, "high"), (1e-7, "low")])
async def test_a_start_of_higher_priority_goes_first_unless_a_lower_one_has_waited_too_long(
    labs: Labs, ageing: float, next_one: str
) -> None:
    lab = labs.labs[0]
    await labs.serve_one(lab, executions_per_actor=1, priority_ageing=ageing)
    workflow = whole(labs)
    runs = {}
    for name, priority in (("busy", 5), ("low", 1), ("high", 9)):
        key = f"{labs.name}-{name}"
        runs[name] = await lab.start(key, workflow, {"key": key}, priority=priority)
        if name == "busy":
            await labs.ran(1)
    await until(lambda: _delivered(lab, 3))
    open_gate(runs["busy"].id)
    await labs.ran(2)
    assert labs.begun()[1] == runs[next_one].id
    for run in runs.values():
        open_gate(run.id)
    await asyncio.gather(*(run.result(10) for run in runs.values()))


async def _delivered(lab: Lab, count: int) -> bool:
    infos = await lab.connection.nats.jetstream().consumers_info("PERDURE_INBOX")
    ours = [info for info in infos if str(info.name).startswith(lab.lane) and "starts" in str(info.name)]
    return sum(info.num_ack_pending or 0 for info in ours) == count
