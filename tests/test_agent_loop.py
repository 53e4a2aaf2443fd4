"""Agents that take turns, played on the engine's own decisions: replies, calls, approvals, budgets, hand-overs."""

from typing import Any

import pytest

from perdure.testing import Played, approve, calls, crash, fails, pause, play, reject, resume

LOOK = {"tools": ["look"]}


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
