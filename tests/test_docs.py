"""The documentation says what is so."""

import importlib.util
import json
import re
from pathlib import Path
from typing import Any

import msgspec
import pytest
from scenario import Given, start

import perdure
from perdure.definitions.loading import load
from perdure.testing import Model

ROOT = Path(__file__).parent.parent


def generator() -> Any:
    spec = importlib.util.spec_from_file_location("generate", ROOT / "docs/generate.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_page_of_settings_is_generated_from_the_settings() -> None:
    assert (ROOT / "docs/settings.md").read_text() == generator().settings_page()


def test_the_published_schemas_are_those_of_the_code() -> None:
    published = {file.name: file.read_text() for file in (ROOT / "docs/schemas").iterdir()}
    assert published == generator().schema_files()


def test_every_workflow_in_the_readme_and_the_examples_loads() -> None:
    for page in ("README.md", "docs/secrets.md"):
        blocks = re.findall(r"```yaml\n(.*?)```", (ROOT / page).read_text(), re.DOTALL)
        assert blocks
        for block in blocks:
            load(block)
    for file in (ROOT / "examples").rglob("*.yaml"):
        if file.name.endswith("replies.yaml"):
            Model.from_file(file)._server.server_close()
        else:
            load(file)


def test_the_page_of_secrets_shows_what_is_recorded() -> None:
    page = (ROOT / "docs/secrets.md").read_text()
    (workflow,), (shown,) = (re.findall(rf"```{kind}\n(.*?)```", page, re.DOTALL) for kind in ("yaml", "json"))
    plan = load(workflow).plan
    event = Given(plan).when(start(plan, {"amount": 30})).events[1]
    assert msgspec.to_builtins(event) == json.loads(shown)


def test_the_workflow_that_the_readme_builds_is_sound(capsys: pytest.CaptureFixture[str]) -> None:
    (block,) = re.findall(r"```python\n(import perdure\n\nflow.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    exec(block, {})
    assert load(capsys.readouterr().out).workflow.nodes.keys() == {"check", "notify"}


def test_the_statechart_that_the_page_of_definitions_builds_is_sound(capsys: pytest.CaptureFixture[str]) -> None:
    page = (ROOT / "docs/definitions.md").read_text()
    (block,) = re.findall(r"```python\n(import perdure\n\ndoor.*?)```", page, re.DOTALL)
    exec(block, {})
    definition = load(capsys.readouterr().out)
    assert definition.workflow.states.keys() == {"shut", "ajar", "walled_up"}
    assert definition.warnings == ()


def test_every_public_name_can_be_imported() -> None:
    for name in perdure.__all__:
        assert getattr(perdure, name).__name__ == name
