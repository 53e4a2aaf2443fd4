"""Diagrams: what they show, and that no name or label can break them."""

import re
import sys
from html import unescape
from pathlib import Path
from xml.etree import ElementTree as ET

import pygraphviz
import pytest
from hypothesis import given
from hypothesis import strategies as st

from perdure.definitions.diagrams import Box, Diagram, Group, diagram_of
from perdure.definitions.dot import to_dot, to_svg
from perdure.definitions.loading import load
from perdure.definitions.mermaid import flowchart, state_diagram
from perdure.errors import EnvironmentProblem

ROOT = Path(__file__).parent.parent
ORDER = """\
name: order
agents: {judge: {model: m, instructions: i}}
nodes:
  check: {foreach: {items: input.claims, as: claim}, tool: verify, with: {c: "${{ claim }}"}}
  choose: {needs: check, switch: {cases: [{when: input.total > 100, then: approve}], default: cheap}}
  approve: {approval: {title: 'Refund "all"?'}}
  cheap: {set: 1}
  race:
    needs: [choose]
    parallel:
      join: any
      branches:
        left: {do: {ask: {agent: judge}, wait: {wait: 5s, needs: ask}}}
        right: {tool: search}
  pay: {tool: charge, with: {r: "${{ nodes.race.output }}"}, catch: [{on: [CardExpired, Timeout], then: escalate}]}
  escalate: {tool: open}
on_failure: {tell: {tool: mail}}
finally: {clean: {tool: sweep}}
"""
DOOR = """\
name: door
kind: statechart
states:
  pending:
    entry: {set: {n: 1}}
    on: {pay: {target: paid, if: event.data.ok, do: {tool: note}}, look: {do: {set: {n: 2}}}}
    after: {30m: gone}
  paid:
    initial: pack
    states:
      pack: {on: {packed: ship}}
      ship: {invoke: {tool: carrier, on_done: there, on_error: pack}}
      there: {type: final}
      back: {type: history, deep: true, default: pack}
    on: {hold: held}
    on_done: both
  held: {on: {again: paid.back}}
  both:
    type: parallel
    states:
      left: {states: {a: {on: {go: b}}, b: {type: final}}}
      right: {states: {c: {on: {go: d, cancel: gone}}, d: {type: final}}}
    on_done: gone
  gone: {type: final}
"""
MERMAID = re.compile(
    r"(flowchart TD|stateDiagram-v2|end|--|\}|style n\d+ stroke-dasharray: 5 5"
    r'|n\d+[\[({]+"[^"`\n]+"[\])}]+|subgraph n\d+\["[^"`\n]+"\]'
    r'|n\d+ (-->|-\.->|==>)(\|"[^"`\n]+"\|)? n\d+'
    r'|state "[^"`\n]+" as n\d+( \{)?|(n\d+|\[\*\]) --> (n\d+|\[\*\])( : ([^:;#\n]|#\d+;)+)?)'
)


def diagram(text: str) -> Diagram:
    return diagram_of(load(text))


def box(drawn: Diagram, name: str) -> Box:
    return next(each for each in drawn.root.boxes() if each.lines[:1] == (name,))


def test_bodies_branches_and_handlers_at_the_end_are_groups() -> None:
    text = flowchart(diagram(ORDER))
    assert '  subgraph n1["check<br/>foreach claim in input.claims"]\n    n2["tool verify"]\n  end\n' in text
    assert (
        '    subgraph n7["left"]\n      n8("ask<br/>agent judge")\n      n9(["wait<br/>wait 5 s"])\n    end\n' in text
    )
    assert '  subgraph n14["on_failure"]\n    n15["tell<br/>tool mail"]\n  end\n' in text
    assert '  subgraph n16["finally"]\n' in text


def test_edges_of_data_control_switches_and_catches_differ() -> None:
    drawn = diagram(ORDER)
    assert {(edge.link, edge.label) for edge in drawn.edges} == {
        ("control", ""), ("data", ""), ("catch", "CardExpired, Timeout"),
        ("switch", "input.total > 100"), ("switch", "default"),
    }  # fmt: skip
    mermaid, dot = flowchart(drawn).splitlines(), to_dot(drawn).splitlines()
    assert {"  n6 --> n12", "  n1 -.-> n3", '  n3 ==>|"default"| n5'} <= set(mermaid)
    assert '  n12 -.->|"catch CardExpired, Timeout"| n13' in mermaid
    assert "  n8 -> n12 [ltail=cluster_n6];" in dot
    assert '  n2 -> n3 [style="dashed" ltail=cluster_n1];' in dot
    assert '  n12 -> n13 [label="catch CardExpired, Timeout" style="dotted" color="red"];' in dot


def test_a_statechart_has_its_hierarchy_regions_history_and_final_states() -> None:
    text = state_diagram(diagram(DOOR))
    assert '  state "pending<br/>entry / set n<br/>look / set n" as n1\n' in text
    assert "  n1 --> n2 : pay [event.data.ok] / note\n" in text
    assert "  n1 --> n15 : after 30m\n" in text
    assert (
        '  state "paid" as n2 {\n    state "pack" as n3\n    state "ship<br/>invoke carrier" as n4\n'
        '    state "there" as n5\n    n5 --> [*]\n    state "back H*" as n6\n    [*] --> n3\n'
        "    n3 --> n4 : packed\n    n4 --> n5 : carrier done\n    n4 --> n3 : carrier failed\n"
        "    n6 --> n3 : at first\n  }\n"
    ) in text
    assert text.count("    --\n") == 1
    assert "  n7 --> n6 : again\n" in text


def test_edges_out_of_a_group_stand_outside_of_it() -> None:
    text = state_diagram(diagram(DOOR))
    assert "\n  n13 --> n15 : cancel\n" in text


def test_a_statechart_within_a_dag_is_a_group_of_it() -> None:
    text = flowchart(
        diagram(f"name: x\nnodes:\n  a: {{set: 1}}\n  door:\n    needs: a\n    statechart:\n      {CHART}\n")
    )
    assert 'subgraph n2["door<br/>statechart"]' in text
    assert "n1 -.-> n2" in text


CHART = DOOR.partition("statechart\n")[2].replace("\n", "\n      ")


@pytest.mark.parametrize("file", sorted((ROOT / "examples/kinds").glob("[!r]*.yaml")), ids=lambda file: file.stem)
def test_every_kind_of_node_can_be_drawn(file: Path) -> None:
    drawn = diagram_of(load(file))
    names = {line for box in drawn.root.boxes() for line in box.lines}
    assert load(file).plan.main.nodes.keys() <= names | _group_lines(drawn.root)
    assert to_svg(to_dot(drawn)).startswith("<?xml")


def _group_lines(group: Group) -> set[str]:
    inner = [part for part in group.parts if isinstance(part, Group)]
    return {*group.lines, *(line for part in inner for line in _group_lines(part))}


@pytest.mark.parametrize("text", [ORDER, DOOR])
def test_the_svg_shows_every_name(text: str) -> None:
    drawn = diagram(text)
    svg = ET.fromstring(to_svg(to_dot(drawn)))
    shown = {element.text for element in svg.iter("{http://www.w3.org/2000/svg}text")}
    assert {line for each in drawn.root.boxes() for line in each.lines} <= shown


def test_without_the_library_the_svg_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pygraphviz", None)
    with pytest.raises(EnvironmentProblem, match=r"pip install 'perdure\[diagrams\]'"):
        to_svg("digraph {}")


@given(st.text(min_size=1, max_size=80), st.text(min_size=1, max_size=80), st.text(max_size=20))
def test_no_label_breaks_a_diagram(title: str, event: str, tool: str) -> None:
    title, tool = title.replace("$", ""), tool.replace("$", "")  # an expression would have to be sound
    event = "".join(each for each in event if each not in "*." and not each.isspace()) + "!"  # else it is no event
    dag = {"name": "x", "nodes": {"a": {"approval": {"title": title}}, "end": {"tool": tool, "needs": ["a"]}}}
    chart = {"name": "x", "kind": "statechart", "states": {"state": {"on": {event: "end"}}, "end": {"type": "final"}}}
    for definition in (dag, chart):
        drawn = diagram_of(load(definition))
        graph = pygraphviz.AGraph(string=to_dot(drawn))
        assert set(graph.nodes()) == {each.id for each in drawn.root.boxes()}
        assert len(graph.edges()) == len(drawn.edges)
        lines = (state_diagram if definition is chart else flowchart)(drawn).splitlines()
        assert [line for line in lines if not MERMAID.fullmatch(line.strip())] == []
    written = re.findall(r'^  n1\(\["a<br/>(.*)"\]\)$', flowchart(diagram_of(load(dag))), re.MULTILINE)
    assert [unescape(re.sub(r"#(\d+);", r"&#\1;", text)) for text in written] == [
        box(diagram_of(load(dag)), "a").lines[1]
    ]
