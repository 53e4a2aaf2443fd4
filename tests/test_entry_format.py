"""The stored form: published as schemas, read back in every version, refused with a reason where it cannot be."""

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, get_args
from uuid import uuid4

import pytest
from jsonschema import Draft202012Validator
from log_contract import entry

from perdure.cluster.nats_server import NatsServer
from perdure.errors import BadInput, CorruptEntry, EnvironmentProblem
from perdure.events import entry as entry_module
from perdure.events import upcasting, urls
from perdure.events.entry import Entry, Recorded, decode, encode
from perdure.events.jetstream_log import JetStreamLog
from perdure.events.memory_log import MemoryLog
from perdure.events.schema import event_schemas
from perdure.events.vocabulary import Error, Event, ExecutionFailed, NodeSucceeded, TimerArmed

STORED_V1 = (Path(__file__).parent / "data/entry.v1.json").read_bytes().rstrip()


def test_what_is_written_fits_the_published_schemas() -> None:
    schemas = event_schemas()
    assert schemas.keys() == {"Entry", *(kind.__name__ for kind in get_args(Event))}
    events: list[Event] = [
        NodeSucceeded("a", 1, {"x": [1, None]}),
        TimerArmed("t", datetime.now(UTC)),
        ExecutionFailed(Error("Boom", "it broke"), "a", 2),
    ]
    plain = json.loads(encode(Entry("i", 1, "", datetime.now(UTC), events, ["c"], 3)))
    validator = Draft202012Validator(schemas["Entry"], format_checker=Draft202012Validator.FORMAT_CHECKER)
    assert not list(validator.iter_errors(plain))
    for event in plain["events"]:
        assert not list(Draft202012Validator(schemas[event["type"]]).iter_errors(event))
    assert list(validator.iter_errors({**plain, "events": [{"type": "Unknown"}]}))


def test_an_entry_that_was_stored_by_the_first_release_is_still_read() -> None:
    read = decode(STORED_V1)
    assert [type(event).__name__ for event in read.events] == [
        "ExecutionStarted", "NodeScheduled", "NodeSucceeded", "NodeAttemptFailed", "TimerArmed", "ExecutionFailed",
    ]  # fmt: skip
    assert json.loads(encode(read)) == json.loads(STORED_V1)


def test_an_entry_of_an_earlier_format_is_brought_up_step_by_step(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if today's format were 3, number 2 had called a `node` a `step`, and number 1 had held a single event."""

    def from_1(raw: dict[str, Any]) -> dict[str, Any]:
        return {**raw, "events": [raw["event"]]}

    def from_2(raw: dict[str, Any]) -> dict[str, Any]:
        events = [
            {("node" if key == "step" else key): value for key, value in event.items()} for event in raw["events"]
        ]
        return {**raw, "events": events}

    monkeypatch.setattr(upcasting, "FORMAT", 3)
    monkeypatch.setattr(entry_module, "FORMAT", 3)
    monkeypatch.setattr(upcasting, "UPCASTS", {1: from_1, 2: from_2})
    head = {"id": "i", "n": 1, "prev": "", "at": "2026-01-01T00:00:00Z"}
    event = {"type": "NodeSucceeded", "step": "a", "attempt": 1, "output": 7}
    for old in ({**head, "v": 1, "event": event}, {**head, "v": 2, "events": [event]}):
        assert decode(json.dumps(old).encode()).events == [NodeSucceeded("a", 1, 7)]


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"v": 99}, "it is of format 99, and this release reads up to 1; upgrade perdure"),
        ({"v": 0}, "it is of format 0, which this release cannot bring up to 1"),
        ({"events": [{"type": "NodeAscended"}]}, "NodeAscended.*a newer release may have written it"),
        ({"events": 3}, "a newer release may have written it"),
        ({"n": "x"}, "a newer release may have written it"),
    ],
)
def test_an_entry_that_cannot_be_read_says_why_and_where(change: dict[str, Any], expected: str) -> None:
    data = json.dumps({**json.loads(encode(entry())), **change}).encode()
    with pytest.raises(CorruptEntry, match=f"'x-1', position 5.*{expected}"):
        _ = Recorded("x-1", 5, data).entry
    with pytest.raises(CorruptEntry):
        _ = Recorded("x-1", 5, data[:-3]).entry


async def test_a_log_is_opened_by_its_url(monkeypatch: pytest.MonkeyPatch) -> None:
    assert isinstance(await urls.open_log("memory://"), MemoryLog)

    opened: list[str] = []

    class Plugged:
        name = "sqlite"

        def load(self) -> Any:
            async def open_it(url: str) -> Any:
                opened.append(url)
                return MemoryLog()

            return open_it

    monkeypatch.setattr(urls, "entry_points", lambda group, name="sqlite": [Plugged()] if name == "sqlite" else [])
    assert isinstance(await urls.open_log("sqlite:///file"), MemoryLog)
    assert opened == ["sqlite:///file"]
    with pytest.raises(BadInput, match="one of memory, nats, sqlite"):
        await urls.open_log("kafka://x")


async def test_a_log_on_nats_is_opened_by_its_url_or_refused_at_once(server: NatsServer) -> None:
    log = await urls.open_log(server.url.replace("nats://", f"nats://{server.token}@"))
    assert isinstance(log, JetStreamLog)
    stored = await log.append(f"by-url-{uuid4().hex}", entry(), 0)
    assert [recorded async for recorded in log.read(stored.execution)] == [stored]
    await log._nats.close()
    with pytest.raises(EnvironmentProblem, match="cannot connect to NATS"):
        await urls.open_log("nats://127.0.0.1:1")
