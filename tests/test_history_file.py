"""A history leaves as a file, byte-faithful, and goes on in another store."""

import asyncio
import json
from base64 import b64decode, b64encode
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

import perdure
from perdure import Settings, tool
from perdure.cluster.client import AsyncClient
from perdure.errors import BadInput, ExecutionExists, ExecutionNotFound

OPEN = asyncio.Event()
CALLS: list[str] = []


@tool(name="history_test.note")
async def note(line: str) -> str:
    CALLS.append(line[:10])
    return line


@tool(name="history_test.wait")
async def wait() -> str:
    await OPEN.wait()
    return "waited"


FLOW = {
    "name": "flow",
    "nodes": {
        "first": {"tool": "history_test.note", "with": {"line": "${{ input }}"}},
        "second": {"tool": "history_test.wait", "needs": ["first"]},
        "third": {"tool": "history_test.note", "with": {"line": "${{ nodes.second.output }}"}},
    },
    "output": "${{ [nodes.first.output, nodes.third.output] }}",
}


@pytest.fixture
async def lines(tmp_path: Path) -> AsyncIterator[list[str]]:
    """The history of an execution that is under way in one store, with a large value in a blob."""
    CALLS.clear()
    OPEN.clear()
    async with await perdure.connect_async(Settings(store=tmp_path / "here"), local=True) as client:
        run = await client.start(FLOW, "x" * 200_000, id="flow 1")
        async for happened in run.events():
            if getattr(happened.event, "node", None) == "second":
                break
        yield [line async for line in client.export("flow 1")]


@pytest.fixture
async def there(tmp_path: Path) -> AsyncIterator[AsyncClient]:
    async with await perdure.connect_async(Settings(store=tmp_path / "there"), local=True) as client:
        yield client


async def test_a_history_goes_on_in_another_store_without_repeating(lines: list[str], there: AsyncClient) -> None:
    assert await there.import_history(lines) == "flow 1"
    OPEN.set()
    assert await there.get("flow 1").result(20) == ["x" * 200_000, "waited"]
    assert CALLS.count("x" * 10) == 1


async def test_what_is_exported_again_is_the_same_byte_by_byte(lines: list[str], tmp_path: Path) -> None:
    async with await AsyncClient.open(Settings(store=tmp_path / "there"), "none") as there:
        await there.import_history(lines)
        assert [line async for line in there.export("flow 1")] == lines


async def test_an_import_can_be_repeated(lines: list[str], there: AsyncClient) -> None:
    await there.import_history(lines)
    OPEN.set()
    await there.get("flow 1").result(20)
    count = len(await there.get("flow 1").history())
    assert await there.import_history(lines) == "flow 1"  # what is there begins with it
    changed = rechained([line.replace('\\"attempt\\":1', '\\"attempt\\":2') for line in lines])
    with pytest.raises(ExecutionExists, match="another past"):
        await there.import_history(changed)
    assert len(await there.get("flow 1").history()) == count


def rechained(lines: list[str]) -> list[str]:
    """Return the lines with digests that fit again, as a forger would."""
    import hashlib

    prev, out = "", []
    for line in lines:
        item: dict[str, Any] = json.loads(line)
        if "entry" in item:
            entry = json.loads(item["entry"])
            entry["prev"] = prev
            item["entry"] = json.dumps(entry)
            prev = hashlib.sha256(item["entry"].encode()).hexdigest()
        if "end" in item:
            item["end"] = prev
        out.append(json.dumps(item))
    return out


def blob_altered(line: str) -> str:
    item = json.loads(line)
    if "blob" not in item:
        return line
    data = bytearray(b64decode(item["data"]))
    data[100] ^= 1
    return json.dumps({**item, "data": b64encode(bytes(data)).decode()})


def entry_altered(line: str) -> str:
    return line.replace("NodeScheduled", "NodeResumed", 1)


@pytest.mark.parametrize(
    ("spoil", "expected"),
    [
        pytest.param(lambda lines: lines[:-1], "cut short", id="no end"),
        pytest.param(lambda lines: [*lines[:-2], lines[-1]], "cut short", id="an entry missing at the end"),
        pytest.param(lambda lines: lines[:-3] + lines[-2:], "does not follow", id="an entry missing in the midst"),
        pytest.param(lambda lines: [], "cut short", id="nothing"),
        pytest.param(lambda lines: list(map(blob_altered, lines)), "or altered", id="a blob altered"),
        pytest.param(lambda lines: list(map(entry_altered, lines)), "altered", id="an entry altered"),
        pytest.param(lambda lines: [line for line in lines if '"blob": ' not in line], "is missing", id="no blob"),
        pytest.param(lambda lines: ["{}", *lines[1:]], "no history file", id="another head"),
        pytest.param(lambda lines: ["{", *lines[1:]], "line 1: not JSON", id="not JSON"),
        pytest.param(lambda lines: ["3", *lines[1:]], "line 1: not part", id="no object"),
    ],
)
async def test_a_file_that_was_cut_or_altered_is_refused_and_nothing_stored(
    lines: list[str], there: AsyncClient, spoil: Any, expected: str
) -> None:
    with pytest.raises(BadInput, match=expected):
        await there.import_history(spoil(lines))
    assert await there.get("flow 1").status() == "queued"


async def test_exporting_what_is_not_there_says_so(there: AsyncClient) -> None:
    with pytest.raises(ExecutionNotFound, match="'none'"):
        _ = [line async for line in there.export("none")]
