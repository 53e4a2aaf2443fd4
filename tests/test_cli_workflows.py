"""The commands of the registry of workflows, as real processes."""

import json
import subprocess
from pathlib import Path

import pytest
import test_cli
from test_cli import command, perdure

from perdure.definitions.loading import load

environment = test_cli.environment


def written(file: Path, name: str, value: str) -> str:
    file.write_text(f"name: {name}\nnodes:\n  a: {{set: {value}}}\noutput: '${{{{ nodes.a.output }}}}'\n")
    return str(file)


def test_a_workflow_is_registered_listed_shown_and_run_by_name(environment: dict[str, str], tmp_path: Path) -> None:
    environment["PERDURE_USER"] = "ann"
    first, second = written(tmp_path / "1.yaml", "order", "one"), written(tmp_path / "2.yaml", "order", "two")
    assert "there is no store at" in perdure(environment, "workflows", "list", code=2).stderr
    assert "there is no such file, and no store" in perdure(environment, "run", "order", "--local", code=2).stderr
    assert perdure(environment, "workflows", "register", first, second).stdout == "order@1\norder@2\n"
    assert json.loads(perdure(environment, "run", "order", "--local", "--id", "o-1").stdout) == "two"
    perdure(environment, "workflows", "activate", "order@1")
    assert json.loads(perdure(environment, "run", "order", "--local", "--id", "o-1").stdout) == "two"
    assert json.loads(perdure(environment, "run", "order", "--local").stdout) == "one"
    shown = json.loads(perdure(environment, "workflows", "show", "order", "--json").stdout)
    assert (shown["active"], [each["by"] for each in shown["versions"]]) == (1, ["ann", "ann"])
    table = perdure(environment, "workflows", "show", "order").stderr
    assert [line.split()[0] for line in table.splitlines()] == ["version", "2", "1"]
    assert shown["versions"][0]["digest"][:19] in perdure(environment, "workflows", "list").stderr
    ran = perdure(environment, "show", "o-1", "--definition").stdout
    assert load(ran).plan.digest == shown["versions"][1]["digest"]
    assert perdure(environment, "workflows", "show", "order@2", "--definition").stdout == ran
    assert perdure(environment, "workflows", "show", shown["versions"][1]["digest"]).stdout == ran


def test_a_deprecated_version_is_refused_with_the_way_out(environment: dict[str, str], tmp_path: Path) -> None:
    file = written(tmp_path / "1.yaml", "order", "one")
    perdure(environment, "workflows", "register", file)
    done = perdure(environment, "workflows", "deprecate", "order@1", "--why", "charges [twice]")
    assert "order alone means it and is refused, too" in done.stderr
    refused = perdure(environment, "run", "order", "--local", code=2).stderr
    assert "deprecated: charges [twice]; perdure workflows activate order@1" in refused
    assert "it is deprecated: charges [twice]" in perdure(environment, "workflows", "register", file).stderr
    assert "deprecated: charges [twice]" in perdure(environment, "workflows", "list").stderr
    perdure(environment, "workflows", "activate", "order@1")
    assert json.loads(perdure(environment, "run", "order", "--local").stdout) == "one"
    assert "say which version" in perdure(environment, "workflows", "activate", "order", code=2).stderr
    assert "did you mean 'order'" in perdure(environment, "workflows", "show", "ordr", code=2).stderr


def test_one_bad_file_registers_none(environment: dict[str, str], tmp_path: Path) -> None:
    good = written(tmp_path / "1.yaml", "order", "one")
    assert "no such file" in perdure(environment, "workflows", "register", good, "gone.yaml", code=2).stderr
    assert not Path(environment["PERDURE_STORE"]).exists()


def test_two_processes_that_register_one_name_at_once_both_succeed(environment: dict[str, str], tmp_path: Path) -> None:
    words = [command("workflows", "register", written(tmp_path / f"{n}.yaml", "order", str(n))) for n in range(2)]
    running = [subprocess.Popen(each, env=environment, stdout=subprocess.PIPE, text=True) for each in words]
    said = [each.communicate(timeout=40)[0] for each in running]
    assert [each.returncode for each in running] == [0, 0]
    assert sorted(said) == ["order@1\n", "order@2\n"]


@pytest.mark.parametrize("name", ["register", "list", "show", "activate", "deprecate"])
def test_help_has_an_example(environment: dict[str, str], name: str) -> None:
    assert "Example: perdure workflows" in perdure(environment, "workflows", name, "--help").stdout
