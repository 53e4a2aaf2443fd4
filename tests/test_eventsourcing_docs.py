"""The page on the `eventsourcing` library says what is so."""

import re
import runpy
from pathlib import Path

import pytest
from log_contract import entry, name

from perdure.cluster.connection import Connection

PAGE = (Path(__file__).parent.parent / "docs/eventsourcing.md").read_text()
APPLICATION, ENTRIES = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)

pytestmark = pytest.mark.usefixtures("recorder_environment")


def test_the_example_of_an_application_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "accounts_of_the_page.py").write_text(APPLICATION)
    monkeypatch.syspath_prepend(tmp_path)  # the library finds a class again by its module's name
    __import__("accounts_of_the_page")
    assert capsys.readouterr().out == "30\n"


async def test_the_example_of_entries_runs(
    connection: Connection, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    await connection.log.append(name(), entry(), 0)
    (tmp_path / "entries.py").write_text(ENTRIES)
    runpy.run_path(str(tmp_path / "entries.py"))
    (first,) = [recorded async for recorded in connection.log.read_all(0, 1)]  # which is of any test
    assert capsys.readouterr().out.startswith(f"{first.execution} {first.entry.n} ")
