"""The pages of tools and MCP: their workflows load, their tables are those of the code, their examples run."""

import json
import re
import sqlite3
import sys
from contextlib import closing
from pathlib import Path

import pytest
import test_cli
from test_cli import perdure
from test_docs import generator

from perdure.cluster.settings import Settings
from perdure.definitions.loading import load

ROOT = Path(__file__).parent.parent
PAGES = {name: (ROOT / "docs" / name).read_text(encoding="utf-8") for name in ("tools.md", "mcp.md")}
environment = test_cli.environment


def test_every_workflow_of_the_pages_loads_without_a_warning() -> None:
    blocks = re.findall(r"^```yaml\n(.*?)```", "\n".join(PAGES.values()), re.DOTALL | re.MULTILINE)
    assert len(blocks) == 5
    for each in blocks:
        assert not load(each).warnings


def test_what_our_own_tools_take_is_generated_from_the_code() -> None:
    assert generator().tools_page(PAGES["tools.md"]) == PAGES["tools.md"]


@pytest.mark.parametrize("name", ["DATABASES", "SMTP", "MCP", "HTTP_ALLOW", "TOOLS"])
def test_the_settings_that_the_pages_show_are_taken(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    found = re.findall(rf"PERDURE_{name}=(?:'(.*?)'|\"(.*?)\")", "".join(PAGES.values()), re.DOTALL)
    assert found
    for single, double in found:
        monkeypatch.setenv(f"PERDURE_{name}", single or double)
        assert getattr(Settings(), name.lower())


def test_the_examples_run(environment: dict[str, str], tmp_path: Path) -> None:
    with closing(sqlite3.connect(tmp_path / "shop.db")) as database:
        database.executescript((ROOT / "examples/order_report.sql").read_text())
    environment["PERDURE_DATABASES"] = json.dumps({"shop": {"url": f"sqlite:///{tmp_path}/shop.db"}})
    report = ["run", str(ROOT / "examples/order_report.yaml"), "--set", "customer=ann", "--local"]
    assert json.loads(perdure(environment, *report).stdout) == {"count": 2, "total": 42}
    environment["PATH"] = f"{Path(sys.executable).parent}:{environment['PATH']}"  # where `python` has what we have
    stock = ["run", str(ROOT / "examples/mcp_stock.yaml"), "--set", "item=lamp", "--local"]
    assert json.loads(perdure(environment, *stock).stdout) == {"there": 3, "reservation": {"result": "lamp-1"}}
