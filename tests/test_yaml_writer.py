"""A workflow written as YAML is the same workflow when it is read, and its schema and diagrams hold for any."""

import pygraphviz
import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from jsonschema import Draft202012Validator
from workflows import TRICKY, WORKFLOWS

from perdure.definitions.diagrams import diagram_of
from perdure.definitions.dot import to_dot
from perdure.definitions.json_schema import workflow_schema
from perdure.definitions.loading import load
from perdure.definitions.model import Workflow
from perdure.definitions.nodes import SetNode
from perdure.definitions.plan import digest_of
from perdure.definitions.yaml_source import parse_yaml
from perdure.definitions.yaml_writer import to_yaml

EDITOR = Draft202012Validator(workflow_schema())
FEW = settings(max_examples=60, suppress_health_check=[HealthCheck.too_slow], deadline=None)


@FEW
@given(WORKFLOWS)
def test_yaml_keeps_the_meaning_of_any_workflow(workflow: Workflow) -> None:
    definition = load(to_yaml(workflow))
    assert definition.workflow == workflow
    assert definition.plan.digest == digest_of(workflow)


@FEW
@given(WORKFLOWS)
def test_the_schema_accepts_any_workflow_that_is_written(workflow: Workflow) -> None:
    EDITOR.validate(parse_yaml(to_yaml(workflow), "definition").data)


@FEW
@given(WORKFLOWS)
def test_any_workflow_can_be_drawn(workflow: Workflow) -> None:
    drawn = diagram_of(load(workflow))
    graph = pygraphviz.AGraph(string=to_dot(drawn))
    assert set(graph.nodes()) == {box.id for box in drawn.root.boxes()}


@pytest.mark.parametrize("text", TRICKY)
def test_text_that_yaml_could_misread_stays_text(text: str) -> None:
    workflow = Workflow(name="x", nodes={"a": SetNode(set={text: [text]})})
    written = to_yaml(workflow)
    assert load(written).workflow == workflow
    assert yaml.safe_load(written)["nodes"]["a"]["set"] == {text: [text]}  # by readers of YAML 1.1 too


def test_what_is_written_reads_well() -> None:
    text = """\
name: hello
agents:
  writer:
    model: m
    instructions: |-
      Write.
      Be short.
nodes:
  greet:
    needs:
      - ask
    if: nodes.ask.output == 'ok'
    set:
      greeting: Hello, ${{ input.name }}!
      number: '12'
  ask:
    agent: writer
    timeout: 90.0
output: ${{ nodes.greet.output }}
"""
    assert to_yaml(load(text).workflow) == text
