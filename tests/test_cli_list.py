"""The commands that ask the read models: data on stdout, words on stderr, and one clear error for bad input."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.main import get_command
from typer.testing import CliRunner, Result

import perdure
from perdure import Settings
from perdure.cli import app
from perdure.cluster.sync_client import Client
from perdure.errors import BadInput
from perdure.projections.queries import Query

Cli = Callable[..., Result]
FLOW: dict[str, Any] = {
    "name": "order",
    "search": {"tenant": "input.tenant", "total": "input.total"},
    "nodes": {"ok": {"if": "input.total > 50", "approval": {"title": "Pay?", "assignees": ["ann"]}},
              "check": {"set": "${{ 1 / input.total }}"}},
}  # fmt: skip


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    store = tmp_path_factory.mktemp("listed") / "store"
    with perdure.connect(Settings(store=store), local=True) as client:
        _fill(client)
        yield store


def _fill(client: Client) -> None:
    for number, total in enumerate((0, 10, 20, 90)):
        client.start(FLOW, {"tenant": "ab"[number % 2], "total": total}, id=f"o-{number}", tags=["t"] if number else [])
    while client.count() != {"failed": 1, "succeeded": 2, "running": 1}:
        pass


@pytest.fixture
def cli(store: Path) -> Cli:
    def run(*words: str, code: int = 0) -> Result:
        result = CliRunner().invoke(app, [*words, "--store", str(store)])
        if isinstance(result.exception, Exception):
            raise result.exception
        assert result.exit_code == code
        return result

    return run


def ids(result: Result) -> list[str]:
    return [row["id"] for row in json.loads(result.stdout)]


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ([], ["o-3", "o-2", "o-1", "o-0"]),
        (["--status", "succeeded", "--status", "failed"], ["o-2", "o-1", "o-0"]),
        (["--where", "tenant=a"], ["o-2", "o-0"]),
        (["--where", "tenant=a", "--where", "total=20"], ["o-2"]),
        (["--filter", "total >= 10 and status != 'running'"], ["o-2", "o-1"]),
        (["--tag", "t", "--order", "started", "--limit", "2"], ["o-1", "o-2"]),
        (["--at", "ok"], ["o-3"]),
        (["--error", "ExpressionError"], ["o-0"]),
        (["--started-after", "1h", "--workflow", "order", "--priority", "5"], ["o-3", "o-2", "o-1", "o-0"]),
        (["--started-before", "2026-01-01"], []),
        (["--stale"], ["o-3", "o-2", "o-1", "o-0"]),
    ],
)
def test_list_gives_what_its_options_ask_for(cli: Cli, options: list[str], expected: list[str]) -> None:
    assert ids(cli("list", "--json", *options)) == expected


def test_the_command_has_every_filter_that_python_has(cli: Cli) -> None:
    command = get_command(app).commands["list"]  # type: ignore[attr-defined]
    assert {option.name for option in command.params} >= set(Query.__struct_fields__)
    (digest,) = {row["digest"] for row in json.loads(cli("list", "--json").stdout)}
    assert len(ids(cli("list", "--digest", digest, "--json"))) == 4
    assert ids(cli("list", "--digest", "sha256:0", "--json")) == []


def test_list_goes_on_where_it_stopped(cli: Cli) -> None:
    first = cli("list", "--json", "--limit", "3")
    assert ids(first) == ["o-3", "o-2", "o-1"]
    cursor = first.stderr.split("--cursor ")[1].strip()
    assert ids(cli("list", "--json", "--limit", "3", "--cursor", cursor)) == ["o-0"]


def test_list_counts_by_status(cli: Cli) -> None:
    assert json.loads(cli("list", "--count", "--json").stdout) == {"failed": 1, "succeeded": 2, "running": 1}
    assert json.loads(cli("list", "--count", "--where", "tenant=a", "--json").stdout) == {"failed": 1, "succeeded": 1}
    assert "succeeded  2" in cli("list", "--count").stderr


def test_list_shows_people_a_table(cli: Cli) -> None:
    shown = cli("list")
    assert shown.stdout == ""
    assert "o-3" in shown.stderr


@pytest.mark.parametrize(
    ("options", "why"),
    [
        (["--status", "done"], "status 'done': it is one of queued, running"),
        (["--where", "tenant"], "--where tenant: write name=value"),
        (["--started-after", "soon"], "--started-after: 'soon' is no time"),
        (["--order", "name"], "order 'name'"),
        (["--filter", "status = 3"], "the filter 'status = 3': it cannot be read"),
    ],
)
def test_list_says_what_is_wrong_with_its_options(cli: Cli, options: list[str], why: str) -> None:
    with pytest.raises(BadInput, match=why):
        cli("list", *options)


def test_approvals_dead_letters_and_statistics_are_shown(cli: Cli) -> None:
    (approval,) = json.loads(cli("approvals", "--assignee", "ann", "--json").stdout)
    assert (approval["execution"], approval["node"], approval["title"]) == ("o-3", "ok", "Pay?")
    assert json.loads(cli("approvals", "--assignee", "bob", "--json").stdout) == []
    assert "Pay?" in cli("approvals").stderr
    (letter,) = json.loads(cli("dead-letters", "--json").stdout)
    assert (letter["execution"], letter["node"], letter["kind"]) == ("o-0", "check", "failed")
    assert "o-0" in cli("dead-letters", "--workflow", "order").stderr
    rows = json.loads(cli("statistics", "--after", "1h", "--json").stdout)
    assert {row["node"]: (row["succeeded"], row["failed"]) for row in rows} == {
        "": (2, 1), "ok": (0, 0), "check": (3, 1),
    }  # fmt: skip
    shown = cli("statistics", "--hourly").stderr
    assert all(heading in shown for heading in ("failure rate", "p99", "tokens in", "tokens out", "cost"))


def test_projections_are_listed_rebuilt_and_caught_up(cli: Cli) -> None:
    rows = json.loads(cli("projections", "list", "--json").stdout)
    assert [row["name"] for row in rows] == [
        "approvals", "dead_letters", "definitions", "executions", "statistics", "timeline",
    ]  # fmt: skip
    assert "all projections are at position" in cli("projections", "catch-up").stderr
    assert {row["lag"] for row in json.loads(cli("projections", "list", "--json").stdout)} == {0}
    assert "made again" in cli("projections", "rebuild", "executions").stderr
    assert "made again" in cli("projections", "rebuild", "--all").stderr
    assert len(ids(cli("list", "--json"))) == 4
    assert json.loads(cli("projections", "quarantine", "--json").stdout) == []
    assert "quarantine is empty" in cli("projections", "quarantine").stderr
    with pytest.raises(BadInput, match="say which projections"):
        cli("projections", "rebuild")
    with pytest.raises(BadInput, match="there is no projection 'nothing'"):
        cli("projections", "rebuild", "nothing")


def test_an_entry_that_a_projection_of_ones_own_cannot_fold_is_shown_and_taken_in_by_a_rebuild(
    cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "picky_projection.py").write_text("""
from perdure import Projection

class Picky(Projection):
    name = "picky"
    refused = "o-1"

    def fold(self, connection, events):
        if any(each.execution == self.refused for each in events):
            raise ValueError(f"{self.refused} is not to my taste")
""")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("PERDURE_PROJECTIONS", "picky_projection:Picky")
    cli("projections", "catch-up")
    rows = json.loads(cli("projections", "quarantine", "--json").stdout)
    assert {(row["projection"], row["execution"], row["error"]) for row in rows} == {
        ("picky", "o-1", "ValueError: o-1 is not to my taste")
    }
    assert "o-1 is not to my taste" in cli("projections", "quarantine").stderr
    (picky,) = [row for row in json.loads(cli("projections", "list", "--json").stdout) if row["name"] == "picky"]
    assert (picky["lag"], picky["quarantined"]) == (0, len(rows))  # the rest went on
    monkeypatch.setattr("picky_projection.Picky.refused", "nobody")
    cli("projections", "rebuild", "picky")
    assert "quarantine is empty" in cli("projections", "quarantine").stderr
