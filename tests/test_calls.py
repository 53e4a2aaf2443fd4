"""What a workflow calls, and where it says so."""

from hypothesis import HealthCheck, given, settings
from workflows import WORKFLOWS

from perdure.definitions.calls import tool_places, tools_called
from perdure.definitions.model import Workflow
from perdure.definitions.yaml_source import parse_yaml
from perdure.definitions.yaml_writer import to_yaml


@settings(max_examples=40, suppress_health_check=[HealthCheck.too_slow], deadline=None)
@given(WORKFLOWS)
def test_the_place_of_every_call_holds_the_name_of_the_tool(workflow: Workflow) -> None:
    data = parse_yaml(to_yaml(workflow), "definition").data
    places = list(tool_places(workflow))
    for path, name in places:
        found = data
        for part in path:
            found = found[part]
        assert found == name
    assert {name for _, name in places} == tools_called(workflow)
