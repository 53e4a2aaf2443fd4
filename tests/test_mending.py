"""Mending by hand: retry, skip, complete, another input, a later deadline; and nodes that wait for it."""

from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from scenario import BOOM, EXECUTION, NOW, due, output, running

from perdure.actors.inputs import (
    ChangeInput,
    CompleteNode,
    ExtendDeadline,
    ReportFailure,
    ReportSuccess,
    ResumeExecution,
    RetryExecution,
    SignalExecution,
    SkipNode,
)
from perdure.cluster.client import AsyncClient
from perdure.cluster.settings import Settings
from perdure.errors import CommandNotAllowed, ExecutionFailed
from perdure.events.vocabulary import (
    CommandRefused,
    ExecutionPaused,
    ExecutionRetried,
    Intervened,
    NodeCancelled,
    NodeScheduled,
    NodeStuck,
)

RETRY = RetryExecution("r-1", EXECUTION, "mended", "ann")
CHAIN: dict[str, Any] = {
    "a": {"tool": "t"}, "b": {"tool": "t", "needs": "a"},
    "c": {"tool": "t", "needs": "b", "with": {"x": "${{ nodes.b.output }}"}},
}  # fmt: skip


def test_a_failed_execution_goes_on_from_what_failed() -> None:
    given = running(CHAIN).when(ReportSuccess("a", 1, "A"), ReportFailure("b", 1, BOOM), RETRY)
    assert given.events[-3:] == [
        Intervened("retry", "", "mended", "ann"),
        ExecutionRetried(),
        NodeScheduled("b", 1, {}),
    ]
    given.when(ReportSuccess("b", 1, "B"))
    assert output(given.when(ReportSuccess("c", 1, "C"))) == {"c": "C"}


def test_what_was_compensated_runs_again_when_the_execution_is_retried() -> None:
    nodes = {"book": {"tool": "t", "compensate": {"tool": "u"}}, "pay": {"tool": "t", "needs": "book"}}
    given = running(nodes).when(ReportSuccess("book", 1), ReportFailure("pay", 1, BOOM), ReportSuccess("book~undo", 1))
    given.when(RETRY)
    assert set(given.now.running) == {"book"}
    assert dict(given.now.undone) == {"book": 1}


def test_a_failed_foreach_begins_anew_when_the_execution_is_retried() -> None:
    given = running({"a": {"foreach": {"items": "input"}, "tool": "t"}}, [1, 2])
    given.when(ReportSuccess("a[0]/do", 1), ReportFailure("a[1]/do", 1, BOOM), RETRY)
    assert set(given.now.running) == {"a[0]/do", "a[1]/do"}


@pytest.mark.parametrize("nodes", [{"a": {"tool": "t"}}, {"a": {"set": 1}}])
def test_only_a_failed_execution_is_retried(nodes: dict[str, Any]) -> None:
    given = running(nodes).when(RETRY)
    assert isinstance(given.events[-1], CommandRefused)


def test_the_workflows_timeout_begins_anew_with_a_retry() -> None:
    given = running({"a": {"tool": "t"}}, timeout="1h").when(ReportFailure("a", 1, BOOM), RETRY)
    assert given.now.timers["execution/"] == NOW + timedelta(hours=1)


STUCK = {"a": {"tool": "t", "retry": {"attempts": 2, "delay": 1, "exhausted": "pause"}}, "b": {"tool": "t"}}


def test_a_node_whose_tries_are_spent_may_pause_the_execution_instead() -> None:
    given = running(STUCK).when(ReportFailure("a", 1, BOOM))
    given.when(due(given, "retry/a")).when(ReportFailure("a", 2, BOOM))
    assert given.events[-2:] == [
        NodeStuck("a", 2, BOOM), ExecutionPaused("node 'a' is stuck: Boom: it broke", "perdure"),
    ]  # fmt: skip
    given.when(ReportSuccess("b", 1))
    assert given.now.status == "paused"


def test_a_stuck_node_is_tried_again_at_the_resume_with_all_its_tries() -> None:
    given = running(STUCK).when(ReportFailure("a", 1, BOOM))
    given.when(due(given, "retry/a")).when(ReportFailure("a", 2, BOOM), ResumeExecution("go", EXECUTION))
    assert given.now.running["a"].attempt == 3
    given.when(ReportFailure("a", 3, BOOM))
    assert "retry/a" in given.now.timers
    given.when(due(given, "retry/a")).when(ReportSuccess("a", 4, 1), ReportSuccess("b", 1, 2))
    assert output(given) == {"a": 1, "b": 2}


def test_a_node_at_work_can_be_completed_by_hand_and_its_work_stops() -> None:
    given = running(CHAIN).when(CompleteNode("c-1", EXECUTION, "a", "by hand", "cash", "ann"))
    assert given.events[-3] == Intervened("complete", "a", "cash", "ann")
    assert (given.now.nodes["a"].output, set(given.now.running)) == ("by hand", {"b"})


def test_a_node_can_be_skipped_by_hand_before_and_after_it_began() -> None:
    given = running(CHAIN).when(SkipNode("s-1", EXECUTION, "b", "no need"), SkipNode("s-2", EXECUTION, "a"))
    assert {name: node.reason for name, node in given.now.nodes.items()} == {
        "a": "skipped by hand", "b": "no need", "c": "everything it needs was skipped",
    }  # fmt: skip
    assert output(given) == {"c": None}


def test_a_node_with_bodies_that_is_skipped_stops_what_is_within() -> None:
    given = running({"a": {"foreach": {"items": "input"}, "tool": "t"}}, [1]).when(SkipNode("s-1", EXECUTION, "a"))
    assert NodeCancelled("a[0]/do", "skip by hand") in given.events
    assert output(given) == {"a": None}


def test_a_branch_that_is_written_like_an_item_is_no_node_and_the_signal_for_it_still_counts() -> None:
    branch = {"do": {"w": {"wait": {"signal": "go"}}}}
    given = running({"p": {"parallel": {"branches": {"l": branch}}}}).when(SkipNode("s-1", EXECUTION, "p[l]/w"))
    assert given.events[-1] == CommandRefused(
        "s-1", "there is no node 'p[l]/w' in this workflow; did you mean 'p/l/w'?"
    )
    assert output(given.when(SignalExecution("s-2", EXECUTION, "go", 1))) == {"p": {"l": {"w": 1}}}


@pytest.mark.parametrize(
    ("node", "why"),
    [("a", "node 'a' is succeeded already"), ("x", "there is no node 'x' in this workflow"),
     ("a[0]/b", "there is no node 'a[0]/b' in this workflow"), ("b/c", "there is no node 'b/c' in this workflow"),
     ("finally/x/y", "there is no node 'finally/x/y' in this workflow")],
)  # fmt: skip
def test_what_is_settled_or_unknown_cannot_be_settled_by_hand(node: str, why: str) -> None:
    given = running(CHAIN).when(ReportSuccess("a", 1), SkipNode("s-1", EXECUTION, node))
    assert given.events[-1] == CommandRefused("s-1", why)


def test_a_node_that_has_not_begun_can_be_given_another_input() -> None:
    given = running(CHAIN).when(ChangeInput("i-1", EXECUTION, "c", {"x": "mine"}, "wrong before", "ann"))
    given.when(ReportSuccess("a", 1), ReportSuccess("b", 1))
    assert given.now.running["c"].input == {"x": "mine"}


def test_a_node_that_has_begun_or_has_no_input_keeps_what_it_has() -> None:
    given = running({**CHAIN, "d": {"set": 1, "needs": "c"}})
    given.when(ChangeInput("i-1", EXECUTION, "a", {}), ChangeInput("i-2", EXECUTION, "d", {}))
    assert given.events[-2:] == [
        CommandRefused("i-1", "node 'a' has begun; its input is what it is"),
        CommandRefused("i-2", "node 'd' has no input: it is a set"),
    ]


def test_a_deadline_can_be_moved() -> None:
    given = running({"a": {"tool": "t", "deadline": "1h"}}, timeout="2h")
    given.when(ExtendDeadline("d-1", EXECUTION, "a", 60), ExtendDeadline("d-2", EXECUTION, "", 60))
    assert given.now.timers["deadline/a"] == NOW + timedelta(hours=1, minutes=1)
    assert given.now.timers["execution/"] == NOW + timedelta(hours=2, minutes=1)
    assert isinstance(given.when(ExtendDeadline("d-3", EXECUTION, "b", 60)).events[-1], CommandRefused)


async def test_a_failed_run_is_retried_for_real_and_its_result_is_the_last_one(tmp_path: Path) -> None:
    (tmp_path / "tools.py").write_text(
        "from pathlib import Path\nfrom perdure import tool\n\n@tool\ndef fetch(file: str) -> str:\n"
        "    return Path(file).read_text()\n"
    )
    wanted = tmp_path / "wanted"
    (tmp_path / "w.yaml").write_text(
        f"name: w\ntools: [./tools.py]\nnodes: {{a: {{tool: fetch, with: {{file: '{wanted}'}}}}}}\n"
    )
    async with await AsyncClient.open(Settings(store=tmp_path / "s", hosts=1), "local") as client:
        run = await client.start(tmp_path / "w.yaml", id="retried")
        with pytest.raises(ExecutionFailed, match="FileNotFoundError"):
            await run.result(timeout=20)
        wanted.write_text("here")
        assert await run.retry("it is there now", by="ann")
        assert await run.result(timeout=20) == {"a": "here"}
        assert [row["status"] for row in await client.executions()] == ["succeeded"]
        with pytest.raises(CommandNotAllowed, match="it is succeeded"):
            await run.retry()
