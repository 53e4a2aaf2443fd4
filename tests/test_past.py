"""Looking into the past: replay, states at any place, comparison, verification, evaluation, and their commands."""

import json
import re
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import update
from typer.testing import CliRunner, Result

import perdure
from perdure import Settings, tool
from perdure.cli import app
from perdure.cluster.client import AsyncClient
from perdure.cluster.sync_client import Client
from perdure.errors import BadInput, ExecutionNotFound
from perdure.events.vocabulary import NodeSucceeded
from perdure.projections.runner import Projections
from perdure.projections.tables import executions, spans

Cli = Callable[..., Result]
CALLS: list[tuple[str, Any]] = []


@tool(name="past_test.double")
def double(number: int) -> int:
    CALLS.append(("double", number))
    return number * 2


@tool(name="past_test.add")
def add(number: int, more: int) -> int:
    CALLS.append(("add", number))
    return number + more


def flow(more: int = 1, output: str = "${{ nodes.added.output }}", name: str = "sums") -> dict[str, Any]:
    return {
        "name": name,
        "nodes": {
            "doubled": {"tool": "past_test.double", "with": {"number": "${{ input.number }}"}},
            "ok": {"if": "input.number > 50", "approval": {"title": "So much?"}, "needs": ["doubled"]},
            "added": {"tool": "past_test.add", "with": {"number": "${{ nodes.doubled.output }}", "more": more},
                      "needs": ["ok"], "output": "${{ {'sum': output} }}"},
        },
        "output": output,
    }  # fmt: skip


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("past") / "store"


@pytest.fixture(scope="module")
def client(store: Path) -> Iterator[Client]:
    with perdure.connect(Settings(store=store), local=True) as client:
        for number in (1, 2):
            client.start(flow(), {"number": number}, id=f"s-{number}").result(20)
            client.start(flow(name="forked"), {"number": number}, id=f"t-{number}").result(20)
        asked = client.start(flow(), {"number": 60}, id="s-60")
        for happened in asked.events():
            if type(happened.event).__name__ == "NodeWaiting":
                break
        asked.approve("ok", by="ann", data="fine")
        asked.result(20)
        yield client


@pytest.fixture
def cli(client: Client, store: Path) -> Cli:
    def run(*words: str, code: int = 0) -> Result:
        result = CliRunner().invoke(app, [*words, "--store", str(store)])
        if isinstance(result.exception, Exception):
            raise result.exception
        assert result.exit_code == code, result.output
        return result

    return run


def numbers(client: Client, execution: str) -> dict[str, int]:
    """Return the number of the entry in which each node succeeded."""
    found = {}
    for recorded in client.get(execution).history():
        for event in recorded.entry.events:
            if isinstance(event, NodeSucceeded):
                found[event.node] = recorded.entry.n
    return found


def test_the_state_at_any_entry_and_at_any_time_is_what_it_was_then(client: Client) -> None:
    history = client.get("s-1").history()
    at = numbers(client, "s-1")["doubled"]
    assert history.at(at - 1).nodes["doubled"].status == "running"
    assert history.at(at).nodes["doubled"].output == 2
    assert history.at(at).status == "running"
    last = list(history)[-1].entry
    assert history.at(last.at).status == history.at(last.n).status == "succeeded"
    assert history.at(next(iter(history)).entry.at).nodes["doubled"].status == "running"


def test_the_difference_between_two_places_is_told_place_by_place(client: Client) -> None:
    history = client.get("s-1").history()
    changes = {each.place: (each.before, each.after) for each in history.diff(1)}
    assert changes["status"] == ("running", "succeeded")
    assert changes["nodes.doubled.output"] == (None, 2)
    assert history.diff(1, 1) == []


@pytest.mark.parametrize("at", ["17", 1.5, True])
def test_a_place_that_is_neither_a_number_nor_a_time_is_refused(client: Client, at: Any) -> None:
    with pytest.raises(BadInput, match="a place in the past is the number of an entry, or a datetime"):
        client.get("s-1").history().at(at)


@pytest.mark.parametrize("at", [0, 99])
def test_a_place_that_is_not_there_is_refused_with_those_that_are(client: Client, at: int) -> None:
    with pytest.raises(BadInput, match=f"entries 1 to [0-9]+, and none has the number {at}"):
        client.get("s-1").history().at(at)


def test_a_time_before_the_start_and_an_unknown_execution_are_refused(client: Client) -> None:
    history = client.get("s-1").history()
    with pytest.raises(BadInput, match="had not begun"):
        history.at(next(iter(history)).entry.at - timedelta(seconds=1))
    with pytest.raises(ExecutionNotFound, match="'none'"):
        client.get("none").history().at(1)


def test_replay_prints_every_entry_with_what_it_changed(cli: Cli, client: Client) -> None:
    shown = cli("replay", "s-1").stderr
    assert "NodeSucceeded doubled" in shown
    assert "nodes.doubled.status: running → succeeded" in shown
    rows = json.loads(cli("replay", "s-1", "--at", "2", "--json").stdout)
    assert [row["n"] for row in rows] == [1, 2]
    assert {"place": "status", "before": "queued", "after": "running"} in rows[0]["changed"]


def test_replay_and_fork_take_a_time_for_a_place(cli: Cli, client: Client) -> None:
    entries = [recorded.entry for recorded in client.get("s-60").history()]
    at = entries[1].at.isoformat()
    rows = json.loads(cli("replay", "s-60", "--at", at, "--json").stdout)
    assert [row["n"] for row in rows] == [entry.n for entry in entries if entry.at <= entries[1].at]
    assert cli("fork", "t-1", "--at", at.replace("+00:00", "Z"), "--id", "f-time", "--local").stdout


def test_replay_tells_the_difference_between_two_places(cli: Cli) -> None:
    changes = json.loads(cli("replay", "s-1", "--since", "1", "--json").stdout)
    assert {"place": "status", "before": "running", "after": "succeeded"} in changes
    assert "status: running → succeeded" in cli("replay", "s-1", "--since", "1").stderr
    assert cli("replay", "s-1", "--since", "2", "--at", "2").stderr == "nothing changed\n"


def test_show_at_shows_the_state_as_it_was(cli: Cli, client: Client) -> None:
    at = str(numbers(client, "s-1")["doubled"])
    shown = json.loads(cli("show", "s-1", "--at", at, "--json").stdout)
    assert (shown["status"], shown["nodes"]["doubled"]["output"]) == ("running", 2)
    assert cli("show", "s-1", "--at", at).stdout == ""


def test_the_timeline_draws_attempts_and_waits(cli: Cli) -> None:
    drawn = cli("show", "s-60", "--timeline").stderr
    rows = {line[:43].strip(): line[44:] for line in drawn.splitlines()}
    whole, waits = rows["execution"], rows["wait      ok"]
    assert 20 < whole.count("━") >= waits.count("▒") > 0  # as long as it took, of the whole
    assert rows["attempt   doubled"].index("█") <= waits.index("▒") <= rows["attempt   added"].index("█")
    assert rows["attempt   added"].rstrip().endswith(" s")
    spans = json.loads(cli("show", "s-60", "--timeline", "--json").stdout)
    assert {span["kind"] for span in spans} >= {"execution", "attempt", "wait"}


def test_options_that_do_not_go_together_are_refused(cli: Cli) -> None:
    for words in (("show", "s-1", "--follow", "--timeline"), ("replay", "s-1", "--diff", "s-2", "--at", "1"),
                  ("replay", "s-1", "--at", "soon"), ("log", "verify"), ("log", "verify", "s-1", "--all")):  # fmt: skip
        with pytest.raises(BadInput):
            cli(*words)


def test_two_executions_are_compared_node_by_node(cli: Cli) -> None:
    told = json.loads(cli("replay", "s-1", "--diff", "s-2", "--json").stdout)
    assert not told["same"]
    assert told["nodes"] == ["added", "doubled"]
    shown = cli("replay", "s-1", "--diff", "s-2").stderr
    assert "1 nodes the same, 2 differ; the outcomes differ" in shown


def test_the_command_forks_drives_the_fork_and_prints_its_output(cli: Cli) -> None:
    done = cli("fork", "t-1", "--from", "added", "--id", "f-1", "--local")
    assert json.loads(done.stdout) == {"sum": 3}
    assert "a fork of t-1; reused: doubled" in done.stderr
    assert re.search(r"a fork of t-1, after its entry [0-9]+", cli("show", "f-1").stderr)
    assert json.loads(cli("show", "f-1", "--json").stdout)["fork"]["of"] == "t-1"
    listed = {row["id"] for row in json.loads(cli("list", "--forked-from", "t-1", "--json").stdout)}
    assert "f-1" in listed <= {"f-1", "f-time"}
    told = json.loads(cli("fork", "t-1", "--from", "doubled", "--input", '{"number": 5}', "--local", "--json").stdout)
    assert (told["of"], told["output"]) == ("t-1", {"sum": 11})


def test_a_detached_fork_is_driven_by_the_hosts_of_the_store(cli: Cli, client: Client) -> None:
    assert cli("fork", "t-2", "--at", "1", "--id", "f-2", "--detach").stdout == "f-2\n"
    assert client.get("f-2").result(20) == {"sum": 5}


def test_run_forks_from_python(client: Client) -> None:
    forked = client.get("t-1").fork(from_="added", input={"number": 7})
    assert forked.result(20) == {"sum": 3}
    assert forked.history().at(1).nodes["doubled"].reused


def test_what_is_sound_verifies_with_exit_code_0(cli: Cli) -> None:
    done = cli("log", "verify", "--all")
    assert "no problems" in done.stderr
    assert done.stdout == ""
    told = json.loads(cli("log", "verify", "s-1", "t-1", "--json").stdout)
    assert (told["executions"], told["problems"]) == (2, [])


async def test_read_models_that_differ_from_the_log_are_told(tmp_path: Path) -> None:
    settings = Settings(store=tmp_path / "store")
    async with await perdure.connect_async(settings, local=True) as client:
        for number in (1, 2):
            await (await client.start(flow(), {"number": number}, id=f"v-{number}")).result(20)
        assert [each.problems async for each in client.verify()] == [[], []]
        rows = Projections(client._settings.projections_at)
        with rows.store.writing() as connection:
            connection.execute(update(executions).where(executions.c.id == "v-1").values(status="failed"))
            connection.execute(spans.delete().where(spans.c.execution == "v-2"))
        rows.close()
        told = {each.execution: each.problems async for each in client.verify()}
        assert {problem.kind for problems in told.values() for problem in problems} == {"projection"}
        assert "has 'failed' as 'status', the log makes 'succeeded'" in told["v-1"][0].message
        assert "'spans' has 0 rows" in told["v-2"][0].message
        assert [each.problems async for each in client.verify(projections=False)] == [[], []]


async def test_histories_that_are_altered_or_do_not_fold_are_told(tmp_path: Path) -> None:
    async with await AsyncClient.open(Settings(store=tmp_path / "store"), "none") as client:
        log = client._connection.log
        started = b'{"type":"ExecutionStarted","workflow":"w","digest":"sha256:0","input":1,"lane":"0"}'
        head = b'"at":"2026-01-01T00:00:00Z","events":['
        first = b'{"id":"a","n":1,"prev":"",' + head + started + b"]}"
        position = (await log.append_stored("altered", "a", first, 0)).position
        await log.append_stored("altered", "b", b'{"id":"b","n":2,"prev":"no",' + head + b"]}", position)
        await log.append_stored("newer", "c", b'{"id":"c","n":1,"prev":"",' + head + b'{"type":"Unheard"}]}', 0)
        resumed = b'{"type":"ExecutionResumed"}]}'
        await log.append_stored("unstarted", "d", b'{"id":"d","n":1,"prev":"",' + head + resumed, 0)
        told = {each.execution: each.problems async for each in client.verify([*"x", "altered", "newer", "unstarted"])}
    assert [(each.kind, each.n) for each in told["altered"]] == [("chain", 2)]
    assert [each.kind for each in told["newer"]] == ["corrupt"]
    assert [each.kind for each in told["unstarted"]] == ["fold"]
    assert "no such execution" in told["x"][0].message


def evaluated(cli: Cli, tmp_path: Path, definition: dict[str, Any], *words: str, code: int = 0) -> dict[str, Any]:
    CALLS.clear()
    file = tmp_path / "changed.json"
    file.write_text(json.dumps(definition))
    told = json.loads(cli("workflows", "evaluate", str(file), *words, "--json", code=code).stdout)
    return {each["execution"]: each for each in told}


def test_an_unchanged_definition_is_answered_from_the_record_alone(cli: Cli, tmp_path: Path) -> None:
    told = evaluated(cli, tmp_path, flow())
    assert {name: each["same"] for name, each in told.items()} == dict.fromkeys(("s-60", "s-2", "s-1"), True)
    assert CALLS == []
    assert told["s-60"]["reused"] == ["doubled", "ok", "added"]


def test_only_what_changed_is_called_and_a_changed_outcome_is_exit_code_1(cli: Cli, tmp_path: Path) -> None:
    told = evaluated(cli, tmp_path, flow(more=100), "--last", "100", code=1)
    assert sorted(CALLS) == [("add", 2), ("add", 4), ("add", 120)]
    assert told["s-1"]["ran"] == ["added"]
    assert told["s-1"]["now"]["output"] == {"sum": 102}
    assert told["s-1"]["nodes"] == ["added"]


def test_a_dry_run_calls_nothing_and_says_what_would_be_called(cli: Cli, tmp_path: Path) -> None:
    told = evaluated(cli, tmp_path, flow(more=100), "--dry")
    assert CALLS == []
    assert {tuple(each["ran"]) for each in told.values()} == {("added",)}
    assert {each["same"] for each in told.values()} == {None}


def test_an_evaluation_of_nothing_is_no_success(cli: Cli, tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="no execution of a workflow 'other' has succeeded or failed here"):
        evaluated(cli, tmp_path, flow(), "--of", "other")


def test_a_changed_output_differs_without_any_call(cli: Cli, tmp_path: Path) -> None:
    told = evaluated(cli, tmp_path, flow(output="${{ nodes.doubled.output }}"), "--last", "3", code=1)
    assert CALLS == []
    assert len(told) == 3
    assert all(each["nodes"] == [] for each in told.values())


async def test_an_execution_that_cannot_be_read_keeps_nobody_from_the_others(tmp_path: Path) -> None:
    async with await perdure.connect_async(Settings(store=tmp_path / "store"), local=True) as client:
        for name, value in (("sound", "x"), ("damaged", "x" * 300_000)):
            await (
                await client.start({"name": "w", "nodes": {"a": {"set": "${{ len(input) }}"}}}, value, id=name)
            ).result(20)
        log = client._connection.log
        await log.blobs.delete([blob.name async for each in log.read_stored("damaged") for blob in each.slim.blobs])
        changed = {"name": "w", "nodes": {"a": {"set": "${{ len(input) + 0 }}"}}}
        told = {each.execution: each async for each in client.evaluate(changed)}
    assert (told["sound"].same, told["sound"].problem) == (True, "")
    assert (told["damaged"].same, told["damaged"].was) == (None, None)
    assert "blob" in told["damaged"].problem


def test_the_report_for_people_names_what_differs(cli: Cli, tmp_path: Path) -> None:
    file = tmp_path / "changed.json"
    file.write_text(json.dumps(flow(more=100)))
    shown = cli("workflows", "evaluate", str(file), code=1).stderr
    assert "called: added" in shown
    assert "nodes that differ: added" in shown
    assert " differ, 0 cannot be said without calls" in shown
