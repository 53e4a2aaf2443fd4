"""Node kinds of the user's own: registered or installed, checked, described, stored, and run for real."""

import asyncio
import re
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
import yaml
from jsonschema import Draft202012Validator
from pydantic import BaseModel, Field, model_validator
from scenario import BOOM, due, plan_of, running

import perdure
from perdure import ExecutionFailed, Settings, tool
from perdure.actors.context import Context
from perdure.actors.inputs import ReportFailure
from perdure.cluster.client import AsyncClient
from perdure.cluster.nats_server import NatsServer
from perdure.definitions import own_kinds
from perdure.definitions.json_schema import workflow_schema
from perdure.definitions.loading import load
from perdure.definitions.loading import plan_of as stored_plan
from perdure.definitions.model import Workflow
from perdure.definitions.plan import digest_of
from perdure.definitions.yaml_writer import to_yaml
from perdure.errors import BadInput, DefinitionError
from perdure.events.vocabulary import NodeScheduled
from perdure.testing import play

SECTION = (
    (Path(__file__).parent.parent / "docs/definitions.md")
    .read_text()
    .partition("## Kinds of your own")[2]
    .partition("\n## ")[0]
)


@pytest.fixture(autouse=True)
def _only_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(own_kinds, "_registered", {})


@pytest.fixture(scope="module")
async def client(settings: Settings, server: NatsServer) -> AsyncIterator[AsyncClient]:
    async with await perdure.connect_async(settings, local=True) as client:
        yield client


class Unit(BaseModel):
    name: str
    size: float = Field(gt=0)


class Measure(BaseModel, extra="forbid"):
    value: float
    unit: Unit = Unit(name="s", size=1)

    @model_validator(mode="after")
    def _is_small(self) -> "Measure":
        if self.value * self.unit.size > 1000:
            raise ValueError("it is too much")
        return self


def register_measure() -> None:
    @perdure.node("measure")
    async def measure(ctx: Context, config: Measure) -> dict[str, Any]:
        """Measure a value."""
        return {"total": config.value * config.unit.size, "by": f"{ctx.node}#{ctx.attempt}"}


def flow(**nodes: Any) -> dict[str, Any]:
    return {"name": "own", "nodes": nodes}


async def outcome(client: AsyncClient, workflow: Any, value: Any = None) -> Any:
    return await (await client.start(workflow, input=value, id=f"own-{uuid4().hex}")).result(20)


async def error(client: AsyncClient, workflow: Any, value: Any = None) -> dict[str, Any]:
    with pytest.raises(ExecutionFailed) as raised:
        await outcome(client, workflow, value)
    return raised.value.error


def problems(workflow: Any) -> list[str]:
    with pytest.raises(DefinitionError) as raised:
        load(workflow)
    return [str(each).partition("\n")[0] for each in raised.value.problems]


async def test_the_kind_of_the_page_runs_as_the_page_writes_it(client: AsyncClient) -> None:
    (code,), (node,) = (re.findall(rf"```{language}\n(.*?)```", SECTION, re.DOTALL) for language in ("python", "yml"))
    exec(code, {})
    run = await client.start(flow(**yaml.safe_load(node)), input={"minutes": 0.0001}, id=f"nap-{uuid4().hex}")
    assert await run.result(20) == {"nap": {"slept": 0.006, "key": f"{run.id}/nap"}}
    scheduled = [each.event async for each in run.events() if isinstance(each.event, NodeScheduled)]
    assert [each.input for each in scheduled] == [{"seconds": 0.006}]


async def test_a_function_is_a_kind_that_a_foreach_repeats(client: AsyncClient) -> None:
    register_measure()
    each = {
        "foreach": {"items": "input"},
        "do": {"m": {"measure": {"value": "${{ item }}", "unit": {"name": "m", "size": 2}}}},
    }
    assert await outcome(client, flow(all=each), [1, 2]) == {
        "all": [{"m": {"total": 2, "by": "all[0]/m#1"}}, {"m": {"total": 4, "by": "all[1]/m#1"}}]
    }


async def test_a_computed_config_that_does_not_fit_fails_the_attempt_and_names_the_field(client: AsyncClient) -> None:
    register_measure()
    node = {"measure": {"value": "${{ input }}", "unit": {"name": "m", "size": "${{ 0 - 1 }}"}}}
    assert await error(client, flow(m=node), "much") == {
        "type": "Invalid",
        "message": "the config of 'm' does not fit node kind 'measure': value: Input should be a valid number, "
        "unable to parse string as a number; unit.size: Input should be greater than 0",
        "data": None,
    }


async def test_an_attempt_that_takes_too_long_is_cancelled(client: AsyncClient) -> None:
    stopped = asyncio.Event()

    @perdure.node("hang")
    class Hang:
        config = Measure

        async def execute(self, ctx: Context, config: Measure) -> None:
            try:
                await asyncio.Event().wait()
            finally:
                stopped.set()

    failed = await error(client, flow(h={"hang": {"value": 1}, "timeout": 0.05}))
    assert (failed["type"], stopped.is_set()) == ("Timeout", True)


async def test_an_attempt_that_falls_silent_is_given_up(client: AsyncClient) -> None:
    @perdure.node("hang")
    async def hang(ctx: Context, config: Measure) -> None:
        ctx.heartbeat(config.value)
        await asyncio.Event().wait()

    found = await error(client, flow(a={"hang": {"value": 7}, "heartbeat": "100ms"}))
    assert (found["type"], found["data"]) == ("HeartbeatLost", {"progress": 7})


@tool(name="own_kinds_test.forget")
async def forget() -> None:
    own_kinds._registered.clear()


async def test_a_node_fails_with_the_entry_point_to_install_where_its_kind_is_not_there(client: AsyncClient) -> None:
    register_measure()
    nodes = flow(f={"tool": "own_kinds_test.forget"}, m={"measure": {"value": 1}, "needs": "f"})
    failed = await error(client, nodes)
    assert failed["type"] == "UnknownKind"
    assert "install the package with the entry point 'measure' in the group 'perdure.nodes'" in failed["message"]


def test_a_stored_definition_loads_without_the_kind_and_reads_back_as_the_same() -> None:
    register_measure()
    definition = load(flow(m={"measure": {"value": "${{ input }}"}, "retry": {"attempts": 2}, "description": "d"}))
    stored, written = definition.workflow.model_dump_json(by_alias=True), to_yaml(definition.workflow)
    assert yaml.safe_load(written)["nodes"]["m"]["measure"] == {"value": "${{ input }}"}
    assert load(written).plan.digest == definition.plan.digest
    assert load(flow(m={"custom": {"measure": {"value": 1}}})).plan == load(flow(m={"measure": {"value": 1}})).plan
    own_kinds._registered.clear()
    assert stored_plan(stored).digest == definition.plan.digest
    again = Workflow.model_validate_json(stored)
    assert again == definition.workflow
    assert digest_of(again) == definition.plan.digest
    (problem,) = problems(to_yaml(again))
    assert "there is no node kind 'measure' here; install the package" in problem


def test_the_builder_adds_nodes_of_own_kinds() -> None:
    register_measure()
    built = perdure.dag("own")
    first = built.set("a", 3)
    built.custom("m", "measure", {"value": first.output}, timeout="5s")
    expected = flow(a={"set": 3}, m={"measure": {"value": "${{ nodes.a.output }}"}, "timeout": 5})
    assert load(built.build()).plan == load(expected).plan


def test_a_config_is_checked_before_anything_runs_where_no_expression_is_in_it() -> None:
    register_measure()
    text = """\
name: own
nodes:
  a:
    measure:
      value: much
      unit: {name: "${{ input }}", size: 0}
      values: 3
  b: {measure: {}}
  c: {measure: {value: 5000}}
  d: {measure: {value: "${{ 5000 }}"}}
  e: {measure: {value: 1, unit: "${{ input.unit }}"}}
  f: {measure: "${{ input }}"}
"""
    assert problems(text) == [
        "definition:5:14: 'value' is a number, not 'much'",
        "definition:6:42: 'size' is more than 0, not 0",
        "definition:7:7: unknown key 'values'",
        "definition:8:16: the key 'value' is missing; add it",
        "definition:9:16: 'measure': it is too much",
    ]


@pytest.mark.parametrize(
    ("node", "words"),
    [
        ({"mesure": {"value": 1}}, "it has 'mesure'; did you mean 'measure'?"),
        ({"measure": {"value": 1}, "tool": "t"}, "this one has 'tool' and 'measure'; make it two nodes"),
        ({"measure": {"value": 1}, "retri": 3}, "unknown key 'retri'; did you mean 'retry'?"),
        ({"needs": []}, "give it one of 'agent', 'tool'"),
        ({"needs": []}, "'fail', 'measure'"),
        ({"custom": {}}, "it has at least 1"),
    ],
)
def test_messages_know_the_kinds_that_are_there(node: dict[str, Any], words: str) -> None:
    register_measure()
    assert words in problems(flow(a=node))[0]


def test_a_kind_that_is_not_there_is_told_as_any_unknown_word() -> None:
    assert "it has 'measure', which is no key of a node" in problems(flow(a={"measure": {"value": 1}}))[0]


def test_the_json_schema_has_the_kinds_with_their_configs() -> None:
    register_measure()
    schema = workflow_schema()
    Draft202012Validator.check_schema(schema)
    editor = Draft202012Validator(schema)
    fits = [
        {"value": 1},
        {"value": "${{ input }}", "unit": {"name": "m", "size": "${{ input }}"}},
        {"value": 1, "unit": "${{ input }}"},
        "${{ input }}",
    ]
    wrong = [{"value": "much"}, {"unit": {"name": "m", "size": 1}}, {"value": 1, "more": 1}, 3]
    wrong.append({"value": 1, "unit": {"name": "m", "size": 0}})
    assert [editor.is_valid(flow(m={"measure": each, "timeout": 5})) for each in fits] == [True] * len(fits)
    assert [editor.is_valid(flow(m={"measure": each})) for each in wrong] == [False] * len(wrong)
    assert not editor.is_valid(flow(m={"measure": {"value": 1}, "retri": 3}))
    offered = schema["$defs"]["Node"]["allOf"][-1]["then"]["properties"]
    assert offered["measure"]["description"] == "Measure a value."


def test_the_json_schema_has_no_kinds_that_are_not_there() -> None:
    assert "measure" not in str(workflow_schema())


def test_another_try_gets_the_recorded_config_and_secrets_stay_references() -> None:
    register_measure()
    node = {"measure": {"value": 1, "unit": {"name": "${{ secrets.UNIT }}", "size": 2}}, "retry": {"attempts": 2}}
    given = running({"m": node})
    assert given.plan.secrets == {"UNIT"}
    given.when(ReportFailure("m", 1, BOOM)).when(due(given, "retry/m"))
    first, second = (event for event in given.events if isinstance(event, NodeScheduled))
    assert (first.input, first.secrets) == (second.input, second.secrets)
    assert first.secrets == ["/unit/name"]


def test_a_play_scripts_a_node_under_the_name_of_its_kind() -> None:
    register_measure()
    played = play(flow(m={"measure": {"value": "${{ input }}"}}), input=3, tools={"measure": lambda value: value + 1})
    assert played.output == {"m": 4}


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        ("tool", "'tool' is a node kind of perdure already"),
        ("retry", "'retry' is a key of every node already"),
        ("two words", "'two words' is no name of a node kind"),
    ],
)
def test_a_kind_has_a_name_of_its_own(kind: str, words: str) -> None:
    with pytest.raises(BadInput, match=words):
        perdure.node(kind)


async def no_hint(ctx: Any, config) -> None:  # type: ignore[no-untyped-def]  # noqa: ANN001
    pass


def not_async(ctx: Any, config: Measure) -> None:
    pass


@pytest.mark.parametrize(
    ("target", "words"), [(no_hint, "needs a pydantic model as its config, not None"), (not_async, "needs `async def")]
)
def test_a_kind_has_a_config_and_async_code(target: Callable[..., Any], words: str) -> None:
    with pytest.raises(BadInput, match=words):
        perdure.node("mine")(target)


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Return what installs a package with the code of a module and an entry point."""

    def installed(kind: str, code: str) -> None:
        module = f"own_{uuid4().hex}"
        (tmp_path / f"{module}.py").write_text(code)
        info = tmp_path / f"{module}-1.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {module}\nVersion: 1\n")
        (info / "entry_points.txt").write_text(f"[perdure.nodes]\n{kind} = {module}:Installed\n")
        monkeypatch.syspath_prepend(tmp_path)
        own_kinds._installed.cache_clear()

    yield installed
    own_kinds._installed.cache_clear()


INSTALLED = """
import perdure
from pydantic import BaseModel

class Config(BaseModel):
    text: str

@perdure.node("shout")
class Installed:
    config = Config

    async def execute(self, ctx, config):
        return config.text.upper()
"""


async def test_an_installed_kind_is_found_by_its_entry_point(client: AsyncClient, install: Any) -> None:
    install("shout", INSTALLED)
    assert await outcome(client, flow(s={"shout": {"text": "${{ input }}"}}), "hey") == {"s": "HEY"}
    assert problems(flow(s={"shuot": {}}))[0].endswith("it has 'shuot'; did you mean 'shout'?")
    assert "shout node" in workflow_schema()["$defs"]


@pytest.mark.parametrize(
    ("code", "words"),
    [
        ("import nothing_there", "failed: ModuleNotFoundError: No module named 'nothing_there'"),
        ("def Installed(): pass", "is no node kind 'shout'; decorate it with `@perdure.node('shout')`"),
    ],
)
def test_an_entry_point_that_cannot_be_used_is_told_where_the_kind_is(install: Any, code: str, words: str) -> None:
    install("shout", code)
    (problem,) = problems(flow(s={"shout": {"text": "x"}}))
    assert words in problem


def test_an_entry_point_cannot_take_the_place_of_a_kind_of_perdure(install: Any) -> None:
    install("tool", INSTALLED)
    assert plan_of({"t": {"tool": "x"}}).node("t").kind == "tool"
    assert "tool node" not in workflow_schema()["$defs"]
