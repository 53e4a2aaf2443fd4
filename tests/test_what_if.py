"""An execution under another definition: what is answered from the record, and what is really called."""

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
    ReportChild,
    ReportFailure,
    ReportSuccess,
    SignalExecution,
)
from perdure.actors.outside import Outside
from perdure.actors.secret_values import Secrets
from perdure.actors.work import Work
from perdure.cluster.record import results_of
from perdure.cluster.what_if import Runner, WhatIf
from perdure.definitions.loading import load
from perdure.definitions.plan import Plan
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
    what_if = WhatIf(plan, results_of({before.digest: before}, events), runner, NOW)
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
