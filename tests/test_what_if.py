"""An execution under another definition: what is answered from the record, and what is really called."""

from datetime import timedelta
from typing import Any

import pytest
from scenario import EXECUTION, NOW, start

from perdure.actors.decisions import decide
from perdure.actors.evolve import fold
from perdure.actors.inputs import (
    AdmitExecution,
    DecideApproval,
    FireTimer,
    Input,
    PauseExecution,
    ReportChild,
    ReportFailure,
    ReportSuccess,
    ResumeExecution,
    SignalExecution,
)
from perdure.actors.outside import Outside
from perdure.actors.secret_values import Secrets
from perdure.actors.work import Work
from perdure.cluster.record import Record
from perdure.cluster.what_if import Runner, WhatIf
from perdure.definitions.loading import load
from perdure.definitions.plan import Plan
from perdure.events.entry import Entry
from perdure.events.vocabulary import Error, Event, ExecutionSucceeded
from perdure.scripts import as_reply
from perdure.testing import calls


def plan_of(nodes: dict[str, Any], **parts: Any) -> Plan:
    return load({"name": "flow", "nodes": nodes, **parts}).plan


def recorded(plan: Plan, *inputs: Input, value: Any = None) -> list[Event]:
    events: list[Event] = []
    for given in (start(plan, value), *inputs):
        events += decide(plan, EXECUTION, fold(events), given, NOW)[0]
    return events


class Calls:
    """Really makes calls: each gives its node's name."""

    def __init__(self) -> None:
        self.made: list[tuple[str, Any]] = []
        self.runner = Runner(self, Secrets(), Outside())

    async def __call__(self, work: Work) -> Any:
        self.made.append((work.path, work.input))
        return as_reply("new") if work.node.calls == "model" else "new"


async def tried(
    before: Plan, events: list[Event], plan: Plan, runner: Runner | None, value: Any = None
) -> tuple[WhatIf, Any]:
    what_if = WhatIf(plan, Record({before.digest: before}, [Entry("e", 1, "", NOW, events)]), runner, NOW)
    return what_if, await what_if.run(start(plan, value))


def done(path: str, value: Any = None) -> ReportSuccess:
    return ReportSuccess(path, 1, value)


async def test_a_node_that_is_made_and_given_the_same_is_answered_also_behind_one_that_changed() -> None:
    before = plan_of({"a": {"tool": "a"}, "b": {"tool": "b", "needs": ["a"]}, "c": {"tool": "c", "needs": ["b"]}})
    after = plan_of({"a": {"tool": "other"}, "b": {"tool": "b", "needs": ["a"]}, "c": {"tool": "c", "needs": ["b"]}})
    made = Calls()
    what_if, state = await tried(before, recorded(before, done("a"), done("b", 1), done("c", 2)), after, made.runner)
    assert (what_if.ran, what_if.reused) == (["a"], ["b", "c"])
    assert state.outcome == ExecutionSucceeded({"c": 2})


async def test_a_node_that_is_given_something_else_is_called_with_that() -> None:
    nodes = {"a": {"tool": "a"}, "b": {"tool": "b", "with": {"x": "${{ nodes.a.output }}"}}}
    before, after = plan_of(nodes), plan_of({**nodes, "a": {"tool": "a", "with": {"y": 1}}})
    made = Calls()
    await tried(before, recorded(before, done("a", 1), done("b", 2)), after, made.runner)
    assert made.made == [("a", {"y": 1}), ("b", {"x": "new"})]


async def test_failed_attempts_and_what_was_made_of_results_are_as_they_were() -> None:
    node = {"tool": "a", "retry": {"attempts": 3, "delay": "1h"}, "output": "${{ output.x }}"}
    plan = plan_of({"a": node})
    events = recorded(plan, ReportFailure("a", 1, Error("Boom", "no")))
    state = fold(events)
    (due,) = state.timers.values()  # type: ignore[union-attr]
    events += decide(plan, EXECUTION, state, FireTimer("t", EXECUTION, "retry/a", due), due)[0]
    events += decide(plan, EXECUTION, fold(events), ReportSuccess("a", 2, {"x": 7}), due)[0]
    what_if, after = await tried(plan, events, plan, None)
    assert what_if.reused == ["a", "a"]
    assert after.outcome == ExecutionSucceeded({"a": 7})
    assert what_if.now > NOW  # virtual: nobody waited for the next try


async def test_signals_approvals_and_children_are_answered_as_they_were() -> None:
    plan = plan_of({
        "ok": {"approval": {"title": "Well?"}}, "go": {"wait": {"signal": "go"}, "needs": ["ok"]},
        "child": {"workflow": "w", "needs": ["go"]},
    })  # fmt: skip
    events = recorded(
        plan, DecideApproval("d", EXECUTION, "ok", approved=True, by="ann"), SignalExecution("s", EXECUTION, "go", 7),
        ReportChild("r", EXECUTION, f"{EXECUTION}.child", 8),
    )  # fmt: skip
    what_if, state = await tried(plan, events, plan, None)
    assert what_if.reused == ["ok", "go", "child"]
    assert state.nodes["ok"].output["by"] == "ann"
    assert state.outcome == ExecutionSucceeded({"child": 8})


async def test_a_rejection_is_a_rejection_again() -> None:
    plan = plan_of({"ok": {"approval": {"title": "Well?"}}})
    events = recorded(plan, DecideApproval("d", EXECUTION, "ok", approved=False))
    _, state = await tried(plan, events, plan, None)
    assert state.outcome.error.type == "Rejected"


async def test_an_approval_that_nobody_was_asked_for_leaves_it_open() -> None:
    before, after = plan_of({"a": {"tool": "a"}}), plan_of({"a": {"tool": "a"}, "ok": {"approval": {"title": "Well?"}}})
    what_if, state = await tried(before, recorded(before, done("a")), after, None)
    assert state.outcome is None
    assert what_if.left == ["ok"]


async def test_items_of_a_foreach_are_answered_one_by_one() -> None:
    nodes = {"all": {"foreach": {"items": "input", "as": "item"}, "do": {"one": {"tool": "t", "with": "${{ item }}"}}}}
    nodes["all"]["do"]["one"]["with"] = {"x": "${{ item }}"}  # type: ignore[index]
    plan = plan_of(nodes)
    events = recorded(plan, done("all[0]/one", 1), done("all[1]/one", 2), value=[1, 2])
    made = Calls()
    what_if, _ = await tried(plan, events, plan, made.runner, [1, 3])
    assert (what_if.reused, what_if.ran) == (["all[0]/one"], ["all[1]/one"])


async def test_an_agents_turns_are_answered_until_the_conversation_is_another_one() -> None:
    def plan(instructions: str) -> Plan:
        agent = {"model": "m", "instructions": instructions, "tools": ["look"]}
        return plan_of({"n": {"agent": "a", "with": {"message": "hi"}}}, agents={"a": agent})

    before = plan("Help.")
    first = done("n[0]/model", as_reply(calls(look={"x": 1})))
    events = recorded(before, first, done("n[0]/look", 5), done("n[1]/model", as_reply("Done.")))
    what_if, state = await tried(before, events, before, None)
    assert what_if.reused == ["n[0]/model", "n[0]/look", "n[1]/model"]
    assert state.outcome == ExecutionSucceeded({"n": "Done."})
    made = Calls()
    what_if, state = await tried(before, events, plan("Help them."), made.runner)
    assert (what_if.reused, what_if.ran) == ([], ["n[0]/model"])
    assert state.outcome == ExecutionSucceeded({"n": "new"})


async def test_a_reply_that_was_mended_and_what_mended_it_are_answered_from_the_record() -> None:
    def plan(**schema: Any) -> Plan:
        agent = {"model": "m", "instructions": "Count.", "output": {"type": "object", "required": ["n"], **schema}}
        return plan_of({"n": {"agent": "a", "with": {"message": "hi"}}}, agents={"a": agent})

    before = plan()
    events = recorded(before, done("n[0]/model", as_reply("many")), done("n[1]/model", as_reply({"n": 1})))
    what_if, state = await tried(before, events, before, None)
    assert what_if.reused == ["n[0]/model", "n[1]/model"]
    assert state.outcome == ExecutionSucceeded({"n": {"n": 1}})
    made = Calls()
    what_if, _ = await tried(before, events, plan(maxProperties=1), made.runner)
    assert what_if.reused == [], "of an agent that is asked for something else no reply counts"


async def test_nothing_is_undone_or_sent_for_a_trial() -> None:
    before = plan_of({"a": {"tool": "a", "compensate": {"tool": "u"}}, "b": {"set": 1, "needs": ["a"]}})
    after = plan_of({"a": {"tool": "a", "compensate": {"tool": "u"}}, "b": {"fail": {"message": "no"}, "needs": ["a"]}})
    made = Calls()
    _, state = await tried(before, recorded(before, done("a")), after, made.runner)
    assert state.status == "failed"
    assert made.made == []


async def test_limits_do_not_hold_a_trial_up() -> None:
    plan = plan_of({"a": {"tool": "a"}}, concurrency={"limit": 1})
    queued = fold(recorded(plan)).queued  # type: ignore[union-attr]
    assert queued is not None
    events = recorded(plan, AdmitExecution("x", EXECUTION, queued.limit, EXECUTION), done("a", 1))
    _, state = await tried(plan, events, plan, None)
    assert state.outcome == ExecutionSucceeded({"a": 1})


@pytest.mark.parametrize("raises", [ValueError("no"), TypeError("no")])
async def test_what_a_real_call_raises_is_its_failure(raises: Exception) -> None:
    async def work(_: Work) -> Any:
        raise raises

    before, after = plan_of({"a": {"set": 1}}), plan_of({"a": {"tool": "a"}})
    _, state = await tried(before, recorded(before), after, Runner(work, Secrets(), Outside()))
    assert state.outcome.error.type == type(raises).__name__


def moments(plan: Plan, *inputs: tuple[float, Input], value: Any = None) -> list[Entry]:
    """Return what is recorded when inputs come so many seconds after the start."""
    entries, events = list[Entry](), list[Event]()
    for seconds, given in ((0.0, start(plan, value)), *inputs):
        at = NOW + timedelta(seconds=seconds)
        entries.append(
            Entry(f"e{len(entries)}", len(entries) + 1, "", at, decide(plan, EXECUTION, fold(events), given, at)[0])
        )
        events += entries[-1].events
    return entries


async def again(
    plan: Plan, past: list[Entry], changed: Plan | None = None, runner: Runner | None = None
) -> tuple[WhatIf, Any]:
    changed = changed or plan
    what_if = WhatIf(changed, Record({plan.digest: plan}, past), runner, NOW)
    return what_if, await what_if.run(start(changed))


def told(event: str, data: Any = None) -> SignalExecution:
    return SignalExecution(f"told-{event}", EXECUTION, event, data)


def chart(delay: str = "2h", output: str = "${{ context.opened }}") -> Plan:
    return load({
        "name": "door", "kind": "statechart", "initial": "closed", "context": {"opened": 0}, "output": output,
        "states": {
            "closed": {"on": {"open": {"target": "opened", "do": [{"set": {"opened": "${{ context.opened + 1 }}"}}]}}},
            "opened": {"on": {"close": "closed", "lock": "done"}, "after": {delay: "left"}},
            "done": {"type": "final"}, "left": {"type": "final"},
        },
    }).plan  # fmt: skip


async def test_a_statechart_is_told_again_what_it_was_told_when_it_was() -> None:
    plan = chart()
    past = moments(plan, (1, told("open")), (2, told("open")), (3, told("close")), (4, told("open")), (5, told("lock")))
    _, state = await again(plan, past)
    assert state.outcome == ExecutionSucceeded(2)
    _, state = await again(plan, past, chart(output="${{ context.opened * 10 }}"))
    assert state.outcome == ExecutionSucceeded(20)


async def test_a_delay_that_is_shorter_now_is_over_before_what_came_later() -> None:
    past = moments(chart(), (1, told("open")), (60, told("close")), (61, told("open")), (62, told("lock")))
    _, state = await again(chart(), past, chart("30s"))
    assert state.main.chart.configuration == ("left",)
    assert state.outcome == ExecutionSucceeded(1)


async def test_what_a_statechart_was_told_during_a_pause_is_told_once() -> None:
    plan = chart()
    pause, resume = PauseExecution("p", EXECUTION), ResumeExecution("r", EXECUTION)
    past = moments(
        plan, (1, pause), (2, told("open")), (3, told("close")), (4, resume), (5, told("open")), (6, told("lock"))
    )
    _, state = await again(plan, past)
    assert state.outcome == ExecutionSucceeded(2)


async def test_a_signal_that_came_before_anybody_waited_for_it_is_answered_too() -> None:
    plan = plan_of({"a": {"tool": "a"}, "go": {"wait": {"signal": "go"}, "needs": ["a"]}})
    past = moments(plan, (1, told("go", 7)), (2, done("a", 1)))
    what_if, state = await again(plan, past)
    assert what_if.reused == ["a", "go"]
    assert state.outcome == ExecutionSucceeded({"go": 7})


async def test_a_race_has_the_winner_that_it_had_and_the_loser_is_not_called() -> None:
    race = {"race": {"parallel": {"join": "any", "branches": {"one": {"do": {"x": {"tool": "a"}}},
                                                              "two": {"do": {"y": {"tool": "b"}}}}}}}  # fmt: skip
    plan, made = plan_of(race), Calls()
    past = moments(plan, (3, ReportSuccess("race/two/y", 1, "fast")))
    what_if, state = await again(plan, past, runner=made.runner)
    assert made.made == []
    assert what_if.reused == ["race/two/y"]
    assert state.status == "succeeded"


async def test_a_call_that_was_given_up_is_made_where_it_is_wanted_now() -> None:
    def plan(join: str) -> Plan:
        branches = {"one": {"do": {"x": {"tool": "a"}}}, "two": {"do": {"y": {"tool": "b"}}}}
        return plan_of({"race": {"parallel": {"join": join, "branches": branches}}})

    made = Calls()
    past = moments(plan("any"), (3, ReportSuccess("race/two/y", 1, "fast")))
    what_if, state = await again(plan("any"), past, plan("all"), made.runner)
    assert [path for path, _ in made.made] == ["race/one/x"]
    assert (what_if.reused, state.status) == (["race/two/y"], "succeeded")


async def test_an_unchanged_execution_sees_the_times_that_it_saw() -> None:
    plan = plan_of({"a": {"tool": "a"}, "b": {"set": "${{ now() }}", "needs": ["a"]}})
    past = moments(plan, (90, done("a", 1)))
    _, state = await again(plan, past)
    assert state.outcome == past[-1].events[-1]


async def test_a_dry_run_lets_nothing_time_out_behind_a_call_that_it_does_not_make() -> None:
    def plan(tool: str) -> Plan:
        return plan_of({"a": {"tool": tool, "deadline": "10s"}}, timeout="1m")

    what_if, state = await again(plan("a"), moments(plan("a"), (1, done("a", 1))), plan("b"))
    assert (what_if.ran, state.outcome) == (["a"], None)


async def test_what_was_begun_again_from_the_start_is_answered_each_time_as_it_was_then() -> None:
    plan = plan_of({
        "all": {"foreach": {"items": "[1]", "as": "i"}, "do": {"x": {"tool": "t"}},
                "retry": {"attempts": 2, "delay": "10s", "jitter": False}},
    })  # fmt: skip
    due = NOW + timedelta(seconds=11)
    past = moments(
        plan,
        (1, ReportFailure("all[0]/x", 1, Error("Boom", "no"))),
        (11, FireTimer.of(EXECUTION, "retry/all", due)),
        (12, ReportSuccess("all[0]/x", 1, "yes")),
    )
    what_if, state = await again(plan, past)
    assert what_if.reused == ["all[0]/x", "all[0]/x"]
    assert (state.outcome, what_if.now) == (past[-1].events[-1], NOW + timedelta(seconds=12))
