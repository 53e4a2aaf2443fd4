"""The page of the semantics says what the code does: its tables are compared with it, row by row."""

import importlib
import pkgutil
import re
from pathlib import Path
from typing import Any

import pytest
from scenario import BOOM, EXECUTION, Given, plan_of, running
from test_docs import generator

from perdure import errors, testing
from perdure.actors.containers import MANY
from perdure.actors.decisions import MAX_RESUMES
from perdure.actors.execution import MAX_INPUTS
from perdure.actors.inputs import (
    CancelExecution,
    ChangeInput,
    CompensateExecution,
    Control,
    DecideApproval,
    ExtendDeadline,
    PauseExecution,
    ReportFailure,
    ReportSuccess,
    ResumeExecution,
    RetryExecution,
    SignalExecution,
    SkipNode,
    StartExecution,
    TerminateExecution,
)
from perdure.actors.state import SETTLED, NodeStatus
from perdure.definitions.parts import Fail
from perdure.events.vocabulary import CommandRefused, Event, Parent
from perdure.testing import cancel, fails, pause, play, resume, takes

PAGE_AT = Path(__file__).parent.parent / "docs/semantics.md"
PAGE = PAGE_AT.read_text(encoding="utf-8")
NODES: dict[str, Any] = {
    "a": {"approval": {"title": "Go?"}},
    "b": {"tool": "t", "deadline": "1h"},
    "c": {"tool": "t", "needs": "b"},
}
ENDS: dict[str, Any] = {name: {"x": {"tool": "t"}} for name in ("on_failure", "on_cancel", "finally")}
PAUSE, RESUME = PauseExecution("p", EXECUTION), ResumeExecution("r", EXECUTION)
CANCEL, TERMINATE = CancelExecution("c", EXECUTION), TerminateExecution("t", EXECUTION)
COMMANDS: dict[str, Control] = {
    "signal": SignalExecution("s", EXECUTION, "go", 1),
    "approve, reject": DecideApproval("d", EXECUTION, "a", approved=True),
    "pause": PAUSE,
    "resume": RESUME,
    "cancel": CANCEL,
    "terminate": TERMINATE,
    "retry": RetryExecution("y", EXECUTION),
    "skip, complete": SkipNode("k", EXECUTION, "b"),
    "change input": ChangeInput("i", EXECUTION, "c", {}),
    "extend": ExtendDeadline("e", EXECUTION, "b", 60),
}


def table(title: str) -> list[list[str]]:
    section = PAGE.partition(f"\n## {title}\n")[2].partition("\n## ")[0]
    lines = [line for line in section.splitlines() if line.startswith("|")]
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    return [rows[0], *rows[2:]]


def begun() -> Given:
    return running(NODES, **ENDS)


def done() -> Given:
    return begun().when(COMMANDS["approve, reject"], ReportSuccess("b", 1), ReportSuccess("c", 1))


def failing() -> Given:
    return begun().when(ReportFailure("b", 1, BOOM))


def compensating() -> Given:
    plan = plan_of({"a": {"tool": "t", "compensate": {"tool": "u"}}, **{name: {"set": 1} for name in "bc"}})
    start = StartExecution("s", EXECUTION, plan.name, plan.digest, None, "0", parent=Parent("up", "x", 1, "0"))
    undo = CompensateExecution("u", EXECUTION, Parent("up", "x~undo", 1, "0"), BOOM)
    return Given(plan).when(start, ReportSuccess("a", 1), undo)


STATES: dict[str, Any] = {
    "not begun": lambda: Given(plan_of(NODES, **ENDS)),
    "running": begun,
    "paused": lambda: begun().when(PAUSE),
    "failing": failing,
    "cancelling": lambda: begun().when(CANCEL),
    "compensating": compensating,
    "done, in `finally`": done,
    "succeeded": lambda: done().when(ReportSuccess("finally/x", 1)),
    "failed": lambda: failing().when(ReportSuccess("on_failure/x", 1), ReportSuccess("finally/x", 1)),
    "cancelled": lambda: begun().when(CANCEL, ReportSuccess("on_cancel/x", 1), ReportSuccess("finally/x", 1)),
    "terminated": lambda: begun().when(TERMINATE),
    "compensated": lambda: compensating().when(ReportSuccess("a~undo", 1)),
}


def effect(given: Given, command: Control) -> str:
    before = len(given.events)
    events: list[Event] = given.when(command).events[before:]
    if not events:
        return "nothing"
    return "refused" if isinstance(events[0], CommandRefused) else "done"


CONTROLS = table("Controls")


@pytest.mark.parametrize("row", CONTROLS[1:], ids=lambda row: str(row[0]))
def test_a_command_does_what_the_table_says(row: list[str]) -> None:
    assert [effect(STATES[row[0]](), COMMANDS[name]) for name in CONTROLS[0][1:]] == row[1:]


def test_the_table_of_controls_has_every_state_and_every_command() -> None:
    assert [row[0] for row in CONTROLS[1:]] == list(STATES)
    assert CONTROLS[0][1:] == list(COMMANDS)


def test_the_table_of_joins_is_generated() -> None:
    assert generator().semantics_page(PAGE) == PAGE
    assert len(table("Joins")) == 11


def test_every_event_and_every_status_of_a_node_is_explained() -> None:
    named = set(re.findall(r"`(\w+)`", PAGE + (PAGE_AT.parent / "schedules.md").read_text(encoding="utf-8")))
    assert {each.__name__ for each in Event.__args__} <= named
    rows = {row[0].strip("`"): row[1] for row in table("Nodes")[1:]}
    assert rows.keys() == set(NodeStatus.__args__) | {"pending"}  # type: ignore[attr-defined]
    assert {status for status, settled in rows.items() if settled == "yes"} == SETTLED


def test_the_numbers_of_the_page_are_those_of_the_code() -> None:
    text = " ".join(PAGE.split())
    for number in (f"{MANY:,} events", f"{MAX_INPUTS} inputs", f"{MAX_RESUMES} times"):
        assert number in text


def given_by_actors() -> set[str]:
    """The types of errors that the code gives by name, and those that it raises from calls."""
    code = "".join(path.read_text(encoding="utf-8") for path in sorted((PAGE_AT.parent.parent / "actors").glob("*.py")))
    named = set(re.findall(r'(?:Error|Failed)\(\s*"([A-Z]\w+)"', code))
    for module in pkgutil.iter_modules([str(PAGE_AT.parent.parent / "actors")]):
        importlib.import_module(f"perdure.actors.{module.name}")  # so that all of its errors are known
    raised = {each.__name__ for each in every_error() if each.__module__.startswith("perdure.actors.")}
    return named | {name for name in raised if not name.startswith("_")}


def every_error(root: type[Exception] = errors.PerdureError) -> set[type[Exception]]:
    return {root}.union(*(every_error(each) for each in root.__subclasses__()))


def test_every_error_that_perdure_gives_is_in_the_table_and_no_other() -> None:
    types = [row[0].strip("`") for row in table("Errors")[1:]]
    assert len(types) == len(set(types))
    elsewhere = {name for name in types if hasattr(errors, name)}
    assert {"Timeout", "HeartbeatLost", "QueueTimeout", "RateLimited"} <= given_by_actors()
    assert given_by_actors() | elsewhere | {"Failed"} == set(types)
    assert Fail(message="x").type == "Failed"


# What no table says, and no other test


def flow(nodes: dict[str, Any], **parts: Any) -> dict[str, Any]:
    return {"name": "flow", "nodes": nodes, **parts}


def test_a_pause_holds_the_next_compensation_and_what_runs_behind_it() -> None:
    undone = {"tool": "t", "compensate": {"tool": "undo"}}
    nodes = {"a": undone, "a2": {**undone, "needs": "a"}, "b": {"tool": "bad", "needs": "a2"}}
    tools = {"t": 1, "bad": fails("X"), "undo": takes("2h"), "tell": None}
    played = play(flow(nodes, on_failure={"x": {"tool": "tell"}}), tools=tools, tell=[pause(at="1h"), resume(at="5h")])
    assert [(call.node, (call.at - played.began).seconds // 3600) for call in played.calls] == [
        ("a", 0), ("a2", 0), ("b", 0), ("a2~undo", 0), ("a~undo", 5), ("on_failure/x", 7),
    ]  # fmt: skip
    assert played.nodes["a"].status == "compensated"


def test_a_handler_that_is_skipped_has_handled_nothing() -> None:
    nodes = {"a": {"tool": "t", "catch": [{"then": "h"}]}, "h": {"set": 1, "if": False}}
    played = play(flow(nodes), tools={"t": fails("X")})
    assert (played.error is not None and played.error.type, played.nodes["a"].status) == ("X", "failed")


def test_an_error_in_finally_compensates_only_what_completed_there() -> None:
    nodes = {"a": {"tool": "t", "compensate": {"tool": "undo"}}}
    last = {**nodes, "c": {"fail": "no", "needs": "a"}}
    played = play(flow(nodes, **{"finally": last}), tools={"t": 1, "undo": 1})
    assert [call.node for call in played.calls] == ["a", "finally/a", "finally/a~undo"]
    assert (played.status, played.nodes["a"].status) == ("failed", "succeeded")


def test_an_expression_that_fails_as_an_attempt_begins_is_not_tried_again() -> None:
    node = {"tool": "t", "with": {"x": "${{ input.x }}"}, "retry": {"attempts": 5}, "catch": [{"output": "caught"}]}
    played = play(flow({"a": node}), {}, tools={"t": 1})
    assert (played.output, played.happened("NodeAttemptFailed")) == ({"a": "caught"}, [])


def test_a_rejected_approval_is_asked_again_by_its_retry() -> None:
    node = {"approval": {"title": "Go?"}, "retry": {"attempts": 2, "delay": "1h", "jitter": False}}
    played = play(flow({"a": node}), tell=[testing.reject("a", at=1), testing.approve("a", at="2h")])
    assert played.output["a"]["approved"] is True


def test_of_several_failed_nodes_that_drained_the_first_in_topological_order_is_told() -> None:
    nodes = {"a": {"tool": "late"}, "z": {"tool": "soon"}}
    tools = {"late": fails("Late", after="5s"), "soon": fails("Soon", after="1s")}
    assert play(flow(nodes, failure="drain"), tools=tools).happened("ExecutionFailed")[0].node == "a"


def test_the_workflow_timeout_does_not_count_for_what_runs_at_the_end() -> None:
    workflow = flow({"a": {"wait": "2h"}}, timeout="1h", on_failure={"x": {"wait": "9h"}})
    played = play(workflow)
    assert (played.error is not None and played.error.type, played.took.seconds) == ("Timeout", 10 * 3600)


def test_cancel_ends_a_pause() -> None:
    workflow = flow({"a": {"wait": "2h"}}, on_cancel={"x": {"tool": "tell"}})
    played = play(workflow, tools={"tell": None}, tell=[pause(at="1m"), cancel("no", at="2m")])
    assert (played.status, len(played.calls)) == ("cancelled", 1)


def test_a_retry_of_a_whole_foreach_begins_after_what_it_had_completed_is_undone() -> None:
    nodes = {
        "all": {
            "foreach": {"items": "input", "max_parallel": 1},
            "do": {"take": {"tool": "take", "compensate": {"tool": "give"}}},
            "retry": {"attempts": 2},
        }
    }
    played = play(flow(nodes), [1, 2], tools={"take": [1, fails("X"), 3, 4], "give": None})
    assert [call.node for call in played.calls] == [
        "all[0]/take", "all[1]/take", "all[0]/take~undo", "all[0]/take", "all[1]/take",
    ]  # fmt: skip


def test_a_node_whose_tries_are_spent_may_pause_the_execution_and_is_tried_again_at_the_resume() -> None:
    node = {"tool": "t", "retry": {"attempts": 2, "delay": 1, "exhausted": "pause"}}
    played = play(flow({"a": node}), tools={"t": [fails("X"), fails("X"), "done"]}, tell=[resume(at="3h")])
    assert (played.output, played.took.seconds) == ({"a": "done"}, 3 * 3600)
    assert len(played.happened("NodeStuck")) == 1
