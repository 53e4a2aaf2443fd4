"""What the command line says of statecharts while it follows them."""

from datetime import timedelta

from scenario import NOW, Given, start

from perdure.actors.inputs import ReportSuccess
from perdure.console import Progress
from perdure.definitions.loading import load
from perdure.events.entry import Happened


def test_a_call_of_a_statechart_is_told_of_when_it_has_succeeded_though_the_state_forgets_it() -> None:
    states = {"a": {"invoke": {"tool": "t", "on_done": "z"}}, "z": {"type": "final"}}
    plan = load({"name": "flow", "kind": "statechart", "states": states}).plan
    given = Given(plan).when(start(plan), ReportSuccess("a[1]/invoke", 1, 7))
    progress, lines = Progress("x-1"), list[tuple[str, ...]]()
    for number, event in enumerate(given.events):
        node = progress.feed(Happened("x-1", 1, 1, NOW + timedelta(seconds=number), event))
        lines += [progress.line(node)] if node is not None else []
    assert lines == [
        ("a[1]/invoke", "running", "attempt 1", "", ""),
        ("a[1]/invoke", "succeeded", "attempt 1", "1.00 s", ""),
    ]
