"""On a real local Ray: named hosts and execution actors, node actors, and SIGKILL in the middle of a workflow."""

import os
import shutil
import signal
import time
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import pytest
import ray

import perdure
from perdure import ExecutionFailed, Settings
from perdure.model_answers import Answer
from perdure.testing import Model, Reply

EXAMPLES = Path(__file__).parent.parent / "examples"

# The example's tools, each noting that it ran, in which process.
NOTING_TOOLS = f"""\
import functools, importlib.util, os
from pathlib import Path
from perdure import tool

spec = importlib.util.spec_from_file_location("the_tools", {str(EXAMPLES / "tools.py")!r})
tools = importlib.util.module_from_spec(spec)
spec.loader.exec_module(tools)

def note(name):
    with (Path(__file__).parent / "effects").open("a") as file:
        file.write(f"{{name}} {{os.getpid()}}\\n")

@tool
def lookup_order(order: str) -> dict:
    note("lookup")
    return tools.lookup_order(order)

@tool
async def search_knowledge(phrase: str, category: str) -> list:
    note("search")
    return await tools.search_knowledge(phrase, category)

@tool
def open_ticket(message: str, category: str, urgency: str, reason: str) -> dict:
    note("escalate")
    return tools.open_ticket(message, category, urgency, reason)
"""


@pytest.fixture
def support(tmp_path: Path) -> Path:
    (tmp_path / "tools.py").write_text(NOTING_TOOLS)
    shutil.copy(EXAMPLES / "customer_support.yaml", tmp_path)
    return tmp_path / "customer_support.yaml"


def effects(folder: Path) -> list[tuple[str, int]]:
    file = folder / "effects"
    lines = file.read_text().splitlines() if file.exists() else []
    return [(name, int(pid)) for name, pid in (line.split() for line in lines)]


class GatedModel(Model):
    """Answers as the example's script does, but holds the drafts back until the gate opens."""

    def __init__(self, gate: Path) -> None:
        script = Model.from_file(EXAMPLES / "customer_support.replies.yaml")
        super().__init__(script._replies)
        script._server.server_close()
        self.gate = gate

    def answer(self, path: str, body: dict[str, Any], headers: Mapping[str, str]) -> Answer | None:
        answer = super().answer(path, body, headers)
        while "Draft a reply" in str(body) and not self.gate.exists():
            time.sleep(0.01)
        return answer


@pytest.mark.timeout(120)
@pytest.mark.parametrize("isolation", ["shared", "process"])
def test_sigkill_in_the_middle_leads_to_the_same_output_with_finished_nodes_not_run_again(
    local_ray: None, tmp_path: Path, support: Path, isolation: Literal["shared", "process"]
) -> None:
    question = {"message": "Where is my parcel?", "order": "A-1002"}
    with GatedModel(tmp_path / "gate") as model:
        settings = Settings(store=tmp_path / "store", isolation=isolation, openai_base_url=model.base_url)
        with perdure.connect(settings) as client:
            run = client.start(support, question, id="case 1")
            names = [actor["name"] for actor in ray.util.list_named_actors(all_namespaces=True)]
            assert "perdure-host0" in names
            assert ("perdure:case 1" in names) == (isolation == "process")
            while not any("Draft a reply" in str(request) for request in list(model.requests)):
                time.sleep(0.01)
            before = dict(effects(tmp_path))
            os.kill(before["search"], signal.SIGKILL)  # an `async def` tool ran in the execution's own process
            (tmp_path / "gate").touch()
            output = run.result(timeout=60)
            state = run.state()
        with perdure.connect(settings) as client:
            undisturbed = client.start(support, question)
            assert undisturbed.result(timeout=60) == output
    assert output["action"] == "escalated"
    counted = Counter(name for name, _ in effects(tmp_path)[:3])
    assert counted == {"lookup": 1, "search": 1, "escalate": 1}
    assert {node.attempt for node in state.nodes.values() if node.status == "succeeded"} == {1}


@pytest.mark.timeout(120)
def test_plain_functions_run_in_node_actors_and_one_that_kills_its_process_ends_in_worker_lost(
    local_ray: None, tmp_path: Path
) -> None:
    (tmp_path / "tools.py").write_text(
        "import os\nfrom perdure import tool\n"
        "@tool\ndef pid() -> int: return os.getpid()\n"
        "@tool\nasync def own_pid() -> int: return os.getpid()\n"
        "@tool\ndef die() -> None: os._exit(1)\n"
        "@tool\ndef fail() -> None: raise KeyError('lost')\n"
    )
    (tmp_path / "x.yaml").write_text(
        "name: x\ntools: [tools.py]\nnodes:\n"
        "  here: {tool: own_pid}\n  there: {tool: pid}\n  again: {tool: pid, needs: [there]}\n"
        "  forced: {tool: own_pid, run_on: actor}\n  loop: {tool: pid, run_on: loop}\n"
        "output: {h: '${{ nodes.here.output }}', t: '${{ nodes.there.output }}', a: '${{ nodes.again.output }}',"
        " f: '${{ nodes.forced.output }}', l: '${{ nodes.loop.output }}'}\n"
    )
    with perdure.connect(Settings(store=tmp_path / "store")) as client:
        pids = client.start(tmp_path / "x.yaml").result(timeout=60)
        assert pids["h"] == pids["l"] != pids["t"] == pids["a"]
        assert pids["f"] not in (pids["h"], os.getpid())
        for tool, expected in (
            ("fail", "KeyError: 'lost'"),
            ("die", r"WorkerLost: .*lost 4 times; the last time process \d+ on .*: it crashed"),
        ):
            (tmp_path / "y.yaml").write_text(f"name: y\ntools: [tools.py]\nnodes: {{bad: {{tool: {tool}}}}}\n")
            with pytest.raises(ExecutionFailed, match=expected):
                client.start(tmp_path / "y.yaml").result(timeout=60)


@pytest.mark.timeout(120)
def test_an_agent_node_on_ray_asks_the_endpoint_of_the_settings(local_ray: None, tmp_path: Path) -> None:
    definition = {
        "name": "ask",
        "agents": {"a": {"model": "m", "instructions": "i"}},
        "nodes": {"n": {"agent": "a", "with": {"message": "weather"}}},
    }
    with Model([Reply("Fine.")]) as model:
        settings = Settings(store=tmp_path / "store", openai_base_url=model.base_url)
        with perdure.connect(settings) as client:
            assert client.start(definition).result(timeout=60) == {"n": "Fine."}
        assert len(model.requests) == 1


@pytest.mark.timeout(120)
def test_secrets_are_read_where_the_execution_runs_and_reach_tools_in_any_process(
    local_ray: None, tmp_path: Path
) -> None:
    (tmp_path / "tools.py").write_text(
        "from perdure import tool\n"
        "@tool\ndef there(a: str, b: str) -> list: return [len(a), len(b), a, b]\n"
        "@tool\nasync def here(a: str, b: str) -> list: return [len(a), len(b), a, b]\n"
    )
    with_ = "{a: '${{ secrets.INHERITED }}', b: 'x ${{ secrets.in_file }}'}"
    (tmp_path / "x.yaml").write_text(
        f"name: x\ntools: [tools.py]\nnodes:\n  a: {{tool: there, with: {with_}}}\n  b: {{tool: here, with: {with_}}}\n"
        "  c: {tool: here, needs: [a, b], with: {a: '', b: '${{ secrets.NOWHERE }}'}}\n"
    )
    (tmp_path / "in_file").write_text("value-of-the-file\n")
    settings = Settings(store=tmp_path / "store", secrets_dir=tmp_path, isolation="process")
    with perdure.connect(settings) as client:
        run = client.start(tmp_path / "x.yaml")
        with pytest.raises(ExecutionFailed, match=r"at node 'c' .*SecretMissing: .*PERDURE_SECRET_NOWHERE"):
            run.result(timeout=60)
        outputs = [run.state().nodes[name].output for name in ("a", "b")]
    assert outputs == [[24, 19, "[secret INHERITED]", "x [secret in_file]"]] * 2


LIMITED_TOOLS = """\
import threading
from perdure import Context, tool

@tool
def told(this: Context, beats: int) -> list:
    for _ in range(beats):
        threading.Event().wait(0.2)
        this.heartbeat()
    return [this.execution, this.node, this.attempt, this.idempotency_key, this.deadline is not None]

@tool
def silent(this: Context) -> None:
    this.heartbeat({"done": 3})
    threading.Event().wait(60)

@tool
def hold(seconds: float) -> str:
    threading.Event().wait(seconds)
    return "held"
"""


@pytest.mark.timeout(120)
def test_a_node_actor_is_told_about_its_call_and_its_heartbeats_reach_who_waits_for_it(
    local_ray: None, tmp_path: Path
) -> None:
    (tmp_path / "tools.py").write_text(LIMITED_TOOLS)
    (tmp_path / "x.yaml").write_text(
        "name: x\ntools: [tools.py]\nnodes:\n"
        "  lively: {tool: told, with: {beats: 15}, heartbeat: 2s, deadline: 1h}\n"
        "  again: {tool: told, with: {beats: 0}, heartbeat: 2s, needs: [lively]}\n"
        "  free: {tool: told, with: {beats: 1}}\n"
        "  silent: {tool: silent, heartbeat: 500ms, retry: {attempts: 2, delay: 100ms}, needs: [again, free]}\n"
    )
    with perdure.connect(Settings(store=tmp_path / "store")) as client:
        run = client.start(tmp_path / "x.yaml", id="limits")
        with pytest.raises(ExecutionFailed, match=r"'silent' \(attempt 2\): HeartbeatLost: no heartbeat") as failed:
            run.result(timeout=60)
        nodes = run.state().nodes
    assert failed.value.error["data"] == {"progress": {"done": 3}}
    assert nodes["lively"].output == ["limits", "lively", 1, "limits/lively", True]
    assert nodes["free"].output == ["limits", "free", 1, "limits/free", False]


@pytest.mark.timeout(120)
def test_a_call_waits_for_a_node_actor_no_longer_than_its_queue_timeout(local_ray: None, tmp_path: Path) -> None:
    (tmp_path / "tools.py").write_text(LIMITED_TOOLS)
    (tmp_path / "x.yaml").write_text(
        "name: x\ntools: [tools.py]\nnodes:\n"
        "  a: {tool: hold, with: {seconds: 3}}\n  b: {tool: hold, with: {seconds: 3}}\n"
        "  first: {wait: 500ms}\n"
        "  c: {tool: hold, with: {seconds: 0}, needs: first, queue_timeout: 300ms,"
        " catch: [{on: [QueueTimeout], output: late}]}\n"
        "  d: {tool: hold, with: {seconds: 0}, queue_timeout: 300ms, needs: [a, b, c]}\n"
    )
    with perdure.connect(Settings(store=tmp_path / "store")) as client:
        run = client.start(tmp_path / "x.yaml")
        assert run.result(timeout=60) == {"d": "held"}
        assert run.state().nodes["c"].output == "late"


@pytest.mark.timeout(120)
def test_a_host_that_is_killed_while_a_child_is_undone_comes_back_and_goes_on_with_it(
    local_ray: None, tmp_path: Path
) -> None:
    (tmp_path / "tools.py").write_text(
        "import asyncio, os\nfrom pathlib import Path\nfrom perdure import tool\n"
        "here = Path(__file__).parent\n"
        "@tool\nasync def book(what: str) -> str: return what\n"
        "@tool\nasync def refuse() -> None: raise RuntimeError('no car')\n"
        "@tool\nasync def unbook(what: str) -> str:\n"
        "    with (here / 'effects').open('a') as file:\n"
        "        file.write(f'{what} {os.getpid()}\\n')\n"
        "    while what == 'room' and not (here / 'gate').exists():\n"
        "        await asyncio.sleep(0.01)\n"
        "    return what\n"
    )
    undo = "compensate: {tool: unbook, with: {what: "
    (tmp_path / "trip.yaml").write_text(
        "name: trip\ntools: [tools.py]\nworkflows:\n  stay:\n    name: stay\n    nodes:\n"
        f"      room: {{tool: book, with: {{what: room}}, {undo}room}}}}}}\n"
        f"      table: {{tool: book, with: {{what: table}}, needs: [room], {undo}table}}}}}}\n"
        f"nodes:\n  flight: {{tool: book, with: {{what: flight}}, {undo}flight}}}}}}\n"
        "  stay: {workflow: stay, needs: [flight]}\n  car: {tool: refuse, needs: [stay]}\n"
    )
    with perdure.connect(Settings(store=tmp_path / "store")) as client:
        run = client.start(tmp_path / "trip.yaml", id="trip")
        while [name for name, _ in effects(tmp_path)] != ["table", "room"]:
            time.sleep(0.01)
        os.kill(dict(effects(tmp_path))["room"], signal.SIGKILL)
        (tmp_path / "gate").touch()
        with pytest.raises(ExecutionFailed, match="no car"):
            run.result(timeout=60)
        assert [name for name, _ in effects(tmp_path)] == ["table", "room", "room", "flight"]
        assert client.get("trip.stay").status() == "compensated"
        assert {run.state().nodes[name].status for name in ("flight", "stay")} == {"compensated"}
