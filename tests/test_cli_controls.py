"""What people tell an execution from a second terminal: real processes, and words for what they mistype."""

import json
import subprocess
from pathlib import Path

import pytest
from test_cli import command, environment, perdure  # noqa: F401 (a fixture)

from perdure.definitions.calls import signals_awaited
from perdure.definitions.loading import load

CLAIM = """\
name: claim
nodes:
  report: {wait: {signal: report, schema: {type: object, required: [number]}}}
  decide: {needs: report, approval: {title: Pay?, form: {type: object, required: [reason]}}}
output: {number: "${{ nodes.report.output.number }}", by: "${{ nodes.decide.output.by }}"}
"""


def test_an_execution_is_told_from_a_second_terminal_and_mistakes_are_answered(
    environment: dict[str, str],  # noqa: F811
    tmp_path: Path,
) -> None:
    (tmp_path / "claim.yaml").write_text(CLAIM)
    words = command("run", str(tmp_path / "claim.yaml"), "--local", "--id", "claim 1")
    with subprocess.Popen(words, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as running:
        assert running.stderr is not None
        while "report  waiting" not in running.stderr.readline():
            pass
        said = perdure(environment, "signal", "claim 1", "reprot", '{"number": 1}').stderr
        assert said.splitlines() == [
            "signal reprot: recorded",
            "but no node of this workflow waits for a signal 'reprot'; did you mean 'report'?",
        ]
        assert "the signal's data: not JSON" in perdure(environment, "signal", "claim 1", "report", "{n", code=2).stderr
        assert "data.number is missing" in perdure(environment, "signal", "claim 1", "report", "{}", code=2).stderr
        assert perdure(environment, "pause", "claim 1").stderr == "pause: recorded\n"
        assert (
            perdure(environment, "signal", "claim 1", "report", '{"number": 7}').stderr == "signal report: recorded\n"
        )
        assert perdure(environment, "resume", "claim 1").stderr == "resume: recorded\n"
        while "decide  waiting" not in running.stderr.readline():
            pass
        assert (
            "--data: not JSON" in perdure(environment, "approve", "claim 1", "decide", "--data", "late", code=2).stderr
        )
        done = perdure(environment, "approve", "claim 1", "decide", "--by", "ann", "--data", '{"reason": "late"}')
        assert done.stderr == "approval: recorded\n"
        assert json.loads(running.communicate(timeout=30)[0]) == {"number": 7, "by": "ann"}


def test_a_hint_quotes_an_id_with_a_blank(environment: dict[str, str], tmp_path: Path) -> None:  # noqa: F811
    (tmp_path / "fails.yaml").write_text("name: fails\nnodes: {a: {fail: no}}\n")
    said = perdure(environment, "run", str(tmp_path / "fails.yaml"), "--local", "--id", "claim 1", code=1).stderr
    assert "look further with: perdure show 'claim 1'\n" in said


@pytest.mark.parametrize(
    ("text", "names"),
    [
        (CLAIM, {"report"}),
        ("name: x\nnodes: {a: {foreach: {items: '[1]'}, do: {b: {wait: {signal: go}}}}}\n", {"go"}),
        ("name: x\nnodes: {a: {wait: 5m}}\n", set()),
        ("name: x\nkind: statechart\nstates: {a: {on: {go: b}}, b: {type: final}}\n", None),
        ("name: x\nnodes: {a: {statechart: {states: {a: {type: final}}}}}\n", None),
    ],
)
def test_the_signals_that_a_workflow_waits_for_are_known(text: str, names: set[str] | None) -> None:
    assert signals_awaited(load(text).workflow) == names
