"""Every example in the page of the expression language gives what it says."""

import json
import re
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from test_docs import generator

from perdure.definitions.evaluation import CONFIGURATION
from perdure.definitions.expressions import MOMENT, Moment, evaluate, parse
from perdure.definitions.functions import FUNCTIONS
from perdure.definitions.loading import load
from perdure.definitions.methods import METHODS
from perdure.definitions.signatures import Function
from perdure.errors import ExpressionError

PAGE = (Path(__file__).parent.parent / "docs/expressions.md").read_text()
MOMENT_OF_THE_EXAMPLES = Moment(datetime(2026, 1, 31, 12, tzinfo=UTC), "example")
EVERY = [*FUNCTIONS.values(), *(each for kinds in METHODS.values() for each in kinds.values())]


@pytest.mark.parametrize("function", EVERY, ids=lambda function: function.form)
def test_the_example_of_a_function_gives_what_the_table_says(function: Function) -> None:
    scope: dict[str, Any] = {
        "input": {"address": {}},
        MOMENT: MOMENT_OF_THE_EXAMPLES,
        CONFIGURATION: {"paid"}.__contains__,
    }
    assert evaluate(parse(function.example), scope) == function.result


def test_the_tables_of_the_page_are_those_of_the_code() -> None:
    assert generator().expressions_page(PAGE) == PAGE


def test_the_examples_of_the_page_give_what_it_says() -> None:
    data = json.loads(re.findall(r"```json\n(.*?)```", PAGE, re.DOTALL)[0])
    examples = re.findall(r"^(.+?) +-> (.+)$", PAGE, re.MULTILINE)
    assert len(examples) > 10
    for text, result in examples:
        assert evaluate(parse(text), {"input": data}) == json.loads(result), text


def test_the_error_of_the_page_is_the_error_that_comes() -> None:
    with pytest.raises(ExpressionError) as caught:
        evaluate(parse("input.order.totl"), {"input": {"order": {"id": 1, "total": 2}}})
    assert str(caught.value).removeprefix("in 'input.order.totl': ") in PAGE


def test_the_workflow_of_the_page_loads() -> None:
    (block,) = re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL)
    load(block)
