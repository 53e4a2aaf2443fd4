"""How executions are let in and what their nodes claim, as decisions: given these events, when this, then those."""

from typing import Any

import pytest
from scenario import EXECUTION, NOW, Given, due, failure, output, plan_of, running, start

from perdure.actors.claims import spent_of
from perdure.actors.draft import Draft
from perdure.actors.inputs import (
    AdmitExecution,
    CancelExecution,
    Continue,
    PauseExecution,
    Recover,
    RefuseExecution,
    ReportFailure,
    ReportSuccess,
    ResumeExecution,
    RetryExecution,
    SignalExecution,
    SkipNode,
    TerminateExecution,
)
from perdure.definitions.loading import load
from perdure.errors import DefinitionError
from perdure.events.vocabulary import (
    CommandRefused,
    Error,
    ExecutionAdmitted,
    ExecutionCancelled,
    ExecutionFailed,
    ExecutionQueued,
    ExecutionRetried,
    ExecutionStarted,
    ExecutionSucceeded,
    LimitClaim,
    NodeScheduled,
    SignalReceived,
)
from perdure.playing import play

TOOL = {"a": {"tool": "t:f"}}
FULL = Error("QuotaExceeded", "there are 5 already")


def admit(limit: str, ticket: str = EXECUTION) -> AdmitExecution:
    return AdmitExecution(f"{limit}/{ticket}", EXECUTION, limit, ticket)


def refuse(limit: str = "quota:flow", ticket: str = EXECUTION) -> RefuseExecution:
    return RefuseExecution(f"{limit}/{ticket}", EXECUTION, limit, ticket, FULL)


def queued(value: object = None, nodes: dict[str, Any] = TOOL, **parts: Any) -> Given:
    return running(nodes, value, **{"concurrency": 1, **parts})


def test_nothing_begins_before_the_workflow_has_room() -> None:
    given = queued(timeout="1h").then_types(ExecutionStarted, ExecutionQueued)
    assert given.now.status == "queued"
    assert not given.now.timers  # its time counts from when it is let in
    given.when(admit("workflow:flow")).when(ReportSuccess("a", 1, 1))
    assert output(given) == {"a": 1}


def test_the_quota_comes_before_the_concurrency_and_both_are_recorded_with_the_values_of_their_keys() -> None:
    given = queued({"tenant": "ann", "vip": True}, concurrency={"limit": 2, "key": "input.vip"},
                   quota={"active": 5, "key": "${{ input.tenant }}", "name": "tenants"})  # fmt: skip
    given.when(admit("quota:tenants"))
    assert [each for each in given.events if isinstance(each, ExecutionQueued)] == [
        ExecutionQueued(LimitClaim("quota:tenants", NOW, "ann")),
        ExecutionQueued(LimitClaim("workflow:flow", NOW, "true")),
    ]
    given.when(admit("workflow:flow"))
    assert isinstance(given.events[-1], NodeScheduled)
    assert set(given.now.slots) == {"0/quota:tenants", "0/workflow:flow"}


def test_the_word_of_a_limit_counts_once_and_only_while_it_is_asked() -> None:
    given = queued(quota={"active": 1})
    given.when(admit("workflow:flow"), admit("quota:flow", "another")).then_types(ExecutionStarted, ExecutionQueued)
    given.when(admit("quota:flow"), admit("quota:flow"), refuse())
    assert given.now.queued is not None
    assert given.now.queued.limit == "workflow:flow"


def test_an_execution_that_is_refused_has_failed_and_nothing_of_it_ran() -> None:
    given = running(TOOL, quota={"active": 1}, on_failure={"f": {"tool": "t:g"}}, **{"finally": {"e": {"tool": "t:h"}}})
    given.when(refuse()).then_types(ExecutionStarted, ExecutionQueued, ExecutionFailed)
    assert failure(given) == FULL


def test_to_start_a_refused_one_again_is_to_ask_again() -> None:
    given = (
        running(TOOL, quota={"active": 1}).when(refuse()).when(start(given_plan := plan_of(TOOL, quota={"active": 1})))
    )
    assert given_plan.gates
    assert [type(each) for each in given.events[-2:]] == [ExecutionRetried, ExecutionQueued]
    given.when(admit("quota:flow")).then_types(
        ExecutionStarted, ExecutionQueued, ExecutionFailed, ExecutionRetried, ExecutionQueued
    )
    given.when(admit("quota:flow", f"{EXECUTION}+1")).when(ReportSuccess("a", 1, 1))
    assert output(given) == {"a": 1}
    given.when(start(given_plan, command="third"))
    assert isinstance(given.events[-1], ExecutionSucceeded)


def test_a_retry_of_a_failed_one_asks_again_and_what_succeeded_stays() -> None:
    given = queued(nodes={"a": {"tool": "t:f"}, "b": {"tool": "t:g", "needs": ["a"]}}).when(admit("workflow:flow"))
    given.when(ReportSuccess("a", 1, 1), ReportFailure("b", 1, Error("Boom", "x")))
    given.when(RetryExecution("again", EXECUTION))
    assert given.now.status == "queued"
    assert set(given.now.slots) == {"0/workflow:flow", "1/workflow:flow"}
    given.when(admit("workflow:flow", f"{EXECUTION}+1"), ReportSuccess("b", 1, 2))
    assert output(given) == {"b": 2}


def test_what_waits_is_cancelled_at_once_and_its_end_runs_nothing() -> None:
    given = queued(on_cancel={"c": {"tool": "t:c"}}, **{"finally": {"e": {"tool": "t:h"}}})
    given.when(CancelExecution("c", EXECUTION, "no more"))
    assert given.events[-1] == ExecutionCancelled("no more")
    ended = queued().when(TerminateExecution("t", EXECUTION))
    assert ended.now.status == "terminated"


def test_recovery_pauses_and_hands_do_not_let_it_in() -> None:
    given = queued().when(Recover(), Continue(), PauseExecution("p", EXECUTION), ResumeExecution("r", EXECUTION))
    given.when(SkipNode("s", EXECUTION, "a"))
    assert isinstance(given.events[-1], CommandRefused)
    assert "waits for limit 'workflow:flow'" in given.events[-1].reason
    assert given.now.nodes == {}


def test_who_is_let_in_during_a_pause_begins_at_the_resume() -> None:
    given = queued().when(PauseExecution("p", EXECUTION), admit("workflow:flow"))
    assert given.now.nodes == {}
    given.when(ResumeExecution("r", EXECUTION))
    assert set(given.now.running) == {"a"}


def test_a_signal_that_comes_meanwhile_is_kept_for_the_chart_that_begins_later() -> None:
    chart = {"initial": "off", "states": {"off": {"on": {"go": "done"}}, "done": {"type": "final"}}}
    plan = load({"name": "flow", "kind": "statechart", "concurrency": 1, **chart}).plan
    given = Given(plan).when(start(plan)).when(Recover()).when(SignalExecution("s", EXECUTION, "go"))
    assert isinstance(given.events[-1], SignalReceived)
    given.when(admit("workflow:flow"))
    assert given.now.status == "succeeded"


def test_a_call_records_what_it_claims_sorted_by_name_so_that_no_two_wait_for_each_other() -> None:
    limits = {"gpu": {"concurrency": 1, "key": "input.site"}, "api": {"rate": 10, "share": "input.tenant"}}
    nodes = {"a": {"set": 7}, "b": {"tool": "t:f", "limit": [
        {"name": "gpu"}, {"name": "api", "cost": "nodes.a.output * 2"},
    ]}}  # fmt: skip
    given = running(nodes, {"site": 3, "tenant": "ann"}, limits=limits)
    (scheduled,) = [each for each in given.events if isinstance(each, NodeScheduled)]
    assert scheduled.limits == [LimitClaim("api", NOW, "", "ann", 14.0), LimitClaim("gpu", NOW, "3")]


def test_another_try_claims_the_same_and_what_its_agent_or_tool_takes_part_in_counts_too() -> None:
    limits = {"gpu": {"concurrency": 1, "key": "input"}}
    tools = [{"name": "f", "call": "t:f", "limit": "gpu"}]
    given = running({"a": {"tool": "f", "retry": {"attempts": 2}}}, "x", limits=limits, tools=tools)
    given.when(ReportFailure("a", 1, Error("Boom", "x")))
    given.when(due(given, "retry/a"))
    first, second = [each.limits for each in given.events if isinstance(each, NodeScheduled)]
    assert first == second == [LimitClaim("gpu", NOW, "x")]


def test_a_key_of_a_single_call_in_a_foreach_may_read_the_item() -> None:
    nodes = {
        "a": {"foreach": {"items": "input"}, "tool": "t:f", "limit": {"name": "gpu", "key": "item"}, "priority": 7}
    }
    given = running(nodes, ["x", "y"], limits={"gpu": {"concurrency": 1}})
    claims = [each.limits for each in given.events if isinstance(each, NodeScheduled)]
    assert claims == [[LimitClaim("gpu", NOW, "x")], [LimitClaim("gpu", NOW, "y")]]
    assert given.plan.node("a[0]/do").model.priority == 7


def test_each_question_of_an_agent_that_takes_turns_is_under_its_limits_and_those_of_its_node() -> None:
    parts = {
        "limits": {"site": {"concurrency": 2, "key": "input"}, "tokens": {"rate": 9}, "mail": {"concurrency": 1}},
        "agents": {
            "desk": {"model": "m", "instructions": "x", "limit": {"name": "tokens", "cost": 4, "spent": "usage.output"},
                     "tools": [{"tool": "t:send", "limit": "mail"}]},
        },
    }  # fmt: skip
    given = running({"a": {"agent": "desk", "limit": "site", "priority": 8}}, "bonn", **parts)
    (scheduled,) = [each for each in given.events if isinstance(each, NodeScheduled)]
    assert scheduled.limits == [LimitClaim("site", NOW, "bonn"), LimitClaim("tokens", NOW, cost=4.0)]
    planned = given.plan.node(scheduled.node)
    assert planned.model.priority == 8
    assert [use.limit.group for use in given.plan.uses_of(given.plan.node("a").bodies["do"].nodes["t_send"])] == [
        "mail"
    ]
    draft = Draft(given.plan, EXECUTION, given.now, NOW)
    assert spent_of(draft, scheduled.node, {"text": "hi"}, {"input": 90, "output": 7}) == {"tokens": 7.0}


@pytest.mark.parametrize("key", ["input", "input.gone"])
def test_a_key_that_is_no_text_fails_the_node_or_the_execution(key: str) -> None:
    given = running({"a": {"tool": "t:f", "limit": "gpu"}}, {}, limits={"gpu": {"concurrency": 1, "key": key}})
    assert failure(given).type == "ExpressionError"
    assert failure(running(TOOL, {}, concurrency={"limit": 1, "key": key})).type == "ExpressionError"


def test_a_played_workflow_is_let_in_at_once() -> None:
    played = play({"name": "flow", "nodes": {"a": {"set": 1}}, "concurrency": 1, "quota": {"active": 1}})
    assert [type(each.event) for each in played.events][:5] == [
        ExecutionStarted, ExecutionQueued, ExecutionAdmitted, ExecutionQueued, ExecutionAdmitted,
    ]  # fmt: skip
    assert played.status == "succeeded"


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        ({"nodes": {"a": {"set": 1, "limit": "gpu"}}}, "'limit' is for what an agent or a tool does.*take it out"),
        ({"nodes": {"a": {"set": 1, "priority": 3}}}, "'priority' is for what an agent or a tool does"),
        ({"nodes": {"a": {"workflow": "w", "limit": "gpu"}}}, "limit the workflow itself by its 'concurrency'"),
        ({"nodes": {"a": {"foreach": {"items": "input"}, "do": TOOL, "limit": "gpu"}}}, "set it on the nodes under"),
        ({"nodes": {"a": {"tool": "t:f", "limit": "gpv"}}}, "no limit 'gpv'; did you mean 'gpu'"),
        ({"nodes": {"a": {"tool": "t:f", "limit": [{"name": "gpu"}, {"name": "gpu"}]}}}, "stands here 2 times"),
        ({"nodes": {"a": {"tool": "t:f", "limit": {"name": "gpu", "cost": -1}}}}, "less than nothing"),
        ({"limits": {"gpu": {"key": "input"}}}, "'of_cluster: true'"),
        ({"limits": {"gpu": {"of_cluster": True, "rate": 3}}}, "take 'rate' out"),
        ({"limits": {"gpu": {"rate": 1, "at_limit": "cancel_older"}}}, "add 'concurrency'"),
        ({"limits": {"gpu": {"concurrency": 1, "burst": 2}}}, "no 'rate'"),
        ({"limits": {"gpu": {"concurrency": 1, "weights": {"a": 2}}}}, "weights are of the values of 'share'"),
        ({"limits": {"gpu": {"concurrency": 1, "key": "nodes.a.output"}}}, "nodes"),
        ({"quota": {"key": "input"}}, "the quota limits nothing"),
        ({"agents": {"w": {"model": "m", "instructions": "x", "limit": "gone"}}}, "no limit 'gone'"),
    ],
)  # fmt: skip
def test_what_cannot_be_meant_is_refused_with_the_way_out(parts: dict[str, object], message: str) -> None:
    with pytest.raises(DefinitionError, match=message):
        load({"name": "flow", "nodes": TOOL, "limits": {"gpu": {"concurrency": 1}}, **parts})
