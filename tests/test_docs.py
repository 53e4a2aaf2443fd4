"""The documentation says what is so."""

import importlib.util
import re
from pathlib import Path

import perdure
from perdure.definitions.loading import load
from perdure.testing import ScriptedModel

ROOT = Path(__file__).parent.parent


def test_the_page_of_settings_is_generated_from_the_settings() -> None:
    spec = importlib.util.spec_from_file_location("generate", ROOT / "docs/generate.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    assert (ROOT / "docs/settings.md").read_text() == module.settings_page()


def test_every_workflow_in_the_readme_and_the_examples_loads() -> None:
    blocks = re.findall(r"```yaml\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    assert blocks
    for block in blocks:
        load(block)
    for file in (ROOT / "examples").glob("*.yaml"):
        if file.name.endswith(".replies.yaml"):
            ScriptedModel.from_file(file)._server.server_close()
        else:
            load(file)


def test_every_public_name_can_be_imported() -> None:
    for name in perdure.__all__:
        assert getattr(perdure, name).__name__ == name
