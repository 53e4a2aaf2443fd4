"""The execution actor in process: progress, retries, recovery, and that no crash loses or repeats anything."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scenario import EXECUTION, plan_of, start

from perdure.actors.decisions import decide
from perdure.actors.execution import Execution
from perdure.actors.folded import Folded
from perdure.actors.inputs import CompensateExecution, FireTimer, ReportChild, ReportCompensation, SignalExecution
from perdure.actors.state import Started
from perdure.actors.surroundings import Surroundings
from perdure.actors.time_limits import Timeout
from perdure.actors.work import Work, WorkerLost
from perdure.definitions.plan import Plan
from perdure.errors import Deposed, LogUnavailable
from perdure.events.entry import Entry, Recorded
from perdure.events.log import Log
from perdure.events.memory_log import MemoryLog
from perdure.events.snapshots import Snapshots
from perdure.events.vocabulary import ChildRequested, CommandRefused, NodeResumed, NodeSucceeded, Parent


class World:
    """A log, one plan, tools that count their calls, and timers that fire at once when told."""

    def __init__(
        self, plan: Plan, tool: Callable[[Work], Any] = lambda work: work.node.name, log: Log | None = None
    ) -> None:
        self.plan = plan
        self.log = log or MemoryLog()
        self.calls: Counter[str] = Counter()
        self.armed: dict[str, datetime] = {}
        self.disarmed: list[str] = []
        self._tool = tool

    async def work(self, work: Work) -> Any:
        self.calls[work.node.name] += 1
        result = self._tool(work)
        return await result if asyncio.iscoroutine(result) else result

    async def arm(self, execution: str, lane: str, timer: str, due: datetime) -> None:
        self.armed[timer] = due

    async def disarm(self, execution: str, timer: str) -> None:
        self.disarmed.append(timer)

    async def plan_for(self, digest: str) -> Plan:
        assert digest == self.plan.digest
        return self.plan

    def around(self, epoch: int = 1, near: float = 3600) -> Surroundings:
        return Surroundings(self.log, self.plan_for, self.work, self, epoch, lambda: near)

    def actor(self, epoch: int = 1, near: float = 3600, snapshots: Snapshots | None = None) -> Execution:
        return Execution(EXECUTION, replace(self.around(epoch, near), snapshots=snapshots))

    async def state(self) -> Started:
        folded = Folded()
        async for recorded in self.log.read(EXECUTION):
            folded = folded.after(recorded)
        assert isinstance(folded.state, Started)
        return folded.state

    async def events(self) -> list[Any]:
        return [item.event async for recorded in self.log.read(EXECUTION) for item in recorded.unpack()]


DIAMOND = plan_of(
    {
        "top": {"tool": "t"},
        "left": {"tool": "t", "needs": ["top"]},
        "right": {"tool": "t", "needs": ["top"]},
        "join": {"tool": "t", "with": {"l": "${{ nodes.left.output }}", "r": "${{ nodes.right.output }}"}},
    }
)


async def test_an_execution_runs_to_its_end_and_calls_each_tool_once() -> None:
    world = World(DIAMOND)
    await world.actor().run(start(DIAMOND))
    assert (await world.state()).status == "succeeded"
    assert world.calls == {"top": 1, "left": 1, "right": 1, "join": 1}


async def test_nodes_that_finish_together_leave_as_one_entry() -> None:
    plan = plan_of({f"n{number}": {"tool": "t"} for number in range(100)})
    world = World(plan)
    await world.actor().run(start(plan))
    assert (await world.state()).status == "succeeded"
    assert len([recorded async for recorded in world.log.read(EXECUTION)]) <= 5


async def test_entries_are_numbered_chained_and_name_their_causes() -> None:
    world = World(DIAMOND)
    await world.actor(epoch=7).run(start(DIAMOND))
    stored = [recorded async for recorded in world.log.read(EXECUTION)]
    entries = [recorded.entry for recorded in stored]
    assert [entry.n for entry in entries] == list(range(1, len(entries) + 1))
    assert [entry.prev for entry in entries] == ["", *(recorded.digest for recorded in stored[:-1])]
    assert entries[0].causes == ["start-1"]
    assert {entry.epoch for entry in entries} == {7}


async def test_a_retry_waits_for_its_timer_and_then_succeeds() -> None:
    plan = plan_of({"a": {"tool": "t", "retry": {"attempts": 3, "delay": 0.001}}})

    def flaky(work: Work) -> str:
        if work.attempt < 3:
            raise ValueError("not yet")
        return "done"

    world = World(plan, flaky)
    await world.actor().run(start(plan))
    state = await world.state()
    assert (state.status, state.nodes["a"].attempt, world.calls["a"]) == ("succeeded", 3, 3)


async def test_a_far_timer_is_left_to_the_inbox_and_the_execution_is_left() -> None:
    plan = plan_of({"a": {"tool": "t", "retry": {"attempts": 2, "delay": "2h", "cap": "2h"}}})

    def flaky(work: Work) -> str:
        if work.attempt < 2:
            raise ValueError("not yet")
        return "done"

    world = World(plan, flaky)
    actor = world.actor(near=30)
    await actor.run(start(plan))
    assert actor.closed
    assert (await world.state()).status == "running"
    assert 3600 <= (world.armed["retry/a"] - datetime.now(UTC)).total_seconds() <= 7200
    await world.actor().run(FireTimer("t-1", EXECUTION, "retry/a", world.armed["retry/a"]))
    assert (await world.state()).status == "succeeded"


async def test_a_far_timer_stays_here_while_the_inbox_is_away(monkeypatch: pytest.MonkeyPatch) -> None:
    plan = plan_of({"a": {"tool": "t", "retry": {"attempts": 2, "delay": 0.05, "jitter": False}}})

    def flaky(work: Work) -> str:
        if work.attempt < 2:
            raise ValueError("not yet")
        return "done"

    async def away(*_: object) -> None:
        raise LogUnavailable("away")

    world = World(plan, flaky)
    monkeypatch.setattr(world, "arm", away)
    await world.actor(near=0).run(start(plan))
    assert (await world.state()).status == "succeeded"


async def test_a_failure_disarms_far_timers_and_cancels_running_work() -> None:
    hanging = asyncio.Event()
    cancelled: list[str] = []

    async def tool(work: Work) -> None:
        if work.node.name == "slow":
            try:
                await hanging.wait()
            except asyncio.CancelledError:
                cancelled.append("slow")
                raise
        raise ValueError(work.node.name)

    plan = plan_of(
        {
            "far": {"tool": "t", "retry": {"delay": "2h", "cap": "2h"}},
            "slow": {"tool": "t"},
            "bad": {"tool": "t", "needs": ["ok"]},
            "ok": {"set": 1},
        }
    )
    world = World(plan, tool)
    await world.actor(near=30).run(start(plan))
    assert (await world.state()).status == "failed"
    await asyncio.sleep(0)
    assert cancelled == ["slow"]


async def test_a_new_owner_resumes_what_was_under_way_and_repeats_nothing_else() -> None:
    block = asyncio.Event()

    async def tool(work: Work) -> str:
        if work.node.name == "right" and not block.is_set():
            await block.wait()
        return work.node.name

    world = World(DIAMOND, tool)
    first = asyncio.create_task(world.actor(epoch=1).run(start(DIAMOND)))
    async for recorded in world.log.follow(EXECUTION):
        if any(event == NodeSucceeded("left", 1, "left") for event in recorded.entry.events):
            break
    first.cancel()  # the owner dies while `right` is under way
    await asyncio.wait([first])
    block.set()
    await world.actor(epoch=2).run(start(DIAMOND))
    assert (await world.state()).status == "succeeded"
    assert world.calls == {"top": 1, "left": 1, "right": 2, "join": 1}
    assert [event for event in await world.events() if isinstance(event, NodeResumed)] == [NodeResumed("right", 1)]


async def test_an_older_owner_stops_when_it_meets_a_newer_epoch() -> None:
    world = World(DIAMOND)
    await world.actor(epoch=2).run(start(DIAMOND))
    with pytest.raises(Deposed, match="owned by epoch 2, this is 1"):
        await world.actor(epoch=1).run(start(DIAMOND))


async def test_of_two_owners_at_once_the_newer_wins_and_every_result_is_recorded_once() -> None:
    gate = asyncio.Event()

    async def tool(work: Work) -> str:
        await gate.wait()
        return work.node.name

    world = World(DIAMOND, tool)
    old = asyncio.create_task(world.actor(epoch=1).run(start(DIAMOND)))
    async for _ in world.log.follow(EXECUTION):
        break
    new = asyncio.create_task(world.actor(epoch=2).run(start(DIAMOND)))
    async for recorded in world.log.follow(EXECUTION):
        if recorded.entry.epoch == 2:
            break
    gate.set()
    outcomes = await asyncio.gather(old, new, return_exceptions=True)
    assert isinstance(outcomes[0], Deposed)
    assert outcomes[1] is True
    succeeded = Counter(event.node for event in await world.events() if isinstance(event, NodeSucceeded))
    assert succeeded == dict.fromkeys(DIAMOND.main.nodes, 1)


async def test_a_command_that_is_told_is_recorded_when_tell_returns() -> None:
    gate = asyncio.Event()

    async def tool(work: Work) -> None:
        await gate.wait()

    world = World(DIAMOND, tool)
    actor = world.actor()
    running = asyncio.create_task(actor.run(start(DIAMOND, "mine")))
    assert await actor.tell(start(DIAMOND, "other", command="start-2"))
    causes = [cause async for recorded in world.log.read(EXECUTION) for cause in recorded.entry.causes]
    assert causes == ["start-1", "start-2"]
    gate.set()
    await running
    assert await actor.tell(start(DIAMOND, "late", command="start-3")) is False


async def test_the_same_command_twice_is_handled_once() -> None:
    gate = asyncio.Event()

    async def tool(work: Work) -> None:
        await gate.wait()

    world = World(DIAMOND, tool)
    actor = world.actor()
    running = asyncio.create_task(actor.run(start(DIAMOND)))
    other = start(DIAMOND, "other", command="start-2")
    assert await actor.tell(other)
    before = await world.log.last(EXECUTION)
    assert await actor.tell(other)
    assert await world.log.last(EXECUTION) == before
    gate.set()
    await running


async def test_a_tool_that_takes_its_worker_down_every_time_ends_in_worker_lost() -> None:
    def deadly(work: Work) -> None:
        raise WorkerLost("gone")

    plan = plan_of({"a": {"tool": "t"}})
    world = World(plan, deadly)
    await world.actor().run(start(plan))
    state = await world.state()
    assert state.nodes["a"].error is not None
    assert (state.status, state.nodes["a"].error.type, world.calls["a"]) == ("failed", "WorkerLost", 4)


async def test_an_error_is_recorded_with_its_type_and_message() -> None:
    def late(work: Work) -> None:
        raise Timeout("too late")

    plan = plan_of({"a": {"tool": "t"}})
    world = World(plan, late)
    await world.actor().run(start(plan))
    error = (await world.state()).nodes["a"].error
    assert error is not None
    assert (error.type, error.message) == ("Timeout", "too late")


class Crash(Exception):
    """The process dies here."""


class CrashingLog(MemoryLog):
    """A log whose caller dies at chosen appends: before the entry is stored, or after, with its ack lost."""

    def __init__(self, script: list[str]) -> None:
        super().__init__()
        self.script = script

    async def append(self, execution: str, entry: Entry, expected: int) -> Recorded:
        fate = self.script.pop(0) if self.script else "ok"
        if fate == "before":
            raise Crash
        recorded = await super().append(execution, entry, expected)
        if fate == "after":
            raise Crash
        return recorded


@settings(deadline=None, max_examples=200)
@given(st.lists(st.sampled_from(["ok", "before", "after"]), max_size=12))
def test_any_interleaving_of_crashes_ends_the_same_with_every_result_recorded_once(script: list[str]) -> None:
    async def play() -> None:
        world = World(DIAMOND, log=CrashingLog(script))
        epoch = 0
        while True:
            epoch += 1
            try:
                await world.actor(epoch).run(start(DIAMOND))
                break
            except Crash:
                continue  # the next owner gets the unacknowledged start again
        state = await world.state()
        lost = state.outcome is not None and state.status == "failed"
        succeeded = Counter(event.node for event in await world.events() if isinstance(event, NodeSucceeded))
        assert max(succeeded.values(), default=0) <= 1
        if lost:  # only a node that was under way in four crashes may fail
            assert any(node.error and node.error.type == "WorkerLost" for node in state.nodes.values())
        else:
            assert succeeded == dict.fromkeys(DIAMOND.main.nodes, 1)

    asyncio.run(play())


async def test_while_the_log_is_away_work_goes_on_and_nothing_is_decided_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    class Away(MemoryLog):
        refusals = 0

        async def append(self, execution: str, entry: Entry, expected: int) -> Recorded:
            if len(self._all) == 1 and self.refusals < 3:  # the first report finds the log away, for a while
                self.refusals += 1
                if self.refusals == 2:
                    await super().append(execution, entry, expected)  # and once only the answer is lost
                raise LogUnavailable("away")
            return await super().append(execution, entry, expected)

    monkeypatch.setattr("perdure.actors.execution._PAUSE", 0.001)
    log = Away()
    world = World(DIAMOND, log=log)
    await world.actor().run(start(DIAMOND))
    assert log.refusals == 2
    assert (await world.state()).status == "succeeded"
    assert world.calls == {"top": 1, "left": 1, "right": 1, "join": 1}
    assert not [event for event in await world.events() if isinstance(event, NodeResumed)]


async def test_a_log_that_cannot_be_loaded_stops_the_actor() -> None:
    class Away(MemoryLog):
        async def read(self, execution: str, after: int = 0, limit: int | None = None) -> Any:
            raise LogUnavailable("away")
            yield

    actor = World(DIAMOND, log=Away()).actor()
    running = asyncio.create_task(actor.run(start(DIAMOND)))
    with pytest.raises(LogUnavailable):
        await running
    assert await actor.tell(start(DIAMOND, command="start-2")) is False


async def test_a_timer_that_was_left_to_the_inbox_is_disarmed_by_whoever_has_the_execution_next() -> None:
    plan = plan_of({"a": {"wait": {"signal": "go", "timeout": "2d"}}})
    world = World(plan)
    await world.actor(near=30).run(start(plan))
    assert set(world.armed) == {"wait/a"}
    await world.actor(near=30).run(SignalExecution("s-1", EXECUTION, "go", 1))
    assert (await world.state()).status == "succeeded"
    assert world.disarmed == ["wait/a"]


async def test_a_tool_that_swallows_its_cancellation_reports_nothing() -> None:
    begun, over = asyncio.Event(), asyncio.Event()

    async def stubborn(work: Work) -> Any:
        if work.path == "b":
            await begun.wait()
            raise RuntimeError("no")
        try:
            begun.set()
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            over.set()
        return "late"

    world = World(plan_of({"a": {"tool": "t"}, "b": {"tool": "t"}}), stubborn)
    actor = world.actor()
    await actor.run(start(world.plan))
    await over.wait()
    await asyncio.sleep(0)
    assert (await world.state()).status == "failed"
    assert actor._mailbox.empty


async def test_a_command_that_no_decision_can_be_made_of_is_refused_and_the_execution_goes_on(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def faulty(plan: Plan, execution: str, state: Any, given_input: Any, at: datetime) -> Any:
        if isinstance(given_input, SignalExecution) and given_input.signal == "poison":
            raise IndexError("pop from empty list")
        return decide(plan, execution, state, given_input, at)

    monkeypatch.setattr("perdure.actors.execution.decide", faulty)
    world = World(plan_of({"a": {"wait": {"signal": "go"}}}))
    await world.actor().run(start(world.plan))
    await world.actor().run(SignalExecution("s-1", EXECUTION, "poison"))
    await world.actor().run(SignalExecution("s-2", EXECUTION, "go", 1))
    reason = "a fault in perdure: IndexError: pop from empty list"
    assert CommandRefused("s-1", reason) in await world.events()
    assert (await world.state()).status == "succeeded"


class SlowPost:
    """A post whose reports go out only once it is open."""

    def __init__(self) -> None:
        self.open = asyncio.Event()
        self.tried = asyncio.Event()
        self.reports: list[str] = []

    async def report(self, parent: Parent, report: ReportChild | ReportCompensation) -> None:
        self.tried.set()
        await self.open.wait()
        assert isinstance(report, ReportChild)
        self.reports.append(f"{parent.execution}: {report.output}")

    async def start_child(self, execution: str, state: Started, plan: Plan, request: ChildRequested) -> None:
        raise AssertionError("it has no children")

    async def close_child(self, state: Started, request: ChildRequested) -> None:
        raise AssertionError("it has no children")

    async def compensate_child(self, state: Started, command: CompensateExecution) -> None:
        raise AssertionError("it has no children")

    async def close(self) -> None:
        """There is nothing to close."""


async def test_what_is_owed_after_the_last_entry_is_sent_by_whoever_has_the_execution_next() -> None:
    world, post = World(DIAMOND), SlowPost()
    around = replace(world.around(), post=post)
    child = msgspec.structs.replace(start(DIAMOND), parent=Parent("the parent", "node", 1, "0"))
    first = asyncio.create_task(Execution(EXECUTION, around).run(child))
    await post.tried.wait()
    assert (await world.state()).status == "succeeded"
    assert not first.done()  # and so its lease is kept
    first.cancel()
    await asyncio.wait([first])
    assert post.reports == []
    post.open.set()
    await Execution(EXECUTION, replace(around, epoch=2)).run(child)
    assert post.reports == ["the parent: {'join': 'join'}"]
    assert world.calls == dict.fromkeys(DIAMOND.main.nodes, 1)


WAITS = plan_of({"a": {"wait": {"signal": "one"}}, "b": {"needs": "a", "wait": {"signal": "two"}}})


async def test_an_execution_that_is_kept_at_hand_is_told_without_being_loaded_again() -> None:
    world = World(WAITS)
    actor = Execution(EXECUTION, replace(world.around(), quiet=lambda: 600.0))
    running = asyncio.create_task(actor.run(start(WAITS)))
    for name in ("one", "two"):
        assert await actor.tell(SignalExecution(name, EXECUTION, name, 1))
    assert await asyncio.wait_for(running, 10) is True  # it has ended, and is not kept
    assert (await world.state()).status == "succeeded"


async def test_an_execution_that_is_kept_at_hand_leaves_when_it_is_hurried() -> None:
    world, seconds = World(WAITS), 600.0
    actor = Execution(EXECUTION, replace(world.around(), quiet=lambda: seconds))
    running = asyncio.create_task(actor.run(start(WAITS)))
    async for _ in world.log.follow(EXECUTION):
        break
    assert not running.done()
    seconds = 0.0
    actor.hurry()
    assert await asyncio.wait_for(running, 10) is True
    assert await actor.tell(SignalExecution("one", EXECUTION, "one", 1)) is False


async def test_an_execution_that_leaves_records_what_runs_and_begins_nothing_more() -> None:
    gate = asyncio.Event()

    async def tool(work: Work) -> str:
        await gate.wait()
        return work.node.name

    world = World(DIAMOND, tool)
    actor = world.actor()
    running = asyncio.create_task(actor.run(start(DIAMOND)))
    async for _ in world.log.follow(EXECUTION):
        break
    while not world.calls:
        await asyncio.sleep(0)
    actor.leave()
    gate.set()
    assert await asyncio.wait_for(running, 10) is True
    assert world.calls == {"top": 1}
    assert [event for event in await world.events() if isinstance(event, NodeSucceeded)] == [
        NodeSucceeded("top", 1, "top")
    ]
    await world.actor(epoch=2).run(start(DIAMOND))
    assert world.calls == dict.fromkeys(DIAMOND.main.nodes, 1)
    assert not [event for event in await world.events() if isinstance(event, NodeResumed)]  # nothing was lost


async def test_an_execution_that_never_began_says_so() -> None:
    actor = World(DIAMOND).actor()
    running = asyncio.create_task(actor.run(SignalExecution("s", EXECUTION, "go")))
    told = asyncio.create_task(actor.tell(start(DIAMOND)))  # comes while it looks
    assert await running is False
    assert await told is False  # and is not lost: whoever embodies it next is told


async def test_nothing_is_appended_and_nothing_begun_by_who_is_no_owner_any_more() -> None:
    world = World(DIAMOND)

    async def fence() -> None:
        raise Deposed("a newer one has it")

    with pytest.raises(Deposed):
        await Execution(EXECUTION, replace(world.around(), fence=fence)).run(start(DIAMOND))
    assert await world.events() == []
    assert world.calls == {}


async def test_a_command_that_comes_again_beside_others_counts_once_and_is_named_by_one_entry() -> None:
    plan = plan_of({"a": {"wait": {"signal": "go"}}, "b": {"wait": {"signal": "go"}, "needs": ["a"]}})
    world = World(plan)
    first, second = SignalExecution("s-1", EXECUTION, "go", 1), SignalExecution("s-2", EXECUTION, "go", 2)
    await world.actor().run(start(plan), first, first)
    assert (await world.state()).status == "running"
    await world.actor().run(first, second)
    state = await world.state()
    assert (state.status, state.nodes["a"].output, state.nodes["b"].output) == ("succeeded", 1, 2)
    causes = [cause async for recorded in world.log.read(EXECUTION) for cause in recorded.entry.causes]
    assert causes == ["start-1", "s-1", "s-2"]


class Rivals(World):
    """A world in which two workflows are known, and an execution of the first one has begun."""

    first = plan_of({"a": {"tool": "t"}, "w": {"wait": {"signal": "go"}, "needs": ["a"]}})
    other = plan_of({"x": {"tool": "t"}, "y": {"tool": "t", "needs": ["x"]}})

    async def plan_for(self, digest: str) -> Plan:
        return {plan.digest: plan for plan in (self.first, self.other)}[digest]

    def taken_for_new(self) -> Execution:
        return Execution(EXECUTION, self.around(epoch=2, near=0), new=True)


async def test_a_start_that_is_taken_for_new_is_refused_where_the_execution_waits_as_another_workflow() -> None:
    world = Rivals(Rivals.first)
    await world.actor(near=0).run(start(Rivals.first))
    before = await world.events()
    await world.taken_for_new().run(start(Rivals.other, command="start-2"))
    reason = "the execution id is taken by another definition or input"
    assert (await world.events())[len(before) :] == [CommandRefused("start-2", reason)]
    assert world.calls == {"a": 1}


async def test_what_was_under_way_goes_on_as_its_own_workflow_where_a_start_of_another_is_taken_for_new() -> None:
    begun, go_on = asyncio.Event(), asyncio.Event()

    async def slow(work: Work) -> str:
        begun.set()
        await go_on.wait()
        return work.node.name

    world = Rivals(Rivals.first, slow)
    lost = asyncio.create_task(world.actor(near=0).run(start(Rivals.first)))
    await begun.wait()
    lost.cancel()
    await asyncio.gather(lost, return_exceptions=True)
    go_on.set()
    await world.taken_for_new().run(start(Rivals.other, command="start-2"))
    state = await world.state()
    assert (state.nodes["a"].output, state.nodes["w"].status, set(state.nodes)) == ("a", "waiting", {"a", "w"})
    assert [event for event in await world.events() if isinstance(event, NodeResumed)] == [NodeResumed("a", 1)]


async def test_an_execution_that_is_taken_for_new_again_and_again_is_recovered_once() -> None:
    world = Rivals(Rivals.first)
    lost = asyncio.create_task(world.actor(near=0).run(start(Rivals.first)))
    while not await world.log.last(EXECUTION):
        await asyncio.sleep(0)
    lost.cancel()
    await asyncio.gather(lost, return_exceptions=True)

    class Late(MemoryLog):
        """Reads as from a replica that is behind: the first two times it shows nothing."""

        reads = 0

        async def append(self, execution: str, entry: Entry, expected: int) -> Recorded:
            return await world.log.append(execution, entry, expected)

        async def read(self, execution: str, after: int = 0, limit: int | None = None) -> AsyncIterator[Recorded]:
            self.reads += 1
            if self.reads > 2:
                async for recorded in world.log.read(execution, after, limit):
                    yield recorded

    around = replace(world.around(epoch=2, near=0), log=Late())
    await Execution(EXECUTION, around, new=True).run(start(Rivals.first))
    assert [event for event in await world.events() if isinstance(event, NodeResumed)] == [NodeResumed("a", 1)]
