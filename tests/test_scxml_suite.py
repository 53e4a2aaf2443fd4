"""W3C's own tests of SCXML implementations, as far as they are about the core algorithm, written as our definitions.

They stand in `data/scxml` with the numbers of the implementation report (https://www.w3.org/Voice/2013/scxml-irp/),
are written by hand after them, and pass, as those do, where the chart ends in `pass`; `changed` says what had to be
said another way. Left out, by subject:

- 147-156, 302-304, 525: `if`, `foreach` and `script`, which the language does not have;
- most of 172-252, and 347-354, 422, 500-502, 507-534, 552-567: sending and invoking, which are calls here and
  tested as such (what 176, 179, 189 and 205 say of data and order stands here for raised events);
- 276-280, 286, 311, 321-338, 445-464, 550-551, 568-578: data declarations, system variables and data models;
- 376, 378: several blocks of content of one entry or exit; 412, 579: content of initial and default transitions. The
  definitions have neither;
- 319: there is an event before the first one, without a name.
"""

from pathlib import Path
from typing import Any

import pytest
from chart_steps import Driven

from perdure.definitions.yaml_source import parse_yaml

FILES = sorted((Path(__file__).parent / "data" / "scxml").glob("*.yaml"))
TESTS: dict[str, dict[str, Any]] = {
    number: test for file in FILES for number, test in parse_yaml(file.read_text(), file.name).data.items()
}
ENDS = {"pass": {"type": "final"}, "fail": {"type": "final"}}


@pytest.mark.parametrize("number", TESTS)
def test_the_chart_ends_as_w3c_asks(number: str) -> None:
    test = TESTS[number]
    chart = Driven(test["states"] | ENDS, **{key: test[key] for key in ("initial", "context") if key in test})
    for event in test.get("events", []):
        if not chart.state.ended:
            chart.when(event)
    assert chart.last.failed is None
    assert chart.state.configuration == ("pass",), test["about"]


def test_there_are_enough_of_them() -> None:
    assert len(TESTS) >= 40
