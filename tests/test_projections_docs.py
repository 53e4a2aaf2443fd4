"""The page of projections says what is so: its example folds, its commands and names are there."""

import re
from pathlib import Path
from typing import Any

import pytest

import perdure
from perdure import Settings
from perdure.cluster.queries import AsyncQueries
from perdure.definitions.loading import load
from perdure.projections.filters import COLUMNS
from perdure.projections.queries import ORDERS, Query
from perdure.projections.runner import built_in

PAGE = (Path(__file__).parent.parent / "docs/projections.md").read_text(encoding="utf-8")


def test_every_read_model_and_every_question_is_described() -> None:
    assert re.findall(r"^\| `(\w+)` \|", PAGE, re.MULTILINE) == [projection.name for projection in built_in()]
    assert {name for name in COLUMNS if f"`{name}`" in PAGE} == COLUMNS.keys()
    assert {name for name in Query.__struct_fields__ if name in PAGE} == set(Query.__struct_fields__)
    assert {name for name in ORDERS if f"`{name}`" in PAGE} == ORDERS.keys()
    for name in re.findall(r"client\.(\w+)", PAGE):
        assert hasattr(AsyncQueries, name) or name == "start", name


def test_the_example_of_an_own_projection_folds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    code = next(block for block in re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL) if "class Revenue" in block)
    (tmp_path / "revenue_of_docs.py").write_text(code)
    monkeypatch.syspath_prepend(tmp_path)
    definition = load(re.search(r"```yaml\n(.*?)```", PAGE, re.DOTALL)[1]).workflow  # type: ignore[index]
    settings = Settings(store=tmp_path / "store", projections=("revenue_of_docs:Revenue",))
    with perdure.connect(settings, local=True) as client:
        for tenant, total in (("acme", 30), ("acme", 12.5), ("other", 1)):
            value: dict[str, Any] = {"tenant": tenant, "total": total}
            client.start(definition, value, search={"region": "eu"}, tags=["vip"], priority=7).result(10)
        client.catch_up()
        assert client.lag()["revenue"]["lag"] == 0
        rows = client._loop.run(client._client._projections.read(lambda sql: sql.exec_driver_sql(
            "SELECT tenant, total FROM revenue ORDER BY tenant").all()))  # fmt: skip
        assert rows == [("acme", 42.5), ("other", 1.0)]
        client.rebuild(["revenue"])
        assert client.lag()["revenue"]["position"] > 0
