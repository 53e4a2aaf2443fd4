"""What is written as YAML reads back as it was."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from perdure.definitions.yaml_source import parse_yaml
from perdure.definitions.yaml_writer import data_to_yaml

TEXT = st.text() | st.sampled_from(
    ["1e3", "0o14", "on", "yes", "1:30", "<<", "~", "", "a\nb", "\n a\n", "a\n\n", "- x", "#"]
)
SCALARS = (
    st.none() | st.booleans() | st.integers(-(2**63), 2**63) | st.floats(allow_nan=False, allow_infinity=False) | TEXT
)
DATA = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXT, inner, max_size=4), max_leaves=12
)


@given(DATA)
def test_json_data_reads_back_as_the_same_data(data: Any) -> None:
    read = parse_yaml(data_to_yaml(data), "written").data
    assert read == data
    assert type(read) is type(data)


@pytest.mark.parametrize("text", ["1e3", "0o14", "true", "null", ".5", "<<"])
def test_text_that_looks_like_another_kind_stays_text(text: str) -> None:
    assert parse_yaml(data_to_yaml({text: text}), "written").data == {text: text}


def test_lines_of_text_are_written_as_lines() -> None:
    assert data_to_yaml({"instructions": "Answer.\nBe kind.\n"}) == "instructions: |\n  Answer.\n  Be kind.\n"
