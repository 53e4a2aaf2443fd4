"""Node actors on a real local Ray: warm classes, room, environments, code in the store, and calls that are stopped."""

import contextlib
import os
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import ray

import perdure
from perdure import Client, ExecutionFailed, Run, Settings
from perdure.cluster.client import AsyncClient
from perdure.cluster.ray_cluster import namespace_of

pytestmark = pytest.mark.timeout(120)

TOOLS = """\
import asyncio, os, sys, threading, time
from pathlib import Path
from perdure import Context, tool

HERE = Path({here!r})

@tool
class Model:
    def __init__(self) -> None:
        self.pid, self.thread, self.calls = os.getpid(), threading.get_ident(), 0

    def __call__(self, n: int) -> list:
        assert (self.pid, self.thread) == (os.getpid(), threading.get_ident())
        self.calls += 1
        return [self.pid, self.calls]

@tool
class Together:
    def __init__(self) -> None:
        self.all = asyncio.Barrier(4)

    async def __call__(self, n: int) -> int:
        await self.all.wait()
        return os.getpid()

@tool
class Broken:
    def __init__(self) -> None:
        raise MemoryError("the model does not fit")

    def __call__(self) -> None: ...

@tool
def polite(context: Context) -> None:
    (HERE / "polite").write_text(str(os.getpid()))
    while not context.cancelled:
        context.heartbeat({{"waits": True}}) if not context.cancelled else None
        time.sleep(0.02)
    (HERE / "stopped").write_text(str(os.getpid()))

@tool
def deaf() -> None:
    (HERE / "deaf").write_text(str(os.getpid()))
    threading.Event().wait(100)

@tool
async def slept(context: Context) -> None:
    await asyncio.sleep(100)

@tool
def pid(n: int = 0) -> int:
    return os.getpid()

@tool
def held(until: str) -> int:
    while not (HERE / until).exists():
        time.sleep(0.02)
    return os.getpid()

@tool
def die(how: str) -> None:
    import ctypes, signal
    {{"exit": lambda: os._exit(3), "segv": lambda: ctypes.string_at(0),
      "kill": lambda: os.kill(os.getpid(), signal.SIGKILL)}}[how]()

@tool
def unlucky(n: int) -> int:
    if n == 150:
        os._exit(3)
    return n

@tool
def surroundings() -> list:
    import added
    return [added.WORD, os.environ["COLOUR"], Path("data.txt").read_text(), Path.cwd() != HERE]
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("nodes")
    (folder / "tools.py").write_text(TOOLS.format(here=str(folder)))
    return folder


@pytest.fixture(scope="module")
def client(local_ray: None, folder: Path) -> Iterator[Client]:
    with perdure.connect(Settings(store=folder / "store", node_actor_idle=5)) as client:
        yield client


@pytest.fixture
def start(client: Client, folder: Path) -> Callable[..., Run]:
    def start(nodes: dict[str, Any], **parts: Any) -> Run:
        import json

        file = folder / "x.json"
        file.write_text(json.dumps({"name": "x", "tools": ["tools.py"], "nodes": nodes, **parts}))
        return client.start(file)

    return start


def client_namespace(client: Client) -> str:
    return namespace_of(Settings(store=client._client._settings.store))


def is_alive(pid: int) -> bool:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, 0)
        return b"\0" in Path(f"/proc/{pid}/cmdline").read_bytes()
    return False


def until(what: Callable[[], Any], seconds: float = 20) -> Any:
    """Return what is asked for as soon as it is there."""
    end = time.monotonic() + seconds
    while not (found := what()):
        assert time.monotonic() < end, "it did not come to be"
        time.sleep(0.02)
    return found


def test_a_class_is_made_once_for_many_calls_and_called_in_the_thread_that_it_was_made_in(
    start: Callable[..., Run],
) -> None:
    one_model = {"pool": {"max": 1}}
    calls = {"foreach": {"items": [1, 2, 3]}, "tool": "Model", "with": {"n": 1}, **one_model}
    outputs = start({"a": calls}).result(timeout=60)["a"]
    assert sorted(calls for _, calls in outputs) == [1, 2, 3]
    assert start({"b": {"tool": "Model", "with": {"n": 1}, **one_model}}).result(timeout=60) == {
        "b": [outputs[0][0], 4]
    }


def test_an_async_class_takes_as_many_calls_at_once_as_its_pool_says_in_one_process(start: Callable[..., Run]) -> None:
    pool = {"max": 1, "concurrency": 4}
    together = {"foreach": {"items": [1, 2, 3, 4]}, "tool": "Together", "with": {"n": 1}, "pool": pool}
    assert len(set(start({"a": together}).result(timeout=60)["a"])) == 1


def test_what_the_loading_of_a_tool_raises_is_the_error_of_the_attempt(start: Callable[..., Run]) -> None:
    catch = [{"on": ["MemoryError"], "output": "caught"}]
    assert start({"a": {"tool": "Broken", "catch": catch}}).result(timeout=60) == {"a": "caught"}
    with pytest.raises(ExecutionFailed, match=r"attempt 2\): MemoryError: the model does not fit"):
        start({"a": {"tool": "Broken", "retry": {"attempts": 2, "delay": 0.1}}}).result(timeout=60)


def test_a_node_that_waits_for_room_says_for_what_and_no_longer_than_its_queue_timeout(
    start: Callable[..., Run], client: Client, folder: Path
) -> None:
    asks = {"resources": {"custom": {"fake_gpu": 2}}}
    first = start({"a": {"tool": "held", "with": {"until": "enough"}, **asks}})
    until(lambda: any(each.calls for each in client.pools() if each.place.endswith(":held")))
    late = {"tool": "pid", **asks, "queue_timeout": "1s", "catch": [{"on": ["QueueTimeout"], "output": "late"}]}
    second = start({"b": {"tool": "pid", **asks}, "c": late, "d": {"tool": "pid", "resources": {"num_gpus": 1}}})
    waits = until(lambda: second.state().nodes["b"].waits_for)
    assert waits == "waiting for fake_gpu=2"
    held = next(each for each in client.pools() if each.place.endswith(":held"))
    assert (held.needs, held.actors, held.busy, held.calls, held.queued) == ("fake_gpu=2", 1, 1, 1, 0)
    until(lambda: "the whole cluster has 0 GPU" in second.state().nodes["d"].waits_for)
    assert until(lambda: second.state().nodes["c"].output) == "late"
    second.skip_node("d")
    (folder / "enough").touch()
    output = second.result(timeout=60)
    assert output["b"] != first.result(timeout=60)["a"]
    told = [type(each.event).__name__ for each in second.events() if getattr(each.event, "node", "") == "b"]
    assert list(dict.fromkeys(told)) == ["NodeScheduled", "NodeQueued", "NodePlaced", "NodeSucceeded"]


def test_a_call_that_hears_that_it_is_cancelled_leaves_its_process_warm(
    start: Callable[..., Run], folder: Path
) -> None:
    run = start({"a": {"tool": "polite"}})
    until((folder / "polite").exists)
    run.cancel()
    first = until(lambda: (folder / "stopped").exists() and (folder / "stopped").read_text())
    (folder / "polite").unlink()
    again = start({"a": {"tool": "polite", "timeout": "1s"}})
    with pytest.raises(ExecutionFailed, match="Timeout: it took longer than 1 s"):
        again.result(timeout=60)
    assert (folder / "polite").read_text() == first


def test_one_that_cannot_hear_it_is_killed(start: Callable[..., Run], folder: Path) -> None:
    run = start({"a": {"tool": "deaf"}, "b": {"tool": "slept", "run_on": "actor", "timeout": "100ms", "catch": [{}]}})
    pid = int(until(lambda: (folder / "deaf").exists() and (folder / "deaf").read_text()))
    assert is_alive(pid)
    run.terminate()
    until(lambda: not is_alive(pid))


@pytest.mark.parametrize("how", ["exit", "segv", "kill"])
def test_a_process_that_dies_is_lost_four_times_and_then_an_error_that_names_it(
    start: Callable[..., Run], how: str
) -> None:
    run = start(
        {"a": {"tool": "die", "with": {"how": how}, "catch": [{"on": ["WorkerLost"], "output": "${{ error }}"}]}}
    )
    error = run.result(timeout=60)["a"]
    assert error["message"].startswith("the process that ran it was lost 4 times; the last time process ")
    assert "crashed" in error["message"]
    resumed = [each.event for each in run.events() if type(each.event).__name__ == "NodeResumed"]
    assert len(resumed) == 3
    assert all("it crashed" in getattr(each, "why") for each in resumed)  # noqa: B009


def test_when_the_keeper_dies_another_one_takes_its_place_and_the_work_is_done_again(
    start: Callable[..., Run], client: Client, folder: Path
) -> None:
    run = start({"a": {"tool": "held", "with": {"until": "killed"}}, "b": {"tool": "pid", "needs": "a"}})
    until(lambda: any(each.calls for each in client.pools() if each.place.endswith(":held")))
    (namespace,) = {
        actor["namespace"]
        for actor in ray.util.list_named_actors(all_namespaces=True)
        if actor["name"] == "perdure-node-keeper" and actor["namespace"] == client_namespace(client)
    }
    ray.kill(ray.get_actor("perdure-node-keeper", namespace=namespace))
    until(lambda: run.state().nodes["a"].resumed)
    (folder / "killed").touch()
    assert run.result(timeout=60)["b"]
    (resumed,) = [each.event for each in run.events() if type(each.event).__name__ == "NodeResumed"]
    assert "its keeper died" in getattr(resumed, "why")  # noqa: B009


def test_a_runtime_environment_gives_a_tool_modules_variables_and_a_folder(
    start: Callable[..., Run], folder: Path
) -> None:
    (folder / "mine").mkdir()
    (folder / "mine" / "data.txt").write_text("data")
    (folder / "added.py").write_text("WORD = 'imported'\n")
    env = {"working_dir": "mine", "py_modules": ["added.py"], "env_vars": {"COLOUR": "red"}}
    output = start({"a": {"tool": "surroundings"}}, runtime_env=env).result(timeout=60)
    assert output == {"a": ["imported", "red", "data", True]}


def test_an_environment_that_ray_refuses_fails_the_attempt(start: Callable[..., Run]) -> None:
    with pytest.raises(ExecutionFailed, match="at node 'a'"):
        start({"a": {"tool": "pid", "resources": {"label_selector": {"a": "!!b"}}}}).result(timeout=60)


def test_progress_is_seen_live(start: Callable[..., Run], folder: Path) -> None:
    (folder / "polite").unlink(missing_ok=True)
    run = start({"a": {"tool": "polite"}})
    told = next(run.progress())
    assert (told.node, told.attempt, told.progress) == ("a", 1, {"waits": True})
    run.terminate()


async def test_tool_files_are_found_where_they_are_not(local_ray: None, tmp_path: Path) -> None:
    (tmp_path / "away").mkdir()
    (tmp_path / "away" / "tools.py").write_text(
        "from perdure import tool\n"
        "@tool\ndef there() -> str: return __file__\n"
        "@tool\nasync def here() -> str: return __file__\n"
    )
    file = tmp_path / "away" / "x.yaml"
    file.write_text("name: x\ntools: [tools.py]\nnodes: {a: {tool: there}, b: {tool: here}}\n")
    settings = Settings(store=tmp_path / "store")
    async with await AsyncClient.open(settings, "none") as client:
        run = await client.start(file, id="moved", confirm=False)
        shutil.rmtree(tmp_path / "away")  # as on another machine
        async with await AsyncClient.open(settings, "ray"):
            output = await run.result(timeout=60)
    assert output["a"] == output["b"]
    assert output["a"].endswith("/tools.py")
    assert "perdure-code-" in output["a"]


def test_quick_calls_go_together_and_one_that_kills_its_process_takes_no_other_down_with_it(
    start: Callable[..., Run],
) -> None:
    each = {"items": "range(200)", "as": "n", "max_parallel": 200, "on_failure": "continue"}
    many = {"foreach": each, "tool": "unlucky", "with": {"n": "${{ n }}"}}
    run = start({"many": many}, output="${{ nodes.many.output }}")
    assert run.result(timeout=60) == [None if n == 150 else n for n in range(200)]
