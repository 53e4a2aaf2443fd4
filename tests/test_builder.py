"""Workflows built in Python are those that YAML makes, and their mistakes are told as the loader tells them."""

import operator
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import perdure
from perdure.definitions.agent_parts import Agent
from perdure.definitions.expressions import evaluate, parse
from perdure.definitions.loading import load
from perdure.definitions.model import Workflow
from perdure.definitions.parts import Retry
from perdure.definitions.plan import digest_of
from perdure.definitions.references import Reference
from perdure.errors import BadInput, DefinitionError

ORDER = """\
name: order
agents: {writer: {model: m, instructions: Write.}}
nodes:
  check: {tool: verify, with: {order: "${{ input.order }}"}, retry: {attempts: 4}}
  pay:
    if: "${{ (nodes.check.output.total > 0) and (not nodes.check.output['is paid']) }}"
    tool: payments.charge
    needs: check
    catch: [{on: Timeout, then: tell}]
  tell: {tool: mail, with: {why: "${{ error.message }}"}}
  each:
    foreach: {items: "${{ nodes.check.output.lines }}", as: line, max_parallel: 4, output: "${{ nodes.one.output }}"}
    do: {one: {agent: writer, with: {text: "Line ${{ index }}: ${{ line.text }}"}}}
  all: {foreach: {items: [1, 2]}, tool: work, with: {x: "${{ item }}"}}
  more:
    loop: {max_iterations: 3, until: "${{ loop.last.done }}", initial: {done: false}, output: "${{ nodes.a.output }}"}
    do: {a: {set: "${{ loop.index + 1 }}"}}
  race: {parallel: {join: any, branches: {left: {do: {w: {wait: 5s}}, output: 1}, right: {tool: search}}}}
  choose: {switch: {cases: [{when: "${{ nodes.check.output.total > 100 }}", then: [dear]}], default: cheap}}
  dear: {approval: {title: "Pay ${{ nodes.check.output.total }}?"}}
  cheap: {set: {n: "${{ len(input.items) + 1 }}"}}
  sum: {aggregate: {from: [dear, cheap], how: collect}}
  child: {workflow: {name: billing, detach: true}}
  stop: {needs: [sum], if: false, fail: {type: Stopped, message: stop}}
  door: {statechart: {initial: [open], states: {open: {on: {close: closed}}, closed: {type: final}}}}
on_failure: {report: {tool: mail}}
finally: {sweep: {tool: sweep}}
output: {receipt: "${{ nodes.pay.output.receipt }}"}
"""
DOOR = """\
name: door
kind: statechart
initial: pending
context: {n: 0}
agents: {judge: {model: m, instructions: Judge.}}
states:
  pending:
    entry: [{set: {n: "${{ context.n + 1 }}"}}]
    on:
      pay: {target: paid, if: "${{ event.data.ok }}", do: [{raise: seen}]}
      look: {do: {set: {n: 0}}}
    after: {30m: gone, "${{ context.n }}": gone}
  paid:
    initial: pack
    states:
      pack:
        on: {hold: held}
        exit: {tool: note}
        invoke:
          agent: judge
          on_done: paid.sent
          on_error: [{target: pending, if: "${{ event.error.type == 'Busy' }}"}, gone]
      sent: {type: final}
      back: {type: history, deep: true, default: pack}
    on_done: both
  held: {always: {target: paid.back, if: "${{ context.n > 1 }}"}, on: {drop: gone}}
  both: {type: parallel, states: {l: {on: {x: gone}}, r: {}}}
  gone: {type: final, output: "${{ context.n }}"}
"""


def order() -> Workflow:
    flow = perdure.dag("order", agents={"writer": Agent(model="m", instructions="Write.")})
    check = flow.tool("check", "verify", with_={"order": flow.input.order}, retry=Retry(attempts=4))
    due = (check.output.total > 0) & ~check.output["is paid"]
    pay = flow.tool("pay", "payments.charge", needs=[check], if_=due, catch=[{"on": "Timeout", "then": "tell"}])
    flow.tool("tell", "mail", with_={"why": flow.error.message})
    with flow.foreach("each", check.output.lines, as_="line", max_parallel=4) as each:
        one = each.agent("one", "writer", with_={"text": f"Line {each.index}: {each.item.text}"})
        each.result(one.output)
    flow.foreach("all", [1, 2], tool="work", with_={"x": perdure.expression("item")})
    until = perdure.expression("loop.last.done")
    with flow.loop("more", max_iterations=3, until=until, initial={"done": False}) as more:
        more.result(more.set("a", more.index + 1).output)
    race = flow.parallel("race", join="any")
    with race.branch("left") as left:
        left.wait("w", "5s")
        left.result(1)
    race.branch("right", tool="search")
    dear = flow.approval("dear", {"title": f"Pay {check.output.total}?"})
    cheap = flow.set("cheap", {"n": perdure.expression("len({}) + 1", flow.input.items)})
    flow.switch("choose", (check.output.total > 100, [dear]), default=cheap)
    total = flow.aggregate("sum", {"from": [dear, cheap], "how": "collect"})
    flow.workflow("child", {"name": "billing", "detach": True})
    flow.fail("stop", {"type": "Stopped", "message": "stop"}, needs=total, if_=False)
    chart = perdure.statechart("any")
    chart.state("open", initial=True).on("close", "closed")
    chart.final("closed")
    flow.statechart("door", chart)
    flow.on_failure.tool("report", "mail")
    flow.finally_.tool("sweep", "sweep")
    flow.output = {"receipt": pay.output.receipt}
    return flow.build()


def door() -> Workflow:
    chart = perdure.statechart("door", context={"n": 0}, agents={"judge": {"model": "m", "instructions": "Judge."}})
    event, context = chart.event, chart.context
    pending = chart.state("pending", initial=True).entry(set={"n": context.n + 1})
    paid, held = chart.state("paid"), chart.state("held")
    pack = paid.state("pack", initial=True).on("hold", held).exit(tool="note")
    sent = paid.final("sent")
    back = paid.history("back", default="pack", deep=True)
    both = chart.parallel("both")
    gone = chart.final("gone", output=context.n)
    pending.on("pay", paid, if_=event.data.ok, do=[{"raise": "seen"}]).on("look", do={"set": {"n": 0}})
    pending.after("30m", gone).after(context.n, gone)
    busy = {"target": pending, "if_": event.error.type == "Busy"}
    pack.invoke(agent="judge", on_done=sent, on_error=[busy, gone])
    paid.on_done(both)
    held.always(back, if_=context.n > 1).on("drop", gone)
    both.state("l").on("x", gone)
    both.state("r")
    return chart.build()


@pytest.mark.parametrize(("built", "written"), [(order, ORDER), (door, DOOR)])
def test_what_is_built_is_what_yaml_makes(built: Callable[[], Workflow], written: str) -> None:
    assert built().model_dump(exclude_defaults=True) == load(written).workflow.model_dump(exclude_defaults=True)
    assert digest_of(built()) == load(written).plan.digest == load(perdure.to_yaml(built())).plan.digest


def test_mistakes_are_told_as_the_loader_tells_them() -> None:
    flow = perdure.dag("order")
    first = flow.tool("first", "work", retry={"attempts": 0}, timeuot="5s")
    flow.set("second", first.output)
    with pytest.raises(DefinitionError) as caught:
        flow.build()
    assert "at nodes.first.retry.attempts: 'attempts' is at least 1, not 0" in str(caught.value)
    assert "at nodes.first.timeuot: unknown key 'timeuot'; did you mean 'timeout'?" in str(caught.value)


def test_a_name_is_given_once() -> None:
    flow, chart = perdure.dag("x"), perdure.statechart("x")
    flow.set("a", 1)
    chart.state("a")
    race = flow.parallel("race")
    race.branch("b", tool="t")
    for again in (lambda: flow.set("a", 1), lambda: chart.state("a"), lambda: race.branch("b")):
        with pytest.raises(BadInput, match="already; give this one another name"):
            again()


def test_a_node_in_the_place_of_its_output_is_refused() -> None:
    flow = perdure.dag("x")
    with pytest.raises(BadInput, match=r"'a' is a node or state, and 'x' takes a value; write its `.output`"):
        flow.tool("b", "work", with_={"x": flow.set("a", 1)})


def test_a_reference_has_no_truth_and_no_items() -> None:
    value = perdure.dag("x").input.total
    with pytest.raises(BadInput, match=r"combine conditions with & \| ~"):
        bool(value > 1)
    for use in (iter, hash, lambda it: 1 in it):
        with pytest.raises(TypeError):
            use(value)


def test_what_is_not_json_cannot_stand_in_an_expression() -> None:
    value = perdure.dag("x").input
    for odd in (float("nan"), object(), {1, 2}):
        with pytest.raises(BadInput, match="cannot stand in an expression"):
            value == odd  # noqa: B015


def test_methods_and_literals_become_text() -> None:
    order = perdure.dag("x").input.order
    assert str(order.get("a", [1, None, {"b": True}])) == "${{ input.order.get('a', [1, None, {'b': True}]) }}"
    assert str((order.a + 1).b[0]["c d"]) == "${{ (input.order.a + 1).b[0]['c d'] }}"


OPERATORS: list[Callable[[Any, Any], Any]] = [
    operator.add, operator.sub, operator.mul, operator.lt, operator.ge, operator.eq, operator.ne,
]  # fmt: skip
DATA = {"a": 3, "b": -2, "c": 7}


def _combined(pairs: st.SearchStrategy[tuple[Any, Any]]) -> st.SearchStrategy[tuple[Any, Any]]:
    """Return pairs of what the program computes with numbers, and what it builds of references."""
    return st.builds(
        lambda how, left, right: (how(left[0], right[0]), how(left[1], right[1])),
        st.sampled_from(OPERATORS), pairs, pairs,
    ) | pairs.map(lambda pair: (-pair[0], -pair[1]))  # fmt: skip


LEAVES = st.sampled_from([(value, Reference(key)) for key, value in DATA.items()]) | st.integers(-5, 5).map(
    lambda number: (number, number)
)


@given(st.recursive(LEAVES, _combined, max_leaves=8))
def test_operators_compute_what_python_would(pair: tuple[Any, Any]) -> None:
    expected, built = pair
    text = str(built).removeprefix("${{").removesuffix("}}")
    assert evaluate(parse(text), DATA) == expected
