"""What is said of data that breaks a JSON Schema: in our words, and with the place of each mistake."""

import json
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from perdure.cli_support import data_from
from perdure.definitions.data_words import misfits
from perdure.errors import BadInput

CLAIM = {
    "type": "object",
    "required": ["policy", "amount"],
    "additionalProperties": False,
    "properties": {
        "policy": {"type": "string"},
        "amount": {"type": ["number", "null"], "minimum": 0},
        "photos": {"type": "array", "items": {"type": "string"}},
        "kind": {"enum": ["theft", "fire", 3]},
        "by": {"type": "object", "properties": {"name": {"type": "boolean"}}},
    },
}


KINDS = """input.kind is {}, not one of ["theft", "fire", 3]"""


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"photos": ["a"], "kind": 3}, []),
        ({"policy": {}}, ["input.policy is an object, not text"]),
        ({"amount": "x"}, ["input.amount is 'x', not a number or null"]),
        ({"amount": -1}, ["input.amount: -1 is less than the minimum of 0"]),
        ({"photos": [1]}, ["input.photos[0] is 1, not text"]),
        ({"photos": "a"}, ["input.photos is 'a', not a list"]),
        ({"kind": "thefd"}, [KINDS.format("'thefd'") + "; did you mean 'theft'?"]),
        ({"kind": []}, [KINDS.format("a list")]),
        ({"photo": []}, ["input takes no 'photo'; did you mean 'photos'?"]),
        ({"by": {"name": 0}}, ["input.by.name is 0, not true or false"]),
    ],
)
def test_every_mistake_in_data_is_named_with_its_place(given: dict[str, Any], said: list[str]) -> None:
    assert misfits(CLAIM, {"policy": "P", "amount": 3, **given}, "input") == said


def test_data_that_is_not_there_is_named() -> None:
    assert misfits(CLAIM, None, "input") == ["input is null, not an object"]
    assert misfits(CLAIM, {}, "input") == ["input.policy is missing", "input.amount is missing"]


def test_what_has_no_words_of_ours_is_told_in_those_of_the_schema() -> None:
    schema = {"patternProperties": {"^a": {}}, "additionalProperties": False, "not": {"required": ["b"]}}
    theirs = [f"data: {error.message}" for error in Draft202012Validator(schema).iter_errors({"b": 1})]
    assert len(theirs) == 2
    assert misfits(schema, {"b": 1}, "data") == theirs


def test_what_a_schema_refers_to_outside_of_itself_is_not_fetched(tmp_path: Path) -> None:
    (tmp_path / "other.json").write_text('{"type": "string"}')
    url = (tmp_path / "other.json").as_uri()
    assert misfits({"$ref": url}, 1, "data") == [
        f"data cannot be checked: its schema refers to {url!r}, which is not in it"
    ]


@pytest.mark.parametrize("schema", [{"properties": {"a": {"$ref": "#"}}}, {"$ref": "#"}])
def test_data_that_is_too_deep_for_its_schema_breaks_it(schema: dict[str, Any]) -> None:
    data: dict[str, Any] = {}
    for _ in range(400):
        data = {"a": data}
    (said,) = misfits(schema, data, "data")
    assert said.startswith("data cannot be checked: it is nested too deeply")


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ("hello", "the signal's data: not JSON: Expecting value at line 1, column 1; text stands in double quotes"),
        (
            "{a: 1}",
            "the signal's data: not JSON: Expecting property name enclosed in double quotes at line 1, column 2",
        ),
        ("@gone.json", "the signal's data @gone.json: the file cannot be read"),
    ],
)
def test_data_on_the_command_line_is_called_by_its_name(given: str, said: str) -> None:
    with pytest.raises(BadInput) as caught:
        data_from(given, "the signal's data")
    assert str(caught.value).startswith(said)
    assert data_from(None, "the output") is None
    assert data_from('{"a": 1}', "the output") == {"a": 1}


@pytest.mark.parametrize(
    "schema",
    [
        {"properties": {"x": {"pattern": "^(a+)+$"}}},
        {"patternProperties": {"^(a+)+$": False}},
        {"patternProperties": {"^(a+)+$": {}}, "additionalProperties": {"type": "integer"}},
    ],
)
def test_no_text_holds_a_pattern_up(schema: dict[str, Any]) -> None:
    began = time.monotonic()
    misfits(schema, {"x": "a" * 50_000 + "!", "a" * 50_000 + "!": 1}, "reply")
    assert time.monotonic() - began < 5, "Python's own patterns take for ever"


def test_no_list_holds_the_search_for_what_is_twice_in_it_up() -> None:
    began = time.monotonic()
    mixed = [each for number in range(50_000) for each in (number, str(number), {"n": [number]})]
    assert misfits({"uniqueItems": True}, mixed, "reply") == []
    assert misfits({"uniqueItems": True}, [*mixed, {"n": [7]}], "reply") == ["reply breaks 'uniqueItems' of its schema"]
    assert time.monotonic() - began < 5, "looking at each pair takes hours"


ITEMS = st.recursive(
    st.none() | st.booleans() | st.integers(-1, 2) | st.sampled_from([1.0, 0.5, "a"]),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.just("a"), inner),
)


@given(st.lists(ITEMS))
def test_what_is_twice_in_a_list_is_what_jsonschema_says_it_is(data: list[Any]) -> None:
    theirs = Draft202012Validator({"uniqueItems": True}).is_valid(data)
    assert (misfits({"uniqueItems": True}, data, "it") == []) is theirs


def test_data_that_is_too_deep_for_a_schema_of_itself_is_told_so() -> None:
    schema = {"$ref": "#/$defs/list", "$defs": {"list": {"type": "array", "items": {"$ref": "#/$defs/list"}}}}
    assert misfits(schema, json.loads("[" * 300 + "]" * 300), "reply") == [
        "reply cannot be checked: it is nested too deeply, or its schema is in a circle"
    ]


def test_patterns_are_those_of_re2_and_of_python_where_re2_has_none() -> None:
    schema = {"patternProperties": {"^n_": {"type": "integer"}, "^(?!n_)b": {"pattern": "^[a-z]+$"}}}
    assert misfits(schema, {"n_x": 1, "b": "abc", "c": []}, "it") == []
    assert misfits(schema, {"n_x": "x"}, "it") == ["it.n_x is 'x', not a whole number"]
    assert misfits(schema, {"b": "A"}, "it") == ["it.b: 'A' does not match '^[a-z]+$'"]
    closed = schema | {"additionalProperties": {"type": "boolean"}, "properties": {"c": {}}}
    assert misfits(closed, {"c": 1, "d": True, "e": 2}, "it") == ["it.e is 2, not true or false"]
    assert misfits(closed | {"additionalProperties": False}, {"c": 1, "d": 1, "e": 2}, "it") == [
        "it: 'd', 'e' do not match any of the regexes: '^(?!n_)b', '^n_'"
    ]


def test_what_is_said_of_data_has_an_end_and_shows_no_part_of_a_long_text() -> None:
    told = misfits({"items": {"type": "integer"}}, ["x"] * 100_000, "reply")
    assert (len(told), told[0]) == (50, "reply[0] is 'x', not a whole number")
    assert misfits({"type": "integer"}, "k" * 100, "reply") == ["reply is a text of 100 characters, not a whole number"]
    assert misfits({"not": {}}, "k" * 100_000, "reply") == ["reply breaks 'not' of its schema"]
