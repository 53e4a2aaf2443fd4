"""`perdure up` on a real local Ray: what is killed comes back, what runs moves or ends, and nothing runs twice."""

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
from test_nats_server import process_ids, wait_until_gone
from warm_cli import run_command

import perdure
from perdure import ExecutionFailed, Settings
from perdure.cluster.client import AsyncClient
from perdure.cluster.status import status
from perdure.cluster.sync_client import Client
from perdure.events.vocabulary import NodeResumed, NodeSucceeded

pytestmark = pytest.mark.timeout(180)

TOOLS = """\
import asyncio, os, time
from pathlib import Path
from perdure import tool

HERE = Path(__file__).parent

def note(line: str) -> None:
    with (HERE / "effects").open("a") as file:
        file.write(line + chr(10))

@tool
async def on_loop(key: str, gate: str) -> str:
    note(f"begin {key}")
    while not (HERE / gate).exists():
        await asyncio.sleep(0.01)
    note(f"end {key}")
    return key

@tool
async def die(key: str, gate: str) -> None:
    note(f"begin {key}")
    os._exit(1)

@tool
def in_actor(key: str, gate: str) -> str:
    note(f"begin {key}")
    while not (HERE / gate).exists():
        time.sleep(0.01)
    note(f"end {key}")
    return key
"""


class Up:
    """A cluster that the command line brought up on a store of its own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.store = folder / "store"
        self.settings = Settings(store=self.store)
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("PERDURE_", "RAY_"))}
        hook = {"PERDURE_HTTP_ALLOW": "127.0.0.1", "PERDURE_SECRET_HOOK": "s3cret"}
        self.environment = {**kept, **hook, "PERDURE_STORE": str(self.store)}
        (folder / "tools.py").write_text(TOOLS)

    def perdure(self, *words: str, code: int = 0) -> subprocess.CompletedProcess[str]:
        done = run_command(self.environment, *words, timeout=90)
        assert done.returncode == code, done.stderr
        assert "Traceback" not in done.stderr
        return done

    def status(self) -> dict[str, Any]:
        async def ask() -> dict[str, Any]:
            async with await AsyncClient.open(self.settings, "none") as client:
                return await status(client._connection, self.settings)

        return asyncio.run(ask())

    def workflow(self, tool: str, gate: str, isolation: str = "shared") -> dict[str, Any]:
        first = {"tool": tool, "with": {"key": "${{ input }}-first", "gate": gate}}
        second = {"tool": "on_loop", "needs": ["first"], "with": {"key": "${{ input }}-second", "gate": gate}}
        nodes = {"first": first, "second": second}
        return {"name": "gated", "isolation": isolation, "tools": [str(self.folder / "tools.py")], "nodes": nodes}

    def effects(self) -> Counter[str]:
        file = self.folder / "effects"
        return Counter(file.read_text().splitlines() if file.exists() else [])

    def client(self) -> Client:
        return perdure.connect(self.settings)


@contextmanager
def hook() -> Iterator[tuple[str, list[dict[str, Any]]]]:
    """Give the address of a web server, and what is posted to it."""
    told: list[dict[str, Any]] = []

    class Takes(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            told.append(json.loads(self.rfile.read(int(self.headers["content-length"]))))
            self.send_response(204)
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Takes) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/", told
        server.shutdown()


def until(what: Callable[[], bool], seconds: float = 30) -> None:
    deadline = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < deadline, "it did not come about"
        time.sleep(0.02)


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Up]:
    up = Up(tmp_path_factory.mktemp("up"))
    up.perdure("up", "--hosts", "1", "--detach")
    yield up
    up.perdure("down")
    assert process_ids(up.store) == []


def test_a_second_up_says_that_the_cluster_is_up_and_status_says_what_runs(cluster: Up) -> None:
    assert "is up already; look at it with perdure status" in cluster.perdure("up", code=3).stderr
    assert "is up already" in cluster.perdure("up", "--detach", code=3).stderr
    told = json.loads(cluster.perdure("status", "--json").stdout)
    assert [host["state"] for host in told["hosts"]] == ["serving"]
    assert told["hosts"][0]["partitions"] == list(range(64))
    assert told["up"] is True
    until(lambda: cluster.status()["supervisor"]["standing_by"] == 1)
    assert "host0  serving" in cluster.perdure("status").stderr


def test_one_runner_keeps_all_read_models_tells_webhooks_and_comes_back_when_it_is_killed(cluster: Up) -> None:
    with cluster.client() as client, hook() as (url, told):

        def up_to_date() -> bool:
            told = client.lag()  # which folds nothing itself
            return all(each["lag"] == 0 and each["position"] > 0 for each in told.values())

        client.start({"name": "one", "nodes": {"a": {"set": 1}}}).result(30)
        until(up_to_date)
        client.webhooks.add("pager", url, secret="HOOK", types="ExecutionSucceeded", workflow="two")
        before = cluster.status()["projecting"]["pid"]
        os.kill(before, signal.SIGKILL)
        run = client.start({"name": "two", "nodes": {"a": {"set": 1}}})
        run.result(30)
        until(up_to_date)
        assert [row["id"] for row in client.executions(workflow="two", fresh=False)] == [run.id]
        assert cluster.status()["projecting"]["pid"] != before
        until(lambda: bool(told))
        assert [(each["type"], each["subject"]) for each in told] == [("perdure.ExecutionSucceeded", run.id)]
        client.webhooks.remove("pager")
    assert "projection  timeline: 0 behind" in cluster.perdure("status").stderr


@pytest.mark.parametrize("victim", ["host", "supervisor", "server", "standby", "workers"])
def test_whatever_is_killed_comes_back_and_every_result_is_recorded_once(cluster: Up, victim: str) -> None:
    gate = f"gate-{victim}"
    keys = [f"{victim}{number}" for number in range(10)]
    with cluster.client() as client:
        runs = client.start_many(cluster.workflow("on_loop", gate), keys)
        until(lambda: all(cluster.effects()[f"begin {key}-first"] for key in keys))
        before = cluster.status()
        assert before["executions"]["active"] >= len(runs)
        assert before["inbox"]["held"] >= len(runs)  # the leases
        assert before["log"]["position"] >= len(runs)
        assert set(before["projections"]) >= {"executions", "timeline", "statistics"}
        for pid in victims(cluster, victim):
            os.kill(pid, signal.SIGKILL)
        (cluster.folder / gate).touch()
        assert [run.result(timeout=60) for run in runs] == [{"second": f"{key}-second"} for key in keys]
        for run in runs:
            succeeded = [each.event.node for each in run.events() if isinstance(each.event, NodeSucceeded)]
            assert sorted(succeeded) == ["first", "second"]
            resumed = [each.event.node for each in run.events() if isinstance(each.event, NodeResumed)]
            assert resumed == (["first"] if victim in ("host", "workers") else [])
    until(lambda: bool(cluster.status()["supervisor"]))
    until(lambda: len(host_processes(cluster.status()["supervisor"]["pid"])) == 2)
    assert before["hosts"][0]["state"] == "serving"
    until(lambda: cluster.status()["hosts"][0]["state"] == "serving")
    if victim not in ("host", "workers"):
        assert cluster.status()["hosts"][0]["pid"] == before["hosts"][0]["pid"]  # nobody took it over


def test_a_host_that_is_alive_and_silent_is_replaced_and_stands_back_when_it_wakes(cluster: Up) -> None:
    with cluster.client() as client:
        run = client.start(cluster.workflow("on_loop", "gate-silent"), "silent")
        until(lambda: cluster.effects()["begin silent-first"] == 1)
        (stopped,) = victims(cluster, "host")
        os.kill(stopped, signal.SIGSTOP)
        try:
            until(lambda: cluster.effects()["begin silent-first"] == 2)  # by whom stood by
            (cluster.folder / "gate-silent").touch()
            assert run.result(timeout=60) == {"second": "silent-second"}
        finally:
            os.kill(stopped, signal.SIGCONT)
        succeeded = [each.event.node for each in run.events() if isinstance(each.event, NodeSucceeded)]
        assert succeeded == ["first", "second"]
    until(lambda: len(host_processes(cluster.status()["supervisor"]["pid"])) == 2)
    assert cluster.status()["hosts"][0]["pid"] != stopped


def test_an_execution_whose_own_process_is_killed_gets_another_and_goes_on(cluster: Up) -> None:
    with cluster.client() as client:
        run = client.start(cluster.workflow("on_loop", "gate-own", "process"), "own")
        waits = client.start({"name": "waits", "isolation": "process", "nodes": {"a": {"wait": {"signal": "go"}}}})
        until(lambda: cluster.effects()["begin own-first"] == 1)
        supervisor, host = (cluster.status()[name] for name in ("supervisor", "hosts"))
        (own,) = host_processes(supervisor["pid"], "ExecutionActor")
        os.kill(own, signal.SIGKILL)
        (cluster.folder / "gate-own").touch()
        assert run.result(timeout=60) == {"second": "own-second"}
        resumed = [each.event.node for each in run.events() if isinstance(each.event, NodeResumed)]
        assert resumed == ["first"]
        until(lambda: not host_processes(supervisor["pid"], "ExecutionActor"))  # it waits without a process
        waits.signal("go", 1)
        assert waits.result(timeout=60) == {"a": 1}
    assert cluster.status()["hosts"][0]["pid"] == host[0]["pid"]


def victims(cluster: Up, what: str) -> list[int]:
    if what == "server":
        return [json.loads((cluster.store / "server.json").read_text())["pid"]]
    told = cluster.status()
    supervisor, host = told["supervisor"]["pid"], told["hosts"][0]["pid"]
    until(lambda: len(set(host_processes(supervisor)) - {host}) == 1)  # Ray has started the last victim again
    others = set(host_processes(supervisor)) - {host}
    return {"supervisor": [supervisor], "host": [host], "standby": [*others], "workers": [supervisor, host, *others]}[
        what
    ]


def host_processes(supervisor: int, name: str = "HostActor") -> list[int]:
    """Return the processes of this Ray that run hosts, or this actor: those of the same parent, the raylet."""
    raylet = parent_of(supervisor)
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            words = (folder / "cmdline").read_bytes()
            if f"ray::{name}".encode() in words and parent_of(int(folder.name)) == raylet:
                found.append(int(folder.name))
        except OSError:
            continue
    return found


def parent_of(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


def test_an_execution_whose_own_driver_was_killed_goes_on_in_the_cluster(cluster: Up) -> None:
    (cluster.folder / "driven.yaml").write_text(json.dumps(cluster.workflow("on_loop", "gate-driven")))
    words = ["run", str(cluster.folder / "driven.yaml"), "--local", "--id", "driven", "--input", '"driven"']
    command = [sys.executable, "-m", "perdure.cli", *words]
    driver = subprocess.Popen(command, env=cluster.environment, stderr=subprocess.DEVNULL)
    until(lambda: cluster.effects()["begin driven-first"] == 1)
    driver.kill()
    driver.wait()
    until(lambda: cluster.effects()["begin driven-first"] == 2)
    (cluster.folder / "gate-driven").touch()
    with cluster.client() as client:
        assert client.get("driven").result(timeout=60) == {"second": "driven-second"}
    again = cluster.perdure(*words)  # and who goes on with it finds that it has ended
    assert json.loads(again.stdout) == {"second": "driven-second"}
    until(lambda: cluster.status()["hosts"][0]["adopted"] == [])


def test_a_tool_that_kills_its_process_each_time_ends_in_worker_lost_and_takes_its_neighbours_down_only_twice(
    cluster: Up,
) -> None:
    gate = "gate-die"
    with cluster.client() as client:
        neighbour = client.start(cluster.workflow("on_loop", gate), "neighbour")
        until(lambda: cluster.effects()["begin neighbour-first"] == 1)
        with pytest.raises(ExecutionFailed, match=r"'first' \(attempt 1\): WorkerLost: .*lost 4 times"):
            client.start(cluster.workflow("die", gate), "poison").result(timeout=60)
        (cluster.folder / gate).touch()
        assert neighbour.result(timeout=60) == {"second": "neighbour-second"}
        resumed = [each.event for each in neighbour.events() if isinstance(each.event, NodeResumed)]
    assert len(resumed) == 2
    assert cluster.effects()["begin poison-first"] == 4


def test_a_client_of_a_cluster_that_is_up_starts_no_ray_of_its_own(cluster: Up) -> None:
    script = (
        "import sys, perdure; from perdure import Settings; from pathlib import Path\n"
        f"with perdure.connect(Settings(store=Path({str(cluster.store)!r}))) as client:\n"
        "    print(client.start({'name': 'x', 'nodes': {'a': {'set': 1}}}).result(20), 'ray' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], env=cluster.environment, capture_output=True, text=True, timeout=60
    )
    assert done.stdout == "{'a': 1} False\n", done.stderr


@pytest.mark.parametrize("where", ["on_loop", "in_actor", "process"])
def test_hosts_that_come_take_partitions_over_once_what_runs_there_has_ended(cluster: Up, where: str) -> None:
    gate, keys = f"gate-scale-{where}", [f"{where}{number}" for number in range(12 if where == "on_loop" else 2)]
    tool, isolation = ("on_loop", "process") if where == "process" else (where, "shared")
    with cluster.client() as client:
        runs = client.start_many(cluster.workflow(tool, gate, isolation), keys)
        until(lambda: all(cluster.effects()[f"begin {key}-first"] for key in keys))
        command = [sys.executable, "-m", "perdure.cli", "scale", "2", "--json"]
        scaling = subprocess.Popen(command, env=cluster.environment, stdout=subprocess.PIPE, text=True)
        until(lambda: any(host.get("leaving") for host in cluster.status()["hosts"]))
        (cluster.folder / gate).touch()
        assert [run.result(timeout=60) for run in runs] == [{"second": f"{key}-second"} for key in keys]
        assigned = json.loads(scaling.communicate(timeout=60)[0])
    assert {name: len(parts) for name, parts in assigned.items()} == {"host0": 32, "host1": 32}
    assert {host["host"]: host["partitions"] for host in cluster.status()["hosts"]} == assigned
    assert {count for line, count in cluster.effects().items() if where in line} == {1}  # nothing ran twice
    cluster.perdure("scale", "1")
    assert [host["partitions"] for host in cluster.status()["hosts"]] == [list(range(64))]


@pytest.fixture(scope="module")
def other(cluster: Up, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Up]:
    """Bring a second cluster up beside the first; who drains it leaves nothing of it."""
    up = Up(tmp_path_factory.mktemp("other"))
    up.perdure("up", "--hosts", "1", "--detach", "--log-format", "json")
    yield up
    if process_ids(up.store):
        up.perdure("down")


def test_two_clusters_on_one_machine_have_a_ray_each(cluster: Up, other: Up) -> None:
    """Ray by itself would join whichever was started last, and end with it."""
    raylets = {parent_of(up.status()["supervisor"]["pid"]) for up in (cluster, other)}
    assert len(raylets) == 2


def test_a_cluster_that_is_drained_lets_work_end_and_the_next_one_goes_on_with_the_rest(cluster: Up, other: Up) -> None:
    up = other
    with up.client() as client:
        run = client.start(up.workflow("in_actor", "gate"), "x", id="drained")
    until(lambda: up.effects()["begin x-first"] == 1)
    command = [sys.executable, "-m", "perdure.cli", "down", "--drain"]
    down = subprocess.Popen(command, env=up.environment, stderr=subprocess.PIPE, text=True)
    until(lambda: up.status()["hosts"][0].get("leaving") == 64)
    (up.folder / "gate").touch()
    assert down.communicate(timeout=60)[1] == "down\n"
    wait_until_gone(up.store)
    assert cluster.status()["hosts"][0]["state"] == "serving"  # the other Ray has not ended with it
    lines = [line for line in (up.store / "up.log").read_text().splitlines() if line.startswith("{")]
    told = [json.loads(line) for line in lines]
    assert any(" serves host0" in record["message"] for record in told)
    assert {"at", "level", "logger", "message", "process"} <= set(told[0])
    assert up.effects() == {"begin x-first": 1, "end x-first": 1}  # the second one was not begun any more
    up.perdure("up", "--detach")
    with up.client() as client:
        assert client.get("drained").result(timeout=60) == {"second": "x-second"}
    assert up.effects()["begin x-first"] == 1
    kill_and_bring_up_again(up)
    assert run.id == "drained"


def kill_and_bring_up_again(up: Up) -> None:
    """SIGKILL the process that keeps the cluster up, with Ray and the server, in the middle of an execution."""
    with up.client() as client:
        client.start(up.workflow("on_loop", "never"), "y", id="killed")
    until(lambda: up.effects()["begin y-first"] == 1)
    os.kill(json.loads((up.store / "up.json").read_text())["pid"], signal.SIGKILL)
    wait_until_gone(up.store)
    (up.folder / "never").touch()
    up.perdure("up", "--detach")
    with up.client() as client:
        assert client.get("killed").result(timeout=60) == {"second": "y-second"}
    up.perdure("down")
    assert process_ids(up.store) == []


def test_in_the_foreground_up_shows_the_log_of_all_processes_and_ends_with_ctrl_c(tmp_path: Path) -> None:
    up = Up(tmp_path)
    command = [sys.executable, "-m", "perdure.cli", "up", "--hosts", "1", "--log-format", "json"]
    with subprocess.Popen(command, env=up.environment, stderr=subprocess.PIPE, text=True) as shown:
        try:
            assert shown.stderr is not None
            lines: list[str] = []
            while not (
                any(line.startswith("up: ") for line in lines)
                and any(': "host' in line and " serves host0" in line for line in lines)
            ):
                lines.append(shown.stderr.readline())
                assert lines[-1], lines
            shown.send_signal(signal.SIGINT)
            lines += shown.communicate(timeout=60)[1].splitlines()
        finally:
            shown.kill()
    assert shown.returncode == 0
    assert lines[-1] == "down; executions that have not ended go on with the next perdure up"
    told = [json.loads(line) for line in lines if line.startswith("{")]
    (serving,) = [record for record in told if record["message"].startswith(("host0 serves", "host1 serves"))]
    assert serving["process"] == serving["message"][:5]
    assert {"at", "level", "logger", "message", "process"} <= set(told[0])
    assert process_ids(up.store) == []
