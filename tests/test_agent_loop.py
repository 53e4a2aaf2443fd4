"""Agents that take turns, played on the engine's own decisions: replies, calls, approvals, budgets, hand-overs."""

from typing import Any

import pytest

from perdure.testing import Played, approve, calls, crash, fails, pause, play, reject, resume, takes

LOOK: dict[str, Any] = {"tools": ["look"]}


def agent(**parts: Any) -> dict[str, Any]:
    return {"model": "m", "instructions": "Help.", **parts}


def flow(*, node: dict[str, Any] | None = None, agents: dict[str, Any] | None = None, **of_a: Any) -> dict[str, Any]:
    return {
        "name": "flow",
        "agents": {"a": agent(**of_a), **(agents or {})},
        "nodes": {"n": {"agent": "a", "with": {"message": "hi"}, **(node or {})}},
    }


def said(played: Played, index: int) -> list[tuple[str, str]]:
    return [(each["role"], each["text"]) for each in played.calls[index].input["said"]]


def test_replies_and_calls_are_steps_of_their_own_and_the_model_sees_all_that_was_said() -> None:
    played = play(flow(**LOOK), agents={"a": [calls(look={"x": 1}), "Done."]}, tools={"look": {"found": 1}})
    assert played.output == {"n": "Done."}
    assert [(call.name, call.node) for call in played.calls] == [
        ("a", "n[0]/model"), ("look", "n[0]/look"), ("a", "n[1]/model"),
    ]  # fmt: skip
    assert played.inputs("look") == [{"x": 1}]
    assert said(played, 2) == [("user", "hi"), ("assistant", ""), ("tool", '{"found": 1}')]


def test_calls_of_one_reply_run_side_by_side_and_the_same_tool_twice() -> None:
    both = calls(("look", {"x": 1}), ("look", {"x": 2}))
    played = play(flow(**LOOK), agents={"a": [both, "Done."]}, tools={"look": ["one", "two"]})
    assert [call.node for call in played.calls][1:3] == ["n[0]/look", "n[0]/look~2"]
    assert [text for _, text in said(played, 3)][2:] == ["one", "two"]


def test_a_call_that_needs_approval_waits_for_a_person_who_may_edit_its_arguments() -> None:
    refund: dict[str, Any] = {"tools": [{"tool": "refund", "approve": "args.amount > 100"}]}
    script = [calls(refund={"amount": 20}), calls(refund={"amount": 500}), "Done."]
    told = [approve("n[1]/refund.approve", by="ann", data={"arguments": {"amount": 300}}, at="2d")]
    played = play(flow(**refund), agents={"a": script}, tools={"refund": "ok"}, tell=told)
    assert played.inputs("refund") == [{"amount": 20}, {"amount": 300}]
    assert played.nodes["n[1]/refund.approve"].output["by"] == "ann"
    assert str(played.took).startswith("2 days")
    asked = played.happened("NodeWaiting")[0]
    assert asked.input["details"] == {"tool": "refund", "arguments": {"amount": 500}}
    assert said(played, 4)[-1] == ("tool", 'called, as a person decided, with {"amount": 300}:\nok')


def test_a_refused_call_is_not_made_and_the_model_reads_why() -> None:
    refund: dict[str, Any] = {"tools": [{"tool": "refund", "approve": "always"}]}
    told = [reject("n[0]/refund.approve", by="ann", data={"reason": "too much"})]
    played = play(
        flow(**refund), agents={"a": [calls(refund={"amount": 5}), "I am sorry."]}, tools={"refund": 1}, tell=told
    )
    assert played.output == {"n": "I am sorry."}
    assert said(played, 1)[-1] == ("tool", "this call was refused by ann: too much")
    assert played.inputs("refund") == []


def test_an_approval_that_nobody_gives_in_time_is_a_refusal() -> None:
    refund: dict[str, Any] = {"tools": [{"tool": "refund", "approve": "always", "approve_timeout": "1d"}]}
    played = play(flow(**refund), agents={"a": [calls(refund={}), "No."]}, tools={"refund": 1})
    assert said(played, 1)[-1] == ("tool", "this call was refused by timeout")
    assert str(played.took) == "1 day, 0:00:00"


@pytest.mark.parametrize(
    ("call", "told"),
    [
        (("lok", {}), "error: there is no tool 'lok'; there are: look"),
        (("model", {}), "error: there is no tool 'model'; there are: look"),
        (("look", []), "error: the arguments of 'look' are no JSON object"),
        (("hand_off_to_b", {}), "error: there is no tool 'hand_off_to_b'; there are: look"),
    ],
)
def test_what_cannot_be_called_is_told_to_the_model_and_recorded(call: Any, told: str) -> None:
    played = play(flow(**LOOK), agents={"a": [calls(call), "Oh."]}, tools={"look": 1})
    assert said(played, 1)[-1] == ("tool", told)
    assert next(event.output for event in played.happened("BodySucceeded")) == {"told": {"0": told}}
    assert played.inputs("look") == []


def test_a_tool_that_fails_for_good_is_told_to_the_model_or_fails_the_agent() -> None:
    script: dict[str, Any] = {
        "agents": {"a": [calls(look={}), "Sorry."]},
        "tools": {"look": [fails("Busy"), fails("Gone", "no such")]},
    }
    retried = {"tool": "look", "retry": {"attempts": 3, "not_on": ["Gone"]}}
    played = play(flow(tools=[retried]), **script)
    assert said(played, 3)[-1] == ("tool", "error: Gone: no such")
    assert played.output == {"n": "Sorry."}
    failed = play(flow(tools=[{**retried, "on_error": "fail"}]), **script)
    assert failed.error is not None
    assert (failed.error.type, failed.error.message) == ("Gone", "no such")


def test_a_busy_model_is_asked_again_and_nothing_else_is() -> None:
    script = [calls(look={}), fails("RateLimited", data={"retry_after": 60}), "Done."]
    played = play(
        flow(node={"retry": {"attempts": 3, "on": ["RateLimited"]}}, **LOOK), agents={"a": script}, tools={"look": 1}
    )
    assert played.output == {"n": "Done."}
    assert [call.node for call in played.calls] == ["n[0]/model", "n[0]/look", "n[1]/model", "n[1]/model"]
    assert played.took.total_seconds() == 60


@pytest.mark.parametrize(
    ("budget", "type_"), [({"turns": 3}, "OutOfTurns"), ({"time": "150m"}, "OutOfTime")], ids=["turns", "time"]
)
def test_an_endless_loop_of_calls_ends_in_a_typed_error_with_what_was_used(budget: Any, type_: str) -> None:
    played = play(flow(**LOOK, budget=budget), agents={"a": calls(look={})}, tools={"look": takes_an_hour})
    assert played.error is not None
    assert (played.error.type, played.error.data["turns"]) == (type_, 3)
    assert len(played.happened("NodeSucceeded")) >= 5  # the transcript is in the log


def test_an_agent_without_tools_is_held_to_its_budget_too() -> None:
    output = {"type": "object", "required": ["n"]}
    played = play(flow(output=output, repairs=3, budget={"turns": 2}), agents={"a": "no JSON"})
    assert played.error is not None
    assert (played.error.type, played.error.data["turns"]) == ("OutOfTurns", 2)
    late = play(flow(budget={"time": "1m"}), agents={"a": takes("2m", "Done.")})
    assert late.error is not None
    assert late.error.type == "OutOfTime"


def takes_an_hour() -> Any:
    return takes("1h", 1)


def test_a_reply_that_breaks_the_schema_is_mended_in_a_turn_of_its_own() -> None:
    output = {"type": "object", "required": ["n"], "properties": {"n": {"type": "integer"}}}
    played = play(flow(**LOOK, output=output), agents={"a": [{"n": "x"}, {"n": 1}]}, tools={"look": 1})
    assert played.output == {"n": {"n": 1}}
    assert said(played, 1)[-1][0] == "user"
    assert "reply.n" in said(played, 1)[-1][1]
    failed = play(flow(**LOOK, output=output), agents={"a": "no JSON"}, tools={"look": 1})
    assert failed.error is not None
    assert failed.error.type == "InvalidReply"
    assert len(failed.calls) == 2


def test_a_reply_that_is_too_deep_for_its_schema_is_an_invalid_reply() -> None:
    output = {"type": "object", "properties": {"a": {"$ref": "#"}}}
    deep = '{"a": ' * 400 + "{}" + "}" * 400
    played = play(flow(**LOOK, output=output), agents={"a": deep}, tools={"look": 1})
    assert played.error is not None
    assert (played.error.type, len(played.calls)) == ("InvalidReply", 2)


def test_a_handed_over_conversation_goes_on_with_the_other_agent_and_its_tools() -> None:
    others = {"b": agent(instructions="Bill.", tools=["charge"], handoffs="a")}
    played = play(
        flow(**LOOK, handoffs=["b"], agents=others),
        agents={"a": [calls(hand_off_to_b={})], "b": [calls(charge={"sum": 3}), "Paid."]},
        tools={"look": 1, "charge": "yes"},
    )
    assert played.output == {"n": "Paid."}
    assert [(call.name, call.node) for call in played.calls] == [
        ("a", "n[0]/model"), ("b", "n[1]/model"), ("charge", "n[1]/charge"), ("b", "n[2]/model"),
    ]  # fmt: skip
    assert said(played, 1)[-1] == ("tool", "the conversation is handed over to b")


def test_an_agent_is_a_tool_of_another_one_with_turns_of_its_own() -> None:
    others = {"b": agent(tools=["look"]), "c": agent()}
    played = play(
        flow(tools=[{"agent": "b"}, {"agent": "c", "name": "judge"}], agents=others),
        agents={
            "a": [calls(b={"message": "find"}, judge={"message": "good?"}), "All done."],
            "b": [calls(look={}), "Found."], "c": "Good.",
        },
        tools={"look": "it"},
    )  # fmt: skip
    assert played.output == {"n": "All done."}
    assert {call.node for call in played.calls} == {
        "n[0]/model", "n[0]/b[0]/model", "n[0]/b[0]/look", "n[0]/b[1]/model", "n[0]/judge", "n[1]/model",
    }  # fmt: skip
    assert [text for _, text in said(played, -1)][-2:] == ["Found.", "Good."]


def test_a_helper_that_uses_up_its_budget_is_told_to_the_agent_that_called_it() -> None:
    others = {"b": agent(tools=["look"], budget={"turns": 1})}
    played = play(
        flow(tools=[{"agent": "b"}], agents=others),
        agents={"a": [calls(b={"message": "find"}), "Never mind."], "b": calls(look={})}, tools={"look": "it"},
    )  # fmt: skip
    assert played.output == {"n": "Never mind."}
    assert said(played, -1)[-1][1].startswith("error: OutOfTurns")


def test_a_workflow_is_a_tool_and_runs_as_a_child() -> None:
    played = play(
        flow(tools=[{"workflow": "billing", "input": {"type": "object"}}]),
        agents={"a": [calls(billing={"sum": 3}), "Billed."]}, workflows={"billing": {"bill": 7}},
    )  # fmt: skip
    assert played.output == {"n": "Billed."}
    assert said(played, -1)[-1] == ("tool", '{"bill": 7}')


def test_what_an_agent_did_is_undone_when_a_later_node_fails() -> None:
    tools = [{"tool": "book", "compensate": {"tool": "unbook"}}]
    definition = flow(tools=tools)
    definition["nodes"]["last"] = {"needs": "n", "fail": "no"}
    script = [calls(("book", {"seat": 1}), ("book", {"seat": 2})), "Booked."]
    played = play(definition, agents={"a": script}, tools={"book": ["one", "two"], "unbook": None})
    assert played.inputs("unbook") == [
        {"input": {"seat": 2}, "output": "two"}, {"input": {"seat": 1}, "output": "one"},
    ]  # fmt: skip


def test_a_failed_agent_has_what_it_did_undone_first() -> None:
    tools = [{"tool": "book", "compensate": {"tool": "unbook"}}]
    played = play(flow(tools=tools, budget={"turns": 1}), agents={"a": calls(book={})}, tools={"book": 1, "unbook": 2})
    assert played.error is not None
    assert played.error.type == "OutOfTurns"
    assert played.inputs("unbook") == [{"input": {}, "output": 1}]


def test_agents_pause_between_turns() -> None:
    told = [pause(at="30m"), resume(at="5h")]
    played = play(flow(**LOOK), agents={"a": [calls(look={}), "Done."]}, tools={"look": takes_an_hour}, tell=told)
    assert played.output == {"n": "Done."}
    assert [(call.at - played.began).total_seconds() for call in played.calls] == [0, 0, 5 * 3600]


def test_after_a_crash_only_what_was_in_flight_is_asked_again() -> None:
    slow = [takes("1h", calls(look={})), takes("1h", "Done."), takes("1h", "Done.")]
    played = play(flow(**LOOK), agents={"a": slow}, tools={"look": "x"}, tell=[crash(at="90m")])
    assert played.output == {"n": "Done."}
    assert [call.node for call in played.calls] == ["n[0]/model", "n[0]/look", "n[1]/model", "n[1]/model"]


def test_agents_take_turns_in_foreach_and_as_what_aggregates() -> None:
    definition = {
        "name": "flow", "agents": {"a": agent(**LOOK)},
        "nodes": {
            "each": {"foreach": {"items": [1, 2]}, "agent": "a", "with": {"message": "item ${{ item }}"}},
            "all": {"aggregate": {"items": "nodes.each.output", "agent": "a"}},
        },
    }  # fmt: skip
    script = [calls(look={}), calls(look={}), "one", "two", calls(look={}), "both"]
    played = play(definition, agents={"a": script}, tools={"look": 1})
    assert played.output == {"all": "both"}
    assert "each[1]/do[0]/look" in {call.node for call in played.calls}


def test_a_state_invokes_an_agent_that_takes_turns_and_leaving_it_stops_the_agent() -> None:
    chart = {
        "name": "chart", "kind": "statechart", "agents": {"a": agent(**LOOK)},
        "states": {
            "work": {
                "invoke": {"agent": "a", "with": {"message": "hi"}, "on_done": "good"},
                "after": {"5h": "late"},
            },
            "good": {"type": "final", "output": "in time"}, "late": {"type": "final", "output": "late"},
        },
    }  # fmt: skip
    played = play(chart, agents={"a": [calls(look={}), "Done."]}, tools={"look": takes_an_hour})
    assert played.output == "in time"
    assert "work[1]/invoke[0]/look" in {call.node for call in played.calls}
    late = play(chart, agents={"a": calls(look={})}, tools={"look": takes_an_hour})
    assert late.output == "late"
    assert late.happened("NodeCancelled")
