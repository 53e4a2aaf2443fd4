"""validate, schema and graph as their users meet them: exit codes, data on stdout, words on stderr."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from jsonschema import Draft202012Validator
from warm_cli import run_command

ROOT = Path(__file__).parent.parent
HELLO = str(ROOT / "examples/hello.yaml")
BAD = """\
name: bad
nodes:
  first: {tool: lookup, with: {order: "${{ inptu.order }}"}}
  second: {set: 1, needs: [fist]}
"""
DOUBTFUL = "name: doubtful\nnodes:\n  a: {tool: work, timeout: 30s, deadline: 10s}\n"
SARIF = {  # the parts of the published schema that readers of SARIF rely on
    "type": "object",
    "required": ["version", "runs"],
    "properties": {
        "version": {"const": "2.1.0"},
        "$schema": {"type": "string", "format": "uri"},
        "runs": {"type": "array", "items": {"$ref": "#/$defs/run"}},
    },
    "$defs": {
        "run": {
            "required": ["tool", "results"],
            "properties": {
                "tool": {"required": ["driver"], "properties": {"driver": {"required": ["name", "version", "rules"]}}},
                "columnKind": {"enum": ["utf16CodeUnits", "unicodeCodePoints"]},
                "results": {"type": "array", "items": {"$ref": "#/$defs/result"}},
            },
        },
        "result": {
            "required": ["message", "ruleId", "level", "locations"],
            "properties": {
                "message": {"required": ["text"], "properties": {"text": {"type": "string", "minLength": 1}}},
                "level": {"enum": ["none", "note", "warning", "error"]},
                "locations": {"type": "array", "minItems": 1, "items": {"$ref": "#/$defs/location"}},
            },
        },
        "location": {
            "required": ["physicalLocation"],
            "properties": {
                "physicalLocation": {
                    "required": ["artifactLocation"],
                    "properties": {
                        "artifactLocation": {"properties": {"uri": {"pattern": "^[^ ]+$"}}},
                        "region": {
                            "required": ["startLine"],
                            "properties": {
                                "startLine": {"type": "integer", "minimum": 1},
                                "startColumn": {"type": "integer", "minimum": 1},
                            },
                        },
                    },
                }
            },
        },
    },
}


def perdure(*words: str, code: int = 0, folder: Path = ROOT) -> subprocess.CompletedProcess[str]:
    done = run_command(dict(os.environ), *words, folder=folder)
    assert done.returncode == code, done.stderr
    assert "Traceback" not in done.stderr
    return done


@pytest.fixture
def bad(tmp_path: Path) -> Path:
    (tmp_path / "bad.yaml").write_text(BAD)
    (tmp_path / "doubtful.yaml").write_text(DOUBTFUL)
    return tmp_path


def test_sound_definitions_are_passed_over_in_silence() -> None:
    done = perdure("validate", HELLO, "examples/customer_support.yaml")
    assert (done.stdout, done.stderr) == ("", "2 files: no errors, no warnings\n")


def test_errors_come_before_warnings_with_their_lines_and_a_count(bad: Path) -> None:
    said = perdure("validate", "doubtful.yaml", "bad.yaml", "none.yaml", code=2, folder=bad).stderr
    assert said.index("bad.yaml:3:39: unknown name 'inptu'") < said.index("bad.yaml:4:28: node 'second' needs 'fist'")
    assert said.index("none.yaml: there is no such file") < said.index("doubtful.yaml:3:43: warning: the deadline")
    assert said.endswith("3 files: 3 errors, 1 warning\n")


def test_a_warning_is_an_error_only_when_strict(bad: Path) -> None:
    assert "1 warning" in perdure("validate", "doubtful.yaml", folder=bad).stderr
    assert "1 error, no" in perdure("validate", "doubtful.yaml", "--strict", code=2, folder=bad).stderr


def test_problems_are_printed_as_json(bad: Path) -> None:
    printed = json.loads(perdure("validate", "bad.yaml", "doubtful.yaml", "--json", code=2, folder=bad).stdout)
    assert [(each["file"], each["line"], each["column"], each["severity"]) for each in printed] == [
        ("bad.yaml", 3, 39, "error"),
        ("bad.yaml", 4, 28, "error"),
        ("doubtful.yaml", 3, 43, "warning"),
    ]
    assert printed[1]["message"] == "node 'second' needs 'fist', which does not exist; did you mean 'first'?"
    assert json.loads(perdure("validate", HELLO, "--json").stdout) == []


def test_problems_are_printed_as_sarif(bad: Path) -> None:
    (bad / "with space.yaml").write_text("")
    done = perdure("validate", "bad.yaml", "doubtful.yaml", "with space.yaml", "--sarif", code=2, folder=bad)
    log = json.loads(done.stdout)
    Draft202012Validator(SARIF).validate(log)
    results = log["runs"][0]["results"]
    assert [each["level"] for each in results] == ["error", "error", "error", "warning"]
    places = [each["locations"][0]["physicalLocation"] for each in results]
    assert places[0] == {"artifactLocation": {"uri": "bad.yaml"}, "region": {"startLine": 3, "startColumn": 39}}
    assert places[2] == {"artifactLocation": {"uri": "with%20space.yaml"}}


def test_json_and_sarif_exclude_each_other() -> None:
    assert "choose one" in perdure("validate", HELLO, "--json", "--sarif", code=2).stderr


def test_the_code_of_tools_is_looked_for_only_when_asked(tmp_path: Path) -> None:
    (tmp_path / "tools.py").write_text("print('imported')\nfrom perdure import tool\n@tool\ndef there(): ...\n")
    (tmp_path / "order.yaml").write_text(
        "name: order\ntools: [tools.py]\nnodes:\n"
        "  a: {tool: there}\n  b: {tool: ther}\n  c: {foreach: {items: '[1]'}, tool: json:loads, with: {s: '1'}}\n"
        "  d:\n    set: {tool: ther}\n    compensate: {tool: json:nothing}\n"
    )
    assert "imported" not in perdure("validate", "order.yaml", folder=tmp_path).stderr
    done = perdure("validate", "order.yaml", "--tools", "--json", code=2, folder=tmp_path)
    assert [(each["line"], each["message"][:44]) for each in json.loads(done.stdout)] == [
        (5, "there is no tool 'ther'; did you mean 'there"),
        (9, "json has no tool 'nothing'"),
    ]


def test_calls_are_checked_against_the_code_of_the_tools_when_asked(tmp_path: Path) -> None:
    (tmp_path / "tools.py").write_text(
        "from perdure import tool\n@tool\ndef pay(amount: float, to: str = ''): ...\n@tool\ndef any(**more): ...\n"
    )
    (tmp_path / "pay.yaml").write_text(
        "name: pay\ntools: [tools.py]\nnodes:\n"
        "  good: {tool: pay, with: {amount: 3}}\n"
        "  odd: {tool: pay, with: {amount: three}}\n"
        "  bad: {tool: pay, with: {amuont: 3}}\n"
        "  none: {tool: pay}\n"
        "  all: {tool: any, with: {a: 1}}\n"
        "  two: {foreach: {items: '[1]'}, tool: pay, with: {amount: '${{ item }}', too: x}}\n"
    )
    done = perdure("validate", "pay.yaml", "--tools", "--json", code=2, folder=tmp_path)
    assert [(each["line"], each["severity"], each["message"]) for each in json.loads(done.stdout)] == [
        (6, "error", "tool 'pay' needs 'amount', which is not given; add it under 'with'"),
        (6, "error", "tool 'pay' takes no 'amuont'; did you mean 'amount'?"),
        (7, "error", "tool 'pay' needs 'amount', which is not given; add it under 'with'"),
        (9, "error", "tool 'pay' takes no 'too'; did you mean 'to'?"),
        (5, "warning", "tool 'pay' does not take this for 'amount': amount is 'three', not a number"),
    ]
    assert "no errors" in perdure("validate", "pay.yaml", folder=tmp_path).stderr


def test_a_file_of_tools_that_is_not_there_is_told_without_importing_any(tmp_path: Path) -> None:
    (tmp_path / "order.yaml").write_text("name: order\ntools: [./tols.py]\nnodes: {a: {tool: there}}\n")
    said = perdure("validate", "order.yaml", code=2, folder=tmp_path).stderr
    assert "order.yaml:2:9: the tool file ./tols.py does not exist" in said


def test_validate_loads_nothing_that_a_server_or_cluster_needs() -> None:
    code = (
        "import sys; from perdure.cli import app\n"
        f"app(['validate', {HELLO!r}], standalone_mode=False)\n"
        "print(*{name for name in sys.modules if name.startswith(('ray', 'nats', 'openai', 'sqlalchemy'))"
        " or name.startswith('perdure.cluster')})"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "\n"


def test_the_schema_of_definitions_is_printed_and_written(tmp_path: Path) -> None:
    published = json.loads((ROOT / "docs/schemas/workflow.json").read_text())
    assert json.loads(perdure("schema").stdout) == published
    perdure("schema", "workflow", "--out", str(tmp_path / "schemas"))
    assert json.loads((tmp_path / "schemas/workflow.json").read_text()) == published
    assert "there is no schema of 'nodes'" in perdure("schema", "nodes", code=2).stderr


@pytest.mark.parametrize(("form", "start"), [("mermaid", "flowchart TD"), ("dot", 'digraph "hello"'), ("svg", "<?xml")])
def test_a_diagram_is_printed_in_each_format(form: str, start: str) -> None:
    assert perdure("graph", HELLO, "--format", form).stdout.startswith(start)


def test_a_statechart_is_printed_as_a_state_diagram(tmp_path: Path) -> None:
    (tmp_path / "door.yaml").write_text("name: door\nkind: statechart\nstates: {a: {on: {go: b}}, b: {type: final}}\n")
    assert "n1 --> n2 : go" in perdure("graph", str(tmp_path / "door.yaml")).stdout


def test_a_diagram_needs_a_sound_definition_and_a_known_format(bad: Path) -> None:
    assert "unknown name 'inptu'" in perdure("graph", str(bad / "bad.yaml"), code=2).stderr
    assert "one of mermaid, dot, svg" in perdure("graph", HELLO, "--format", "png", code=2).stderr


@pytest.mark.parametrize("command", ["validate", "schema", "graph"])
def test_help_has_an_example(command: str) -> None:
    assert f"Example: perdure {command}" in perdure(command, "--help").stdout
