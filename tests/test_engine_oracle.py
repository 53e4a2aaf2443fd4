"""How every node of a random graph must end, by a small rule written from docs/joins.csv and the design alone."""

import csv
import random
import sys
from pathlib import Path
from typing import Any

from hypothesis import assume, given, settings
from hypothesis import strategies as st
from random_workflows import JOINS, Choose
from scenario import Given, start

from perdure.actors.inputs import ReportFailure, ReportSuccess
from perdure.definitions.loading import load
from perdure.errors import DefinitionError
from perdure.events.vocabulary import Error, ExecutionFailed

ENDS = ("succeeded", "caught", "skipped", "failed")
TABLE = {
    (row["join"], frozenset(end for end in ENDS if row[end])): row["runs"] == "yes"
    for row in csv.DictReader(
        (Path(__file__).parent.parent / "docs" / "joins.csv").read_text(encoding="utf-8").splitlines()
    )
}
TYPES = ("Boom", "Other")


def random_graph(choose: Choose) -> tuple[dict[str, Any], dict[str, str | None]]:
    """Return the nodes of a flat graph, and the type of the error that each tool raises (None: it succeeds)."""
    names = [f"n{number}" for number in range(2 + choose(8))]
    nodes: dict[str, Any] = {}
    led: set[str] = set()
    for number, name in enumerate(names):
        free = [each for each in names[number + 1 :] if each not in led]
        node: dict[str, Any] = {"needs": [each for each in names[:number] if choose(3) == 0], "join": JOINS[choose(4)]}
        if len(free) > 1 and choose(4) == 0:
            led.update(free[:2])
            default = {"default": free[1]} if choose(2) else {}
            node["switch"] = {"cases": [{"when": bool(choose(2)), "then": free[0]}], **default}
        else:
            node |= ({"tool": "t"}, {"tool": "t"}, {"set": 1}, {"fail": "no"})[choose(4)]
        if choose(4) == 0:
            node["if"] = (True, False, "input.missing")[choose(3)]
        node["catch"] = [_catch(choose, [each for each in free if each not in led], led) for _ in range(choose(3))]
        nodes[name] = node
    return nodes, {name: ("", "", *TYPES)[choose(4)] or None for name in names}


def _catch(choose: Choose, free: list[str], led: set[str]) -> dict[str, Any]:
    on = [{"on": kind} for kind in (*TYPES, "Failed", "NoMatch")][choose(4)]
    if free and choose(2):
        led.add(free[0])
        return {**on, "then": free[0]}
    return {**on, "output": "caught"}


class Rules:
    """How the nodes of a graph end in a workflow that drains."""

    def __init__(self, nodes: dict[str, Any], errors: dict[str, str | None]) -> None:
        self.nodes = nodes
        self.errors = errors
        self.known: dict[str, str] = {}  # results, or types of errors, before any catch

    def end(self, name: str) -> str:
        result = self.result(name)
        if result in ("succeeded", "skipped"):
            return result
        catch = self.matching(name, result)
        if catch is None:
            return "failed"
        return "caught" if "output" in catch or self.end(catch["then"]) in ("succeeded", "caught") else "failed"

    def result(self, name: str) -> str:
        if name not in self.known:
            self.known[name] = self._work(name) if self._is_led_to(name) and self._runs(name) else "skipped"
        return self.known[name]

    def _work(self, name: str) -> str:
        node = self.nodes[name]
        if node.get("if", True) is not True:
            return "ExpressionError" if node["if"] else "skipped"
        if "switch" in node:
            return "succeeded" if arms(node) else "NoMatch"
        if "fail" in node:
            return "Failed"
        return (self.errors[name] if "tool" in node else None) or "succeeded"

    def _runs(self, name: str) -> bool:
        needs = {self.end(need) for need in self.nodes[name]["needs"] if self._leader(name) != need}
        if needs - {"caught"}:  # the table mixes it with nothing, for it counts as succeeded
            needs = {"succeeded" if need == "caught" else need for need in needs}
        return TABLE[self.nodes[name]["join"], frozenset(needs)]

    def matching(self, name: str, error: str) -> dict[str, Any] | None:
        return next((catch for catch in self.nodes[name]["catch"] if catch["on"] == error), None)

    def _leader(self, name: str) -> str | None:
        leads = (other for other, node in self.nodes.items() if name in all_arms(node) or name in handlers(node))
        return next(leads, None)

    def _is_led_to(self, name: str) -> bool:
        leader = self._leader(name)
        if leader is None:
            return True
        result = self.result(leader)
        if name in all_arms(self.nodes[leader]):
            return result == "succeeded" and name in arms(self.nodes[leader])
        catch = self.matching(leader, result)
        return catch is not None and catch.get("then") == name


def all_arms(node: dict[str, Any]) -> list[str]:
    switch = node.get("switch")
    return [switch["cases"][0]["then"], *([switch["default"]] if "default" in switch else [])] if switch else []


def arms(node: dict[str, Any]) -> list[str]:
    first, *default = all_arms(node)
    return [first] if node["switch"]["cases"][0]["when"] else default


def handlers(node: dict[str, Any]) -> list[str]:
    return [catch["then"] for catch in node["catch"] if "then" in catch]


def compare(choose: Choose) -> bool:
    """Run a random graph with reports in a random order; False where the definition breaks a rule."""
    nodes, errors = random_graph(choose)
    drains = bool(choose(3))
    try:
        plan = load({"name": "flow", "nodes": nodes, "failure": "drain" if drains else "fail_fast"}).plan
    except DefinitionError:
        return False
    execution = Given(plan).when(start(plan, {}))
    while execution.now.outcome is None:
        running = sorted(execution.now.running)
        name = running[choose(len(running))]
        kind = errors[name]
        execution.when(ReportFailure(name, 1, Error(kind, "")) if kind else ReportSuccess(name, 1, name))
    rules = Rules(nodes, errors)
    expected = {name: rules.end(name) for name in nodes}
    failed = "failed" in expected.values()
    found = {name: node.status for name, node in execution.now.nodes.items()}
    if not drains:  # then what is left when the first one fails is cancelled, or never begins
        expected = {name: expected[name] for name, status in found.items() if status != "cancelled"}
        found = {name: status for name, status in found.items() if status != "cancelled"}
    assert found == expected
    assert isinstance(execution.now.outcome, ExecutionFailed) is failed
    return True


@settings(deadline=None, max_examples=300)
@given(st.data())
def test_every_node_of_a_random_graph_ends_as_the_table_of_joins_and_the_design_say(data: st.DataObject) -> None:
    assume(compare(lambda below: data.draw(st.integers(0, below - 1))))


if __name__ == "__main__":  # for long: python tests/test_engine_oracle.py FIRST LAST
    compared = 0
    for seed in range(int(sys.argv[1]), int(sys.argv[2])):
        try:
            compared += compare(random.Random(seed).randrange)
        except BaseException:
            print("seed", seed)  # noqa: T201
            raise
    print(compared, "graphs of", int(sys.argv[2]) - int(sys.argv[1]))  # noqa: T201
