"""Secrets on a real store: nothing in its folder, or in what clients show, holds a value."""

import base64
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import NAMESPACE_OID, uuid5

import pytest

import perdure
from perdure import ExecutionFailed, Settings, tool
from perdure.errors import SecretMissing

PLAIN, *PARTS = (uuid5(NAMESPACE_OID, f"{os.getpid()} {part}").hex for part in range(3))  # as whoever imports it anew
SPECIAL = f'"{PARTS[0]}\\é\n{PARTS[1]}'
"""One that JSON and Python write in other ways."""


@tool(name="secrets_stored.log_in")
def log_in(auth: str, key: str) -> Any:
    assert auth == f"Bearer {PLAIN}"
    assert key == SPECIAL
    large = "control-large " + "x" * 200_000 + key  # a blob of its own
    return {"control-small": [auth, {key: json.dumps({"k": key})}], "large": large}


@tool(name="secrets_stored.refuse")
async def refuse(key: str) -> None:
    raise PermissionError(f"control-error {key!r}, {key}")


NODES: dict[str, Any] = {
    "log_in": {
        "tool": "secrets_stored.log_in",
        "with": {"auth": "Bearer ${{ secrets.PLAIN }}", "key": "${{ secrets.special }}"},
    },
    "refuse": {
        "tool": "secrets_stored.refuse",
        "with": {"key": "${{ secrets.special }}"},
        "needs": ["log_in"],
        "retry": {"attempts": 2, "delay": 0.01},
    },
}


def forms(value: str) -> Iterator[bytes]:
    """Yield the value as bytes, in JSON twice over, in Python's notation, and in base64 wherever it begins."""
    texts = [value, json.dumps(value)[1:-1], json.dumps(value, ensure_ascii=False)[1:-1], repr(value)[1:-1]]
    texts += [json.dumps(text)[1:-1] for text in texts]
    for text in texts:
        yield text.encode()
        for shift in range(3):
            yield base64.b64encode(b" " * shift + text.encode())[4:-4]


def holds(data: bytes, *values: str) -> bool:
    return any(form in data for value in values for form in forms(value))


def test_no_value_is_in_the_store_nor_in_what_a_client_shows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "secrets").mkdir()
    (tmp_path / "secrets/special").write_text(f"{SPECIAL}\n")
    monkeypatch.setenv("PERDURE_SECRET_PLAIN", PLAIN)
    settings = Settings(store=tmp_path / "store", secrets_dir=tmp_path / "secrets")
    with perdure.connect(settings, local=True) as client:
        run = client.start({"name": "w", "nodes": NODES})
        with pytest.raises(ExecutionFailed, match=r"control-error .*\[secret special\]") as failed:
            run.result(30)
        shown = repr([failed.value, run.state(), list(run.events()), client.executions()]).encode()
        assert b"'Bearer [secret PLAIN]', {'[secret special]'" in shown
        assert not holds(shown, PLAIN, SPECIAL, *PARTS)
    stored = b"\0".join(file.read_bytes() for file in (tmp_path / "store").rglob("*") if file.is_file())
    for control in ("control-small", "control-large", "control-error"):
        assert holds(stored, control)  # what is stored is readable like this
    assert not holds(stored, PLAIN, SPECIAL, *PARTS)


def test_a_missing_secret_is_told_at_the_start_by_a_client_that_runs_executions_itself(tmp_path: Path) -> None:
    workflow = {"name": "w", "nodes": {"a": {"tool": "json:dumps", "with": {"obj": "${{ secrets.NOWHERE }}"}}}}
    with perdure.connect(Settings(store=tmp_path / "store"), local=True) as client:
        with pytest.raises(SecretMissing, match="set PERDURE_SECRET_NOWHERE in the environment"):
            client.start(workflow, id="x")
        with pytest.raises(SecretMissing, match="PERDURE_SECRET_NOWHERE"):
            client.start_many(workflow, [1])
        assert client.executions() == []
