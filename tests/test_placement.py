"""Where tools run: what definitions say of it and what is wrong with it, the pools that follow, code as packages."""

import asyncio
import os
from pathlib import Path
from typing import Any

import pytest
import ray
from scenario import plan_of

from perdure import CallCancelled, Context, tool
from perdure.actors.context import Beats
from perdure.actors.demands import Demand, demand_of
from perdure.actors.models import Models
from perdure.actors.packages import LIMIT, digest_of, folder_of, pack, signature_of, unpack
from perdure.actors.tools import find
from perdure.actors.work import Work, call_in_thread, runs_apart, worker
from perdure.cluster.checks import checked
from perdure.cluster.node_keeper import _options
from perdure.cluster.settings import Settings
from perdure.definitions.loading import load
from perdure.definitions.parts import Resources
from perdure.errors import BadInput, DefinitionError
from perdure.tool_checks import code_findings, missing_files


@tool(name="placed.plain")
def plain() -> int:
    return 1


@tool(name="placed.quick")
async def quick() -> int:
    return 1


class Loaded:
    made = 0

    def __init__(self, name: str = "model") -> None:
        Loaded.made += 1
        self.name, self.busy, self.most = name, 0, 0

    async def __call__(self, text: str) -> list[Any]:
        self.busy += 1
        self.most = max(self.most, self.busy)
        await asyncio.sleep(0.01)
        self.busy -= 1
        return [self.name, text, self.most]


class NeedsArguments:
    def __init__(self, path: str) -> None: ...

    def __call__(self) -> None: ...


PLAIN, QUICK, LOADED = f"{__name__}:plain", f"{__name__}:quick", f"{__name__}:Loaded"


@pytest.mark.parametrize(
    ("place", "node", "apart"),
    [
        (PLAIN, {}, True),
        (PLAIN, {"run_on": "loop"}, False),
        (QUICK, {}, False),
        (QUICK, {"run_on": "actor"}, True),
        (QUICK, {"resources": {"num_cpus": 1}}, True),
        (QUICK, {"pool": {"concurrency": 2}}, True),
        (QUICK, {"runtime_env": {"env_vars": {"A": "b"}}}, True),
        (LOADED, {}, True),
        ("no.such:thing", {}, False),
    ],
)
def test_plain_functions_classes_and_what_asks_for_anything_run_apart(
    place: str, node: dict[str, Any], apart: bool
) -> None:
    plan = plan_of({"a": {"tool": "t", **node}})
    assert runs_apart(plan, plan.node("a"), place) == apart


def test_a_node_says_more_than_its_tool_and_that_more_than_the_workflow() -> None:
    declared = {"name": "t", "call": PLAIN, "resources": {"num_gpus": 1}, "runtime_env": {"pip": ["numpy"]}}
    nodes = {
        "a": {"tool": "t", "resources": {"custom": {"slot": 2}, "label_selector": {"zone": "!b"}}},
        "b": {"tool": "t", "runtime_env": {"env_vars": {"A": "b"}}, "pool": {"max": 2, "idle": "1m"}},
        "c": {"tool": "u"},
        "d": {"foreach": {"items": [1]}, "tool": "u", "resources": {"memory": 1024}},
    }
    plan = plan_of(nodes, tools=[declared], runtime_env={"working_dir": "here"})
    places = {"working_dir:here": "code:abc"}
    found = {path: demand_of(plan, plan.node(path), PLAIN, places) for path in ("a", "b", "c", "d[0]/do")}
    assert found["a"] == Demand(
        PLAIN, {"label_selector": {"zone": "!b"}, "resources": {"slot": 2.0}}, {"pip": ["numpy"]}
    )
    assert found["b"] == Demand(PLAIN, {"num_gpus": 1.0}, {"env_vars": {"A": "b"}}, max=2, idle=60)
    assert found["c"] == Demand(PLAIN, code=(("working_dir", "abc"),))
    assert found["d[0]/do"].takes == {"memory": 1024}
    assert len({each.key for each in found.values()}) == 4
    assert found["a"].needs == "slot=2, zone='!b'"
    assert found["d[0]/do"].amounts == {"memory": 1024.0}


def test_ray_knows_all_that_a_node_may_ask_for() -> None:
    asked = {
        "num_cpus": 2, "num_gpus": 1, "memory": 1024, "accelerator_type": "A100", "label_selector": {"zone": "b"},
        "custom": {"slot": 2},
    }  # fmt: skip
    assert asked.keys() == Resources.model_fields.keys()
    plan = plan_of({"a": {"tool": "t", "resources": asked}})
    options = _options(demand_of(plan, plan.node("a"), PLAIN, {}))
    assert options == {**{key: value for key, value in asked.items() if key != "custom"}, "resources": {"slot": 2}}
    ray.remote(Loaded).options(**options)
    with pytest.raises(ValueError, match="Invalid option keyword slot"):  # so that the line above says something
        ray.remote(Loaded).options(slot=2)


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("a: {set: 1, resources: {num_gpus: 1}}", "this node is done by no tool; take 'resources' out"),
        ("a: {wait: 1h, run_on: actor}", "only a tool runs in a node actor"),
        ("a: {foreach: {items: [1], as: i}, do: {b: {set: 1}}, pool: {max: 1}}", "set it on the nodes under 'do'"),
        ("a: {tool: t, run_on: loop, resources: {num_cpus: 1}}", "'resources' is for a node actor"),
        ("a: {tool: t, resources: {num_gpus: 1.5}}", "1.5 is no whole number"),
        ("a: {tool: t, resources: {custom: {GPU: 1}}}", "'GPU' is Ray's own; write 'num_gpus'"),
        ("a: {tool: t, resources: {custom: {slot: -1}}}", "-1 of 'slot' is less than nothing"),
        ("a: {tool: t, pool: {min: 3, max: 2}}", "the smallest size, 3, is over the largest, 2"),
        ("a: {tool: t, runtime_env: {working_dir: 's3://x'}}", "'s3://x' is an address"),
        ("a: {tool: t, runtime_env: {pip: ['${{ input.x }}']}}", "requirements are not computed"),
        ("a: {tool: t, runtime_env: {env_vars: {A: '${{ secrets.x }}'}}}", "give the tool a secret by 'with'"),
        ("a: {foreach: {items: [1]}, tool: t, pool: {min: 3, max: 2}}", "the smallest size"),
    ],
)
def test_what_cannot_be_placed_is_found_once_at_its_line(line: str, says: str) -> None:
    with pytest.raises(DefinitionError) as caught:
        load(f"name: x\nnodes:\n  {line}\n")
    (problem,) = caught.value.problems
    assert says in problem.message
    assert problem.line == 3


def test_declared_tools_and_the_workflow_are_checked_too() -> None:
    with pytest.raises(DefinitionError, match=r"is an address(.|\n)*the smallest size"):
        load({
            "name": "x", "nodes": {"a": {"tool": "t"}}, "runtime_env": {"py_modules": ["http://x"]},
            "tools": [{"name": "t", "call": PLAIN, "pool": {"min": 2, "max": 1}}],
        })  # fmt: skip


def test_a_module_that_a_runtime_environment_brings_need_not_be_here(tmp_path: Path) -> None:
    nodes = {"a": {"tool": "no_such_module:f", "runtime_env": {"py_modules": ["m"]}}, "b": {"tool": PLAIN}}
    definition = load({"name": "x", "nodes": nodes}, str(tmp_path))
    assert checked(Settings(), definition, None, "x")[1]["no_such_module:f"] == "no_such_module:f"
    assert list(code_findings(definition)) == []
    assert [(each.path, each.message) for each in missing_files(definition)] == [
        (("nodes", "a", "runtime_env", "py_modules", 0), "m does not exist")
    ]


def test_a_package_is_the_same_for_the_same_content_and_comes_out_as_it_went_in(tmp_path: Path) -> None:
    for name in ("one", "two"):
        (tmp_path / name / "inner" / "__pycache__").mkdir(parents=True)
        (tmp_path / name / "inner" / "__pycache__" / "x.pyc").write_text(name)
        (tmp_path / name / "inner" / "text").write_text("the same")
        (tmp_path / name / "run.sh").write_text("#!")
        (tmp_path / name / "run.sh").chmod(0o755)
    data = pack(tmp_path / "one", "under")
    assert data == pack(tmp_path / "two", "under") != pack(tmp_path / "one")
    digest = digest_of(data)
    folder = unpack(digest, data)
    assert folder == unpack(digest, b"it is there already") == folder_of(digest)
    found = sorted(each.relative_to(folder).as_posix() for each in folder.rglob("*") if each.is_file())
    assert found == ["under/inner/text", "under/run.sh"]
    assert os.access(folder / "under" / "run.sh", os.X_OK)
    assert not os.access(folder / "under" / "inner" / "text", os.X_OK)


def test_what_cannot_be_packed_says_why(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="does not exist"):
        pack(tmp_path / "nothing")
    with pytest.raises(BadInput, match="has no files"):
        pack(tmp_path)
    with (tmp_path / "large").open("wb") as file:
        file.truncate(LIMIT + 1)
    with pytest.raises(BadInput, match="holds 256 MB, more than the 256 MB that are stored; keep data"):
        signature_of(tmp_path)
    with pytest.raises(BadInput, match="was altered"):
        unpack("0" * 64, b"data")


def test_a_class_is_a_tool_where_it_can_be_called_and_made_without_arguments() -> None:
    assert find(LOADED).made_of is Loaded
    assert find(LOADED).is_async
    with pytest.raises(BadInput, match="is made without arguments; give path of __init__ a default"):
        find(f"{__name__}:NeedsArguments")
    with pytest.raises(BadInput, match="is a class without __call__"):
        find("builtins:int")


async def test_a_tool_that_went_down_with_its_host_twice_runs_apart_from_then_on() -> None:
    apart: list[int] = []

    async def call_elsewhere(work: Work) -> Any:
        apart.append(work.resumed)

    plan = plan_of({"a": {"tool": "t"}})
    for resumed in range(4):
        await worker(Models(), call_elsewhere)(Work("x-1", "a", plan.node("a"), 1, {}, plan, QUICK, resumed=resumed))
    assert apart == [2, 3]


async def test_without_ray_a_class_is_made_once_and_takes_as_many_calls_at_once_as_its_pool_says() -> None:
    made = Loaded.made
    plan = plan_of({"a": {"tool": "t", "pool": {"concurrency": 2}}})
    do = worker(Models(), call_in_thread)
    works = [Work("x-1", "a", plan.node("a"), 1, {"text": "t"}, plan, LOADED) for _ in range(6)]
    results = await asyncio.gather(*(do(work) for work in works))
    assert results[-1] == ["model", "t", 2]
    assert Loaded.made == made + 1


def test_a_context_says_when_nobody_waits_for_the_call_any_more() -> None:
    heard: list[Any] = []
    beats = Beats(heard.append)
    context = beats.of(Context("x", "a", 1, "x/a"))
    context.heartbeat({"done": 1})
    context.heartbeat()
    assert not context.cancelled
    beats.stop()
    assert context.cancelled
    with pytest.raises(CallCancelled, match="the call of 'a' is not wanted any more"):
        context.heartbeat({"done": 2})
    assert heard == [{"done": 1}]
