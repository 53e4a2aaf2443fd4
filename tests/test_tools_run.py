"""Tools within executions: our own, of MCP servers and Ray's, and no secret in anything that is written."""

import base64
import json
import logging
import sqlite3
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from test_secrets_stored import holds
from web_server import Asked, web_server

import perdure
from perdure import Client, ExecutionFailed, Settings
from perdure.actors.tool_schema import schema_of
from perdure.actors.tools import call_async, find, locate
from perdure.errors import SecretMissing

pytestmark = pytest.mark.timeout(120)
PROGRAM = Path(__file__).parent / "mcp_program.py"
TOOLS = """\
import os
import ray
from perdure import Context, tool

@tool
def confess(context: Context) -> list[str]:
    key = context.secret("INHERITED")
    context.logger.warning("confesses %s", key)
    return [key, f"key={key}"]

@tool
def refuse(context: Context) -> None:
    raise PermissionError(f"not with {context.secret('INHERITED')}")

FACTOR = 2

@ray.remote
def double(number: int) -> dict[str, int]:
    '''Double a number.'''
    return {"doubled": FACTOR * number}

@ray.remote(max_retries=0)
def deny(number: int) -> None:
    raise PermissionError(f"not {number}")

@ray.remote(max_retries=0)
def die() -> None:
    os._exit(3)

@tool(name="remote.tagged", tags=["ray"])
@ray.remote
def tagged() -> str:
    return "tagged"
"""


@pytest.fixture(scope="module")
def client(local_ray: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Client]:
    folder = tmp_path_factory.mktemp("tools")
    (folder / "tools.py").write_text(TOOLS)
    with perdure.connect(Settings(store=folder / "store", node_actor_idle=5)) as client:
        yield client


@pytest.fixture
def file(client: Client) -> Path:
    return Path(client._client._settings.store).parent / "tools.py"


def run(client: Client, file: Path, nodes: dict[str, Any], **parts: Any) -> Any:
    return client.start({"name": "x", "tools": [str(file)], "nodes": nodes, **parts}).result(60)


def test_a_remote_function_is_called_by_import_path_and_by_name(client: Client, file: Path) -> None:
    nodes = {"a": {"tool": f"{file}:double", "with": {"number": "4"}}, "b": {"tool": "remote.tagged"}}
    outputs = run(client, file, nodes, output={"a": "${{ nodes.a.output }}", "b": "${{ nodes.b.output }}"})
    assert outputs == {"a": {"doubled": 8}, "b": "tagged"}
    found = find(f"{file}:double")
    assert found.is_async
    assert schema_of(found).description == "Double a number."
    assert find(f"{file}:tagged").tags == ("ray",)


async def test_a_remote_function_of_a_module_is_called_by_its_import_path(client: Client) -> None:
    assert locate(["remote_module:tripled"], [], None, shared=True) == {
        "remote_module:tripled": "remote_module:tripled"
    }
    assert await call_async(find("remote_module:tripled"), {"number": "4"}) == 12


def test_what_a_remote_function_raises_is_caught_by_its_type_and_a_lost_one_is_lost(client: Client, file: Path) -> None:
    caught = {"on": ["PermissionError"], "output": "${{ error.message }}"}
    nodes = {"a": {"tool": f"{file}:deny", "with": {"number": 3}, "catch": [caught]}}
    assert run(client, file, nodes, output="${{ nodes.a.output }}") == "not 3"
    with pytest.raises(ExecutionFailed, match="WorkerLost"):
        run(client, file, {"a": {"tool": f"{file}:die"}})


def test_a_secret_that_a_node_actor_looks_up_is_in_neither_result_nor_error(client: Client, file: Path) -> None:
    confessed = run(client, file, {"a": {"tool": "confess"}}, output="${{ nodes.a.output }}")
    assert confessed == ["[secret INHERITED]", "key=[secret INHERITED]"]
    with pytest.raises(ExecutionFailed, match=r"PermissionError: not with \[secret INHERITED\]"):
        run(client, file, {"a": {"tool": "refuse"}})


WORKFLOW = """\
name: shop
mcp:
  desk:
    command: {python}
    args: [{program}]
    env: {{TOKEN: "Bearer ${{{{ secrets.KEY }}}}"}}
input: {{type: object}}
nodes:
  orders: {{tool: sql, with: {{database: shop, query: "SELECT id FROM orders WHERE who = :who", params: {{who: ann}}}}}}
  fetched:
    tool: http
    with:
      url: "${{{{ input.url }}}}"
      query: {{key: "${{{{ secrets.KEY }}}}"}}
      auth: {{user: shop, password: "${{{{ secrets.KEY }}}}"}}
  said: {{tool: desk.said, with: {{key: TOKEN}}}}
  counted: {{tool: bench.add, with: {{a: 1}}}}
  added: {{tool: desk.add, with: {{a: "${{{{ nodes.orders.output.rows[0].id }}}}"}}}}
  failed:
    tool: http
    with: {{url: "${{{{ input.url }}}}/no", headers: {{x-key: "${{{{ secrets.KEY }}}}"}}}}
    catch: [{{on: [Refused], output: "${{{{ error.message }}}}"}}]
  inner:
    tool: http
    with: {{url: "http://169.254.169.254/latest/meta-data"}}
    catch: [{{on: [AddressRefused], output: refused}}]
  told: {{tool: nats.publish, with: {{subject: shop.told, data: "${{{{ nodes.orders.output.rows }}}}"}}}}
output:
  counted: "${{{{ nodes.counted.output.result }}}}"
  added: "${{{{ nodes.added.output.result }}}}"
  said: "${{{{ nodes.said.output.result }}}}"
  echo: "${{{{ nodes.fetched.output.json }}}}"
  failed: "${{{{ nodes.failed.output }}}}"
  inner: "${{{{ nodes.inner.output }}}}"
"""


async def test_a_workflow_uses_them_all_and_no_secret_is_written_anywhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    secret = "kk-7h3-v4lu3-0f-4-s3cr3t"
    monkeypatch.setenv("PERDURE_SECRET_KEY", secret)
    with closing(sqlite3.connect(tmp_path / "shop.db")) as database:
        database.executescript("CREATE TABLE orders (id INTEGER, who TEXT); INSERT INTO orders VALUES (41, 'ann')")
    settings = Settings(
        store=tmp_path / "store", http_allow=("127.0.0.1",), databases={"shop": {"url": f"sqlite:///{tmp_path}/shop.db"}},
        mcp={"bench": {"command": sys.executable, "args": [str(PROGRAM)]}},
    )  # fmt: skip
    async with web_server() as web:
        web.answers["/x"] = lambda asked: (200, {"content-type": "application/json"}, _said(asked))
        web.answers["/x/no"] = lambda asked: (403, {}, _said(asked))
        caplog.set_level(logging.DEBUG)
        async with await perdure.connect_async(settings, local=True) as client:
            text = WORKFLOW.format(python=sys.executable, program=PROGRAM)
            started = await client.start(text, {"url": web.url("/x")})
            output = await started.result(60)
            told = [entry async for entry in client.export(started.id)]
    assert output["counted"] == 2, "a server of the settings"
    assert (output["added"], output["said"], output["inner"]) == (42, "Bearer [secret KEY]", "refused")
    assert output["echo"]["authorization"] == "Basic [secret auth]"
    assert "answered 403" in output["failed"]
    (asked,) = [each for each in web.asked if each.path == f"/x?key={secret}"]
    assert asked.headers["authorization"] == "Basic " + base64.b64encode(f"shop:{secret}".encode()).decode()
    files = [each for each in (tmp_path / "store").rglob("*") if each.is_file()]
    assert any(b"Bearer [secret KEY]" in each.read_bytes() for each in files), "the control is not found"
    assert "/x?key=[secret KEY]" in caplog.text, "a library's line is not found"
    for data in [*(each.read_bytes() for each in files), "".join(told).encode(), caplog.text.encode()]:
        assert not holds(data, secret)


def _said(asked: Asked) -> bytes:
    return json.dumps(asked.headers).encode()


def test_a_missing_secret_of_an_mcp_server_is_told_at_the_start(tmp_path: Path) -> None:
    text = WORKFLOW.format(python=sys.executable, program=PROGRAM)
    client = perdure.connect(Settings(store=tmp_path / "store"), local=True)
    with client, pytest.raises(SecretMissing, match="PERDURE_SECRET_KEY"):
        client.start(text, {})
