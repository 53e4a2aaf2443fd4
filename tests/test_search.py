"""Search attributes and tags: evaluated once, recorded with the start, refused where they cannot be compared."""

from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace
from scenario import Given, plan_of, start

import perdure
from perdure import Settings
from perdure.actors.search import MAX_TEXT, with_given
from perdure.definitions.loading import load
from perdure.errors import BadInput, DefinitionError
from perdure.events.vocabulary import ExecutionFailed, ExecutionStarted

NODES: dict[str, Any] = {"a": {"set": 1}}
SEARCH = {"tenant": "input.tenant", "total": "input.total * 2", "big": "input.total > 5", "who": "execution.workflow"}
VALUE = {"tenant": "acme", "total": 3}


def began(given: Given) -> ExecutionStarted:
    return given.now.started


def test_attributes_are_evaluated_at_the_start_and_recorded_with_it() -> None:
    plan = plan_of(NODES, search=SEARCH)
    given = Given(plan).when(start(plan, VALUE))
    assert began(given).search == {"tenant": "acme", "total": 6, "big": False, "who": "flow"}
    assert given.now.status == "succeeded"


def test_given_attributes_come_over_those_of_the_definition_and_null_is_left_out() -> None:
    plan = plan_of(NODES, search={"tenant": "input.tenant", "none": "None"})
    command = replace(start(plan, VALUE), search={"tenant": "other", "more": 1.5}, tags=["a", "b"])
    given = Given(plan).when(command)
    assert began(given).search == {"tenant": "other", "more": 1.5}
    assert began(given).tags == ["a", "b"]


@pytest.mark.parametrize(
    ("expression", "why"),
    [
        ("input.missing", "search.x: "),
        ("input", "an attribute is text, a number or a boolean, and this is dict"),
        ("[1]", "this is list"),
        (f"'a' * {MAX_TEXT + 1}", "it has 501 characters"),
        ("9223372036854775807 + 1", "more than 64 bits"),
    ],
)
def test_an_attribute_that_cannot_be_one_is_refused_at_the_start_and_fails_what_starts_anyway(
    expression: str, why: str
) -> None:
    plan = plan_of(NODES, search={"x": expression})
    with pytest.raises(BadInput, match=f"cannot be started with this input: .*{why}"):
        with_given(start(plan, VALUE), plan, {}, [])
    given = Given(plan).when(start(plan, VALUE)).then_types(ExecutionStarted, ExecutionFailed)
    assert isinstance(given.now.outcome, ExecutionFailed)
    assert given.now.outcome.error.type == "ExpressionError"
    assert why in given.now.outcome.error.message


@pytest.mark.parametrize(
    ("search", "tags", "why"),
    [
        ({"a b": 1}, [], "'a b' is no name"),
        ({"a": None}, [], "search.a: an attribute is text, a number or a boolean, and this is NoneType"),
        ({"a": [1]}, [], "this is list"),
        ({"a": float("nan")}, [], "nan is no number"),
        ({"a": 1 << 70}, [], "more than 64 bits"),
        ({}, [""], "the tag '' must have 1 to 500 printable characters"),
        ({}, ["a\nb"], "printable"),
        ({f"a{number}": 1 for number in range(101)}, [], "at most 100 attributes"),
    ],
)
def test_what_a_start_gives_is_checked(search: dict[str, Any], tags: list[str], why: str) -> None:
    plan = plan_of(NODES)
    with pytest.raises(BadInput, match=why):
        with_given(start(plan), plan, search, tags)


@pytest.mark.parametrize("expression", ["nodes.a.output", "context.x", "secrets.x", "error.message"])
def test_attributes_read_the_input_and_the_execution_only(expression: str) -> None:
    with pytest.raises(DefinitionError, match=r"search"):
        load({"name": "flow", "nodes": NODES, "search": {"x": expression}})


def test_a_start_is_found_by_its_attributes_and_tags_at_once(tmp_path: Path) -> None:
    flow = {"name": "flow", "nodes": NODES, "search": {"tenant": "input.tenant"}}
    with perdure.connect(Settings(store=tmp_path / "store"), local=True) as client:
        run = client.start(flow, {"tenant": "acme"}, search={"region": "eu"}, tags=["vip", "vip"], priority=7)
        client.start_many(flow, [{"tenant": "other"}], search={"region": "us"})
        assert run.result(10) == {"a": 1}
        (row,) = client.executions(where={"tenant": "acme", "region": "eu"}, tag="vip", priority=7)
        assert (row["id"], row["search"], row["tags"]) == (run.id, {"tenant": "acme", "region": "eu"}, ["vip"])
        assert client.count(where={"tenant": "acme"}) == {"succeeded": 1}
        assert [row["id"] for row in client.executions("succeeded", fresh=False, filter="region == 'eu'")] == [run.id]
        assert [each["kind"] for each in client.timeline(run.id)] == ["execution", "node"]
        assert [row["workflow"] for row in client.definitions()] == ["flow"]
        assert {row["node"] for row in client.statistics("flow")} == {"", "a"}
        assert client.approvals() == []
        assert client.dead_letters() == []
        assert client.catch_up() > 0
        with pytest.raises(BadInput, match="cannot be asked for by 'colour'"):
            client.executions(colour="red")
