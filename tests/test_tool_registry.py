"""The registry of tools: names, versions, tags, schemas from hints and docstrings, and where tools are found."""

import asyncio
import json
import logging
import pickle
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import pytest
import test_cli
from pydantic import BaseModel, Field
from test_cli import perdure as command

from perdure import Context, Settings, tool
from perdure.actors import tool_sources
from perdure.actors.outside import Outside
from perdure.actors.secret_values import Secrets
from perdure.actors.tool_schema import schema_of, validate
from perdure.actors.tools import call, call_async, find, locate
from perdure.cluster.tool_list import listed
from perdure.definitions.builtin_tools import BUILTINS
from perdure.definitions.loading import load
from perdure.errors import BadInput, DefinitionError, EnvironmentProblem, SecretMissing, ToolNotFound

environment = test_cli.environment


class Order(BaseModel):
    number: int
    lines: list[str] = []


@tool(name="registry.ship", version="1.9", tags=["shop"])
def ship_old(number: int) -> str:
    return f"old {number}"


@tool(name="registry.ship", version="1.10", tags=["shop", "fast"])
def ship(
    order: Order, context: Context, speed: float = 1.0, note: Annotated[str, Field(description="For whom.")] = ""
) -> Order:
    """Ship an order.

    It leaves the house.

    Args:
        order: What is shipped.
        speed: How fast,
            in miles.
    """
    return order.model_copy(update={"lines": [*order.lines, context.node]})


@tool(name="registry.sphinx")
class Sphinx:
    """Riddles."""

    def __call__(self, riddle: str, tries: int | None = None) -> dict[str, int]:
        """Solve one.

        :param riddle: In verse.
        """
        return {riddle: tries or 0}


@tool(name="registry.wrong")
def wrong(value: Any) -> list[int]:
    return value  # type: ignore[no-any-return]


def place(name: str, **more: Any) -> str:
    return locate([name], [], None, shared=True, **more)[name]


# --- versions


def test_a_plain_name_means_the_newest_version_and_at_a_given_one() -> None:
    assert place("registry.ship").endswith(":ship")
    assert place("registry.ship@1.10").endswith(":ship")
    assert place("registry.ship@1.9").endswith(":ship_old")
    with pytest.raises(BadInput, match=r"tool 'registry\.ship' has no version 3; there is 1\.9, 1\.10"):
        place("registry.ship@3")


def test_two_tools_of_one_name_and_version_are_told_when_that_is_called() -> None:
    def first() -> None: ...
    def second() -> None: ...

    tool(name="registry.twice")(first)
    tool(name="registry.twice")(second)
    with pytest.raises(BadInput, match=r"first and .*second are both tool 'registry\.twice' in version 1"):
        place("registry.twice")


def test_one_file_that_is_imported_under_two_names_is_one_tool(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "inner").mkdir()
    (tmp_path / "inner/both.py").write_text("from perdure import tool\n@tool(name='registry.both')\ndef both(): ...\n")
    for folder in (tmp_path, tmp_path / "inner"):
        monkeypatch.syspath_prepend(str(folder))
    assert place("registry.both", installed=("inner.both", "both")) == "inner.both:both"


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"name": "http"}, "'http' is a tool of perdure's own"),
        ({"name": "a@1"}, "no name of a tool"),
        ({"name": "a:b"}, "no name of a tool"),
        ({"version": "v2"}, "not written as numbers with points"),
    ],
)
def test_a_name_that_no_tool_can_have_is_refused_where_it_is_given(given: dict[str, Any], said: str) -> None:
    with pytest.raises(BadInput) as caught:
        tool(**given)(lambda: None)
    assert said in str(caught.value)


# --- schemas


def test_a_schema_comes_from_hints_and_docstring_and_leaves_the_context_out() -> None:
    schema = schema_of(find(place("registry.ship")))
    properties = schema.parameters["properties"]
    assert (schema.name, schema.description) == ("registry.ship", "Ship an order.\n\nIt leaves the house.")
    assert properties.keys() == {"order", "speed", "note"}
    assert schema.parameters["required"] == ["order"]
    assert properties["order"]["description"] == "What is shipped."
    assert properties["speed"]["description"] == "How fast, in miles."
    assert properties["note"]["description"] == "For whom."
    assert schema.parameters["$defs"]["Order"]["required"] == ["number"]
    assert schema.returns is not None
    assert schema.returns["title"] == "Order"


def test_a_class_is_described_by_itself_and_its_call() -> None:
    schema = schema_of(find(place("registry.sphinx")))
    assert schema.description.startswith("Riddles.")
    assert schema.parameters["properties"]["riddle"]["description"] == "In verse."
    assert "self" not in schema.parameters["properties"]


@pytest.mark.parametrize("name", BUILTINS)
def test_what_a_definition_knows_of_our_own_tools_is_what_they_take_and_give(name: str) -> None:
    schema, declared = schema_of(find(place(name))), BUILTINS[name].declared
    assert (schema.parameters, schema.returns, schema.name) == (declared.input, declared.output, name)
    assert find(place(name)).is_async


# --- arguments and results


def test_arguments_that_do_not_fit_are_named_with_what_came_and_what_was_expected() -> None:
    found = find(place("registry.ship"))
    with pytest.raises(BadInput) as caught:
        validate(found, {"order": {"number": "x"}, "speed": [1], "spede": 1})
    assert str(caught.value) == (
        "tool 'registry.ship' was called with arguments that do not fit: order.number: Input should be a valid "
        "integer, unable to parse string as an integer (got 'x'); speed: Input should be a valid number (got a list "
        "of 1); spede: Unexpected keyword argument (got 1)"
    )
    with pytest.raises(BadInput, match="gets its 'context' from perdure"):
        validate(found, {"order": {"number": 1}, "context": {}})
    validate(found, {"order": {"number": 1}})


def test_an_error_shows_no_part_of_a_long_text_which_might_be_a_secret() -> None:
    with pytest.raises(BadInput) as caught:
        validate(find(place("registry.ship@1.9")), {"number": "s" * 100})
    assert "(got a text of 100 characters)" in str(caught.value)
    assert "sss" not in str(caught.value)


def test_arguments_and_results_are_made_what_the_hints_say() -> None:
    context = Context("x", "pack", 1, "x/pack")
    assert call(find(place("registry.ship")), {"order": {"number": "7"}}, context) == {"number": 7, "lines": ["pack"]}
    assert call(find(place("registry.wrong")), {"value": ["1", 2]}) == [1, 2]


def test_a_result_that_the_hint_does_not_allow_is_named() -> None:
    with pytest.raises(BadInput) as caught:
        call(find(place("registry.wrong")), {"value": [1, "x"]})
    assert str(caught.value) == (
        "tool 'registry.wrong' returned what its type hint, list[int], does not allow: 1: Input should be a valid "
        "integer, unable to parse string as an integer (got 'x')"
    )


def test_a_validation_error_within_a_tool_is_the_tools_own(monkeypatch: pytest.MonkeyPatch) -> None:
    def inner() -> None:
        Order.model_validate({})

    monkeypatch.setitem(globals(), "inner", inner)
    with pytest.raises(ValueError, match="1 validation error for Order"):
        call(find(f"{__name__}:inner"), {})


# --- the context


def test_a_tool_asks_for_a_secret_and_its_log_lines_hold_none(caplog: pytest.LogCaptureFixture) -> None:
    secrets = Secrets({"KEY": "value of a secret"}.__getitem__)
    context = Context("x-1", "pay", 2, "x-1/pay", outside=Outside(secrets=secrets))
    with caplog.at_level(logging.INFO):
        key = context.secret("KEY")
        context.logger.info("asks with %s", key)
        context.logger.error("failed", exc_info=PermissionError(f"not with {key}"))
    assert key == "value of a secret"
    assert caplog.messages[0] == "asks with [secret KEY]"
    assert "PermissionError: not with [secret KEY]" in caplog.messages[1]
    assert "value of a secret" not in caplog.text
    assert vars(caplog.records[0])["node"] == "pay"
    assert caplog.records[0].funcName == "test_a_tool_asks_for_a_secret_and_its_log_lines_hold_none"
    with pytest.raises(SecretMissing, match="there is no secret 'KEY': no secrets are given here"):
        Context("x", "n", 1, "k").secret("KEY")


def test_progress_holds_no_secret_that_the_tool_asked_for() -> None:
    told: list[Any] = []
    outside = Outside(secrets=Secrets({"KEY": "value of a secret"}.__getitem__))
    context = Context("x", "n", 1, "k", None, told.append, outside=outside)
    context.heartbeat({"with": context.secret("KEY")})
    assert told == [{"with": "[secret KEY]"}]


def test_a_context_travels_without_values_and_connections() -> None:
    secrets = Secrets({"KEY": "value of a secret"}.get, (Secrets, ()))  # type: ignore[arg-type]
    context = Context("x", "n", 1, "k", outside=Outside(secrets=secrets, nats=object()))  # type: ignore[arg-type]
    context.secret("KEY")
    data = pickle.dumps(context)
    assert b"value of a secret" not in data
    assert pickle.loads(data).outside.nats is None


# --- where tools are found


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """An installed package with entry points: a tool, and a module whose tools register themselves."""
    (tmp_path / "shop_tools.py").write_text(
        "from perdure import tool\ndef refund(order: int) -> int:\n    return order\n"
        "@tool(name='shop.pack', version='2', tags=['shop'])\ndef pack() -> str:\n    'Pack it.'\n    return 'packed'\n"
    )
    info = tmp_path / "shop_tools-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: shop-tools\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(
        "[perdure.tools]\nshop.refund = shop_tools:refund\nshop = shop_tools\nshop.gone = shop_tools:gone\n"
        "shop.wrap = shop_tools:pack\nshop.lost = no_such_module:f\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    tool_sources._entry_points.cache_clear()
    yield "shop_tools"
    tool_sources._entry_points.cache_clear()


def test_tools_are_found_by_entry_points(package: str) -> None:
    assert place("shop.refund") == "shop_tools:refund"
    assert place("shop.pack@2") == "shop_tools:pack"
    assert place("shop.wrap@2") == "shop_tools:pack", "the tool's own version counts under its other name too"
    with pytest.raises(ToolNotFound, match="no module 'no_such_module'"):
        place("shop.lost")
    with pytest.raises(ToolNotFound, match="shop_tools has no tool 'gone'"):
        place("shop.gone")
    with pytest.raises(ToolNotFound, match=r"no tool 'shop\.pak'; did you mean 'shop\.pack'"):
        place("shop.pak")


def test_tools_are_found_by_the_setting_in_modules_files_and_by_attribute(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "setting_module.py").write_text("from perdure import tool\n@tool(name='setting.a')\ndef a(): ...\n")
    (tmp_path / "setting_file.py").write_text("from perdure import tool\n@tool(name='setting.b')\ndef b(): ...\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setenv("PERDURE_TOOLS", f"setting_module, {tmp_path}/setting_file.py, json:dumps")
    given = Settings().tools
    assert place("setting.a", installed=given) == "setting_module:a"
    assert place("setting.b", installed=given) == f"{tmp_path}/setting_file.py:b"
    assert place("dumps", installed=given) == "json:dumps"
    with pytest.raises(ToolNotFound, match="no module 'no_such'"):
        place("setting.c", installed=("no_such",))


async def test_an_installed_module_that_cannot_be_loaded_says_so_and_keeps_no_other_tool_from_use(
    package: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "shop_tools-1.0.dist-info/entry_points.txt").write_text("[perdure.tools]\nshop.all = shop_broken\n")
    (tmp_path / "shop_broken.py").write_text("1 / 0\n")
    assert place("http") == BUILTINS["http"].place
    assert "entry point shop.all are missing: tool 'shop_broken': importing 'shop_broken' failed: Zero" in caplog.text
    with pytest.raises(BadInput, match="importing 'shop_broken' failed: ZeroDivisionError"):
        place("shop.all")
    found = {each.name: each for each in await listed(Settings(), None, set())}
    assert "ZeroDivisionError" in str(found["shop.all"].problem)


async def test_all_tools_are_listed_with_their_schemas_and_by_tag(package: str) -> None:
    found = {each.name: each for each in await listed(Settings(), None, set())}
    assert found.keys() >= {*BUILTINS, "shop.pack", "shop.refund"}
    assert found["http"].place == "perdure"
    assert found["shop.pack"].as_json() == {
        "name": "shop.pack", "place": "shop_tools:pack", "version": "2", "tags": ["shop"], "description": "Pack it.",
        "parameters": {"additionalProperties": False, "properties": {}, "type": "object"},
        "returns": {"type": "string"}, "problem": None,
    }  # fmt: skip
    assert "has no tool 'gone'" in str(found["shop.gone"].problem)
    tagged = await listed(Settings(), None, {"shop", "fast"})
    assert [(each.name, each.version) for each in tagged] == [("registry.ship", "1.10")]


def test_the_command_lists_tools_of_a_definition_and_of_its_servers(
    environment: dict[str, str], tmp_path: Path
) -> None:
    program = Path(__file__).parent / "mcp_program.py"
    (tmp_path / "mine.py").write_text("from perdure import tool\n@tool\ndef mine(a: int):\n    'Mine.'\n")
    (tmp_path / "x.yaml").write_text(
        f"name: x\ntools: [./mine.py]\nmcp:\n  desk: {{command: {sys.executable}, args: [{program}]}}\n"
        "  gone: {command: no-such-program}\nnodes:\n  a: {tool: mine, with: {a: 1}}\n"
    )
    done = command(environment, "tools", str(tmp_path / "x.yaml"), "--json")
    found = {each["name"]: each for each in json.loads(done.stdout)}
    assert found["mine"]["description"] == "Mine."
    assert found["desk.add"]["parameters"]["required"] == ["a"]
    assert "'gone' cannot be started" in found["gone.*"]["problem"]
    shown = command(environment, "tools", str(tmp_path / "x.yaml")).stderr
    assert [line.split()[1] for line in shown.splitlines() if line.startswith("mine ")] == ["a"]


def test_validate_asks_mcp_servers_what_their_tools_take(environment: dict[str, str], tmp_path: Path) -> None:
    program = Path(__file__).parent / "mcp_program.py"
    (tmp_path / "x.yaml").write_text(
        f"name: x\nmcp: {{desk: {{command: {sys.executable}, args: [{program}]}}}}\nnodes:\n"
        "  a: {tool: desk.add, with: {a: 1}}\n  b: {tool: desk.add, with: {c: 1}}\n  c: {tool: desk.ad}\n"
    )
    said = command(environment, "validate", str(tmp_path / "x.yaml"), "--tools", code=2).stderr
    assert "x.yaml:5:29: tool 'desk.add' needs 'a'" in said
    assert "x.yaml:5:30: warning: tool 'desk.add' takes no 'c'" in said
    assert "x.yaml:6:13: MCP server 'desk' has no tool 'ad'; it has add" in said
    assert "2 errors, 1 warning" in said


# --- what a definition may say of them


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("nodes: {a: {tool: http, with: {ur: x}}}", "tool 'http' needs 'url', which is not given"),
        ("nodes: {a: {tool: http, with: {url: x, method: FETCH}}}", "'http' does not take this for 'method'"),
        ("nodes: {a: {tool: sql, with: {database: d, query: 'x ${{ input.y }}'}}}", "a query is not put together"),
        ("tools: [{name: sql, call: 'a:b'}]\nnodes: {a: {set: 1}}", "'sql' is a tool of perdure's own"),
        ("mcp: {nats: {url: 'https://x'}}\nnodes: {a: {set: 1}}", "name the server otherwise"),
        ("mcp: {x: {url: 'https://x', command: y}}\nnodes: {a: {set: 1}}", "give 'command' or 'url', one of them"),
        ("mcp: {x: {url: 'https://x', env: {A: b}}}\nnodes: {a: {set: 1}}", "belong to a server by command"),
        ("mcp: {x: {url: 'ftp://x'}}\nnodes: {a: {set: 1}}", "begins with http:// or https://"),
        ("mcp: {x: {command: y, env: {A: '${{ input.a }}'}}}\nnodes: {a: {set: 1}}", "only ${{ secrets.NAME }} may"),
        ("mcp: {x: {command: y, args: ['${{ secrets.A }}']}}\nnodes: {a: {set: 1}}", "nothing is computed here"),
    ],
)
def test_what_is_wrong_with_tools_is_told_at_its_line_when_a_definition_is_loaded(text: str, said: str) -> None:
    with pytest.raises(DefinitionError) as caught:
        load(f"name: x\n{text}\n")
    assert said in str(caught.value)
    assert str(caught.value).startswith("definition:2:")


def test_what_our_own_tools_return_is_known_to_who_reads_it() -> None:
    with pytest.raises(DefinitionError, match="there is no 'stats'; did you mean 'status'"):
        load("name: x\nnodes:\n  a: {tool: http, with: {url: 'https://x'}}\noutput: ${{ nodes.a.output.stats }}\n")


async def test_a_remote_function_without_ray_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    import ray

    def double(number: int) -> int:
        return 2 * number

    monkeypatch.setitem(globals(), "double", ray.remote(double))
    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    with pytest.raises(EnvironmentProblem, match="needs Ray"):
        await call_async(find(f"{__name__}:double"), {"number": 1})


def test_many_threads_may_look_tools_up_at_once() -> None:
    async def all_at_once() -> list[str]:
        return await asyncio.gather(*(asyncio.to_thread(partial(place, "registry.ship")) for _ in range(20)))

    assert len(set(asyncio.run(all_at_once()))) == 1
