"""The command line as its users meet it: real processes, exit codes, data on stdout, words on stderr."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from test_nats_server import process_ids, wait_until_gone
from warm_cli import run_command

ROOT = Path(__file__).parent.parent
SUPPORT = ["run", str(ROOT / "examples/customer_support.yaml"), "--local"]
REPLIES = ["--replies", str(ROOT / "examples/customer_support.replies.yaml")]
HELLO = ["run", str(ROOT / "examples/hello.yaml"), "--local"]
SLOW = """\
name: slow
tools: [./tools.py]
nodes:
  first: {tool: note, with: {line: first}}
  second: {tool: wait, needs: [first]}
  third: {tool: note, with: {line: third}, needs: [second]}
output: "${{ nodes.second.output }}"
"""
SLOW_TOOLS = """\
import asyncio
from pathlib import Path
from perdure import tool

HERE = Path(__file__).parent

@tool
async def note(line: str) -> str:
    with (HERE / "effects").open("a") as file:
        file.write(line + chr(10))
    return line

@tool
async def wait() -> str:
    (HERE / "waiting").touch()
    while not (HERE / "go").exists():
        await asyncio.sleep(0.01)
    return "waited"
"""


_COMMANDS = ("run", "show", "list", "up", "status", "scale", "down")


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("PERDURE_", "OPENAI_", "RAY_"))}
    return {**kept, "PERDURE_STORE": str(tmp_path / "store"), "COLUMNS": "200"}


@pytest.fixture
def slow(tmp_path: Path) -> Path:
    (tmp_path / "tools.py").write_text(SLOW_TOOLS)
    (tmp_path / "slow.yaml").write_text(SLOW)
    return tmp_path / "slow.yaml"


def command(*words: str) -> list[str]:
    return [sys.executable, "-m", "perdure.cli", *words]


def perdure(environment: dict[str, str], *words: str, code: int = 0) -> subprocess.CompletedProcess[str]:
    done = run_command(environment, *words)
    assert done.returncode == code, done.stderr
    assert "Traceback" not in done.stderr
    return done


def wait_for(path: Path) -> None:
    deadline = time.monotonic() + 20
    while not path.exists():
        assert time.monotonic() < deadline, f"{path} did not come"
        time.sleep(0.01)


def test_hello_prints_its_output_as_json_and_its_progress_beside(environment: dict[str, str]) -> None:
    cold = command(*HELLO, "--set", "name=Ann")
    done = subprocess.run(cold, env=environment, capture_output=True, text=True, timeout=50, check=True)
    assert json.loads(done.stdout) == "Hello, Ann!"
    assert "greet  succeeded  attempt 1" in done.stderr
    assert not process_ids(Path(environment["PERDURE_STORE"]))


def test_customer_support_replies_or_escalates(environment: dict[str, str]) -> None:
    done = perdure(environment, *SUPPORT, *REPLIES, "--input", '{"message": "Where is my parcel?", "order": "A-1001"}')
    assert json.loads(done.stdout)["action"] == "replied"
    assert "scripted replies" in done.stderr
    done = perdure(environment, *SUPPORT, *REPLIES, "--set", "message=Where is it?", "--set", "order=A-1002", "--json")
    result = json.loads(done.stdout)
    assert (result["status"], result["output"]["action"]) == ("succeeded", "escalated")
    done = perdure(environment, *SUPPORT, *REPLIES, "--set", "message=Where is it?", "--set", "order=A-9", code=1)
    assert "failed at node 'lookup' (attempt 1): UnknownOrder: there is no order 'A-9'" in done.stderr
    assert "perdure show customer-support-" in done.stderr


def test_a_past_run_can_be_listed_and_shown(environment: dict[str, str], tmp_path: Path) -> None:
    (tmp_path / "input.json").write_text('{"name": "Ann"}')
    perdure(environment, *HELLO, "--input", f"@{tmp_path / 'input.json'}", "--id", "hello-1")
    perdure(environment, *HELLO, "--set", "nme=Ann", "--id", "hello-2", "--json", code=1)
    listed = perdure(environment, "list")
    assert "hello-1" in listed.stderr
    assert [row["id"] for row in json.loads(perdure(environment, "list", "--json").stdout)] == ["hello-2", "hello-1"]
    assert "hello-1" not in perdure(environment, "list", "--status", "failed").stderr
    shown = perdure(environment, "show", "hello-1")
    assert "greet" in shown.stderr
    assert json.loads(shown.stdout) == "Hello, Ann!"
    described = json.loads(perdure(environment, "show", "hello-2", "--json").stdout)
    assert described["status"] == "failed"
    assert described["nodes"]["greet"]["error"]["type"] == "ExpressionError"
    assert "failed at node 'greet'" in perdure(environment, "show", "hello-2").stderr


def test_a_run_under_way_can_be_listed_and_followed_from_a_second_terminal(
    environment: dict[str, str], slow: Path
) -> None:
    with subprocess.Popen(
        command("run", str(slow), "--local", "--id", "slow-1"), env=environment, stdout=subprocess.PIPE,
        stderr=subprocess.PIPE, text=True,
    ) as running:  # fmt: skip
        wait_for(slow.parent / "waiting")
        rows = json.loads(perdure(environment, "list", "--json").stdout)
        assert [(row["id"], row["status"]) for row in rows] == [("slow-1", "running")]
        assert "second" in perdure(environment, "show", "slow-1").stderr
        with subprocess.Popen(
            command("show", "slow-1", "--follow"), env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
            text=True,
        ) as following:  # fmt: skip
            assert following.stderr is not None
            while "second" not in following.stderr.readline():
                pass
            (slow.parent / "go").touch()
            out, err = following.communicate(timeout=30)
        assert json.loads(out) == "waited"
        assert "third  succeeded" in err
        assert json.loads(running.communicate(timeout=30)[0]) == "waited"


def test_control_c_suspends_and_the_same_id_goes_on_without_repeating(environment: dict[str, str], slow: Path) -> None:
    with subprocess.Popen(
        command("run", str(slow), "--local", "--id", "slow-1"), env=environment, stderr=subprocess.PIPE, text=True
    ) as running:
        wait_for(slow.parent / "waiting")
        running.send_signal(signal.SIGINT)
        _, err = running.communicate(timeout=30)
    assert running.returncode == 130
    assert "suspended; it goes on with the same command and --id slow-1" in err
    assert "Traceback" not in err
    wait_until_gone(Path(environment["PERDURE_STORE"]))
    (slow.parent / "go").touch()
    done = perdure(environment, "run", str(slow), "--local", "--id", "slow-1")
    assert json.loads(done.stdout) == "waited"
    assert (slow.parent / "effects").read_text() == "first\nthird\n"


@pytest.mark.parametrize("sign", [signal.SIGKILL, signal.SIGTERM])
def test_a_killed_run_leaves_no_process_and_goes_on(environment: dict[str, str], slow: Path, sign: int) -> None:
    with subprocess.Popen(command("run", str(slow), "--local", "--id", "slow-1"), env=environment) as running:
        wait_for(slow.parent / "waiting")
        running.send_signal(sign)
    wait_until_gone(Path(environment["PERDURE_STORE"]))
    (slow.parent / "go").touch()
    assert json.loads(perdure(environment, "run", str(slow), "--local", "--id", "slow-1").stdout) == "waited"
    assert (slow.parent / "effects").read_text() == "first\nthird\n"


@pytest.mark.parametrize(
    ("content", "words", "expected"),
    [
        (None, [], "there is no such file"),
        ("", [], "the file is empty"),
        ("a: {", [], "not valid YAML"),
        ("- 1", [], "a workflow is a mapping"),
        ("name: x\nnods: {}\n", [], "x.yaml:2:1: unknown key 'nods'; did you mean 'nodes'?"),
        ("name: x\nnodes: {a: {tool: nope}}\n", [], "there is no tool 'nope'"),
        ("name: x\ntools: [gone.py]\nnodes: {a: {tool: nope}}\n", [], "gone.py does not exist"),
        ("name: x\ninput: {type: string}\nnodes: {a: {set: 1}}\n", ["--input", "3"], "input is 3, not text"),
        ("name: x\nnodes: {a: {set: 1}}\n", ["--input", "{a"], "--input: not JSON"),
        ("name: x\nnodes: {a: {set: 1}}\n", ["--input", "@none.json"], "the file cannot be read"),
        ("name: x\nnodes: {a: {set: 1}}\n", ["--set", "a"], "write key=value"),
        ("name: x\nnodes: {a: {set: 1}}\n", ["--input", "3", "--set", "a=1"], "the input is not an object"),
        ("name: x\nnodes: {a: {set: 1}}\n", ["--id", ""], "the execution id ''"),
        ("name: x\nnodes: {a: {set: 1}}\n", ["--isolation", "process"], "leave out --isolation"),
        ("name: x\nnodes: {a: {set: 1}}\n", ["--input", "NaN"], "NaN is not JSON"),
        ("name: x\nnodes: {a: {set: 1}}\n", ["--input", "[" * 100_000], "not JSON"),
        ("name: x\nnodes: {a: {set: 1}}\n", ["--input", "@/bin/ls"], "not text in UTF-8"),
        ("name: x\nnodes: {a: {set: 1}}\n", ["--replies", "/bin/ls"], "cannot be read"),
        ("name: x\ninput: {$ref: '#/nope'}\nnodes: {a: {set: 1}}\n", [], "leads nowhere in this schema"),
        ("name: x\ntools: [x.yaml]\nnodes: {a: {tool: t}}\n", [], "must end in .py"),
        ("name: x\nnodes: {a: {tool: 'builtins:int'}}\n", [], "is a class without __call__"),
        ("name: x\nnodes: {a: {set: 1}}\n", ["--replies", "none.yaml"], "none.yaml: cannot be read"),
    ],
)
def test_bad_input_is_one_clear_error_and_starts_nothing(
    environment: dict[str, str], tmp_path: Path, content: str | None, words: list[str], expected: str
) -> None:
    file = tmp_path / "x.yaml"
    if content is not None:
        file.write_text(content)
    done = perdure(environment, "run", str(file), "--local", *words, code=2)
    assert expected in done.stderr
    assert not done.stdout
    assert not (tmp_path / "store").exists()


def test_an_id_that_is_taken_is_bad_input(environment: dict[str, str]) -> None:
    perdure(environment, *HELLO, "--set", "name=Ann", "--id", "hello-1")
    other = ("--set", "name=Bob", "--id", "hello-1")
    assert "started with another input" in perdure(environment, *HELLO, *other, code=2).stderr


def test_an_unknown_execution_is_bad_input(environment: dict[str, str]) -> None:
    assert "there is no store at" in perdure(environment, "show", "none", code=2).stderr
    perdure(environment, *HELLO)
    for words in (["show", "none"], ["show", "none", "--follow"], ["log", "export", "none"]):
        assert "there is no execution 'none'" in perdure(environment, *words, code=2).stderr


def test_agents_without_a_key_are_an_environment_error_that_names_both_ways_on(environment: dict[str, str]) -> None:
    done = perdure(environment, *SUPPORT, "--set", "message=x", code=3)
    assert "OPENAI_API_KEY" in done.stderr
    assert "--replies" in done.stderr


def test_a_store_that_cannot_be_written_is_an_environment_error(environment: dict[str, str], tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    done = perdure({**environment, "PERDURE_STORE": str(tmp_path / "file")}, *HELLO, "--set", "name=Ann", code=3)
    assert "cannot be used" in done.stderr


def test_a_nats_server_that_does_not_start_is_an_environment_error(environment: dict[str, str], tmp_path: Path) -> None:
    binary = tmp_path / "nats-server"
    binary.write_text("#!/bin/sh\nexit 1\n")
    binary.chmod(0o755)
    done = perdure({**environment, "PERDURE_NATS_SERVER": str(binary)}, *HELLO, "--set", "name=Ann", code=3)
    assert "ended at once" in done.stderr
    wait_until_gone(tmp_path)


def test_a_running_ray_needs_a_server_that_it_can_reach(environment: dict[str, str]) -> None:
    words = ["run", str(ROOT / "examples/hello.yaml"), "--set", "name=Ann"]
    done = perdure({**environment, "RAY_ADDRESS": "127.0.0.1:1"}, *words, code=3)
    assert "PERDURE_NATS_URL" in done.stderr


@pytest.mark.parametrize("words", [[*command, "--help"] for command in ([], *([name] for name in _COMMANDS))])
def test_help_has_an_example(environment: dict[str, str], words: list[str]) -> None:
    out = perdure(environment, *words).stdout
    assert "Exit codes: 0 done" in out if words == ["--help"] else "Example: perdure" in out


def test_help_loads_nothing_heavy(environment: dict[str, str]) -> None:
    code = "import sys, perdure.cli; print(sorted({m.split('.')[0] for m in sys.modules}))"
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    heavy = {"ray", "nats", "openai", "pydantic", "sqlalchemy", "jsonschema", "yaml", "msgspec"}
    assert not heavy & set(json.loads(done.stdout.replace("'", '"')))


def test_what_a_tool_prints_stays_out_of_the_data(environment: dict[str, str], tmp_path: Path) -> None:
    (tmp_path / "tools.py").write_text(
        "import os\nfrom perdure import tool\n@tool\ndef loud() -> int:\n"
        "    print('loud')\n    os.write(1, b'louder')\n    return 1\n"
    )
    (tmp_path / "loud.yaml").write_text("name: loud\ntools: [tools.py]\nnodes: {a: {tool: loud}}\n")
    done = perdure(environment, "run", str(tmp_path / "loud.yaml"), "--local")
    assert json.loads(done.stdout) == {"a": 1}
    assert "loud" in done.stderr
    assert "louder" in done.stderr


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ("raise SystemExit(3)", "SystemExit: 3"),
        ("raise KeyboardInterrupt", "KeyboardInterrupt"),
        ("raise GeneratorExit", "GeneratorExit"),
        ("raise StopIteration(7)", "StopIteration: 7"),
        ("raise ValueError('x' * 3_000_000)", "more characters"),
        ("raise ValueError('\\ud800')", "ValueError"),
        ("return float('nan')", "the result of tool 'odd' is not JSON data: it has NaN"),
        ("return 10 ** 5000", "is not JSON data"),
        ("return '\\ud800'", "text that is not valid Unicode"),
        ("return object()", "is not JSON data"),
        ("class Odd(Exception):\n        def __str__(self): raise RuntimeError\n    raise Odd", "Odd"),
        ("import asyncio; raise asyncio.CancelledError", "CancelledError"),
    ],
)
@pytest.mark.parametrize("kind", ["def", "async def"])
def test_whatever_a_tool_does_is_an_ordinary_failure(
    environment: dict[str, str], tmp_path: Path, kind: str, body: str, expected: str
) -> None:
    if (kind, body[:19]) == ("async def", "raise StopIteration"):
        expected = "StopIteration"  # Python itself turns it into a RuntimeError
    (tmp_path / "tools.py").write_text(f"from perdure import tool\n@tool\n{kind} odd():\n    {body}\n")
    (tmp_path / "odd.yaml").write_text("name: odd\ntools: [tools.py]\nnodes: {a: {tool: odd}}\n")
    done = perdure(environment, "run", str(tmp_path / "odd.yaml"), "--local", code=1)
    assert "failed at node 'a' (attempt 1)" in done.stderr
    assert expected in done.stderr


def test_a_large_input_is_refused_and_large_values_travel(environment: dict[str, str], tmp_path: Path) -> None:
    (tmp_path / "large.json").write_text(json.dumps({"name": "x" * 1_100_000}))
    done = perdure(environment, *HELLO, "--input", f"@{tmp_path / 'large.json'}", code=2)
    assert "put what is large into a file" in done.stderr
    (tmp_path / "large.json").write_text(json.dumps({"name": "x" * 900_000}))
    done = perdure(environment, *HELLO, "--input", f"@{tmp_path / 'large.json'}")
    assert len(json.loads(done.stdout)) == 900_008


def test_the_second_run_of_an_id_takes_over_when_the_first_is_killed(environment: dict[str, str], slow: Path) -> None:
    words = command("run", str(slow), "--local", "--id", "slow-1")
    with (
        subprocess.Popen(words, env=environment, stdout=subprocess.PIPE, text=True) as first,
        subprocess.Popen(words, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as second,
    ):
        wait_for(slow.parent / "waiting")
        assert second.stderr is not None
        while "second" not in second.stderr.readline():
            pass
        first.send_signal(signal.SIGKILL)
        first.wait()
        (slow.parent / "go").touch()
        assert json.loads(second.communicate(timeout=40)[0]) == "waited"
    assert (slow.parent / "effects").read_text() == "first\nthird\n"


def test_a_suspended_execution_says_that_nobody_drives_it(environment: dict[str, str], slow: Path) -> None:
    with subprocess.Popen(command("run", str(slow), "--local", "--id", "slow-1"), env=environment) as running:
        wait_for(slow.parent / "waiting")
        running.send_signal(signal.SIGTERM)
    assert running.returncode == 128 + signal.SIGTERM
    assert "nobody drives this execution now" in perdure(environment, "show", "slow-1").stderr


def test_a_store_may_have_any_name(environment: dict[str, str], tmp_path: Path) -> None:
    done = perdure({**environment, "PERDURE_STORE": str(tmp_path / "é ü\"'$")}, *HELLO, "--set", "name=Ann")
    assert json.loads(done.stdout) == "Hello, Ann!"


def test_a_password_in_the_server_s_url_is_not_shown(environment: dict[str, str]) -> None:
    done = perdure({**environment, "PERDURE_NATS_URL": "nats://user:hunter2@127.0.0.1:1"}, "list", code=3)
    assert "***@127.0.0.1:1" in done.stderr
    assert "hunter2" not in done.stderr


def test_a_history_is_exported_purged_and_not_started_again(environment: dict[str, str], tmp_path: Path) -> None:
    perdure(environment, *HELLO, "--set", "name=Ann", "--id", "hello-1")
    exported = perdure(environment, "log", "export", "hello-1").stdout
    assert perdure(environment, "log", "purge", "--older-than", "1d").stdout == ""
    assert perdure(environment, "log", "purge", "--older-than", "0s", "--dry-run").stdout == "hello-1\n"
    assert perdure(environment, "log", "purge", "--older-than", "0s").stdout == "hello-1\n"
    assert "purged" in perdure(environment, *HELLO, "--set", "name=Ann", "--id", "hello-1", code=2).stderr
    (tmp_path / "history.jsonl").write_text(exported)
    elsewhere = {**environment, "PERDURE_STORE": str(tmp_path / "elsewhere")}
    assert perdure(elsewhere, "log", "import", str(tmp_path / "history.jsonl")).stdout == "hello-1\n"
    assert json.loads(perdure(elsewhere, "show", "hello-1").stdout) == "Hello, Ann!"
    assert "cut short" in perdure(elsewhere, "log", "import", "/dev/null", code=2).stderr
    assert "not a duration" in perdure(elsewhere, "log", "purge", "--older-than", "soon", code=2).stderr


def test_the_schemas_of_events_are_printed_and_written(environment: dict[str, str], tmp_path: Path) -> None:
    printed = json.loads(perdure(environment, "schema", "events").stdout)
    perdure(environment, "schema", "events", "--out", str(tmp_path / "schemas"))
    assert {f"{name}.v1.json" for name in printed} == {file.name for file in (tmp_path / "schemas").iterdir()}


def test_to_go_on_no_input_need_be_given_again(environment: dict[str, str], tmp_path: Path) -> None:
    file = tmp_path / "w.yaml"
    file.write_text("name: w\ninput: {type: object, required: [n]}\nnodes: {a: {set: '${{ input.n }}'}}\n")
    run = ("run", str(file), "--local", "--id", "w-1")
    first = perdure(environment, *run, "--set", "n=3")
    assert json.loads(first.stdout) == json.loads(perdure(environment, *run).stdout) == {"a": 3}


def test_a_run_goes_on_with_its_detached_children(environment: dict[str, str], tmp_path: Path) -> None:
    file = tmp_path / "w.yaml"
    file.write_text(
        "name: w\nworkflows: {slow: {name: slow, nodes: {w: {wait: 500ms}}}}\n"
        "nodes: {d: {workflow: {name: slow, detach: true, id: kid}}}\n"
    )
    done = perdure(environment, "run", str(file), "--local", "--id", "w-2")
    assert json.loads(done.stdout) == {"d": "kid"}
    assert "child kid is still at work" in done.stderr
    rows = json.loads(perdure(environment, "list", "--json").stdout)
    assert {row["id"]: row["status"] for row in rows} == {"w-2": "succeeded", "kid": "succeeded"}
