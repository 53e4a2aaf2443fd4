"""Histories as files: one execution's entries, blobs and definition as JSON lines, byte-faithful and verified."""

import hashlib
import io
import json
from base64 import b64decode, b64encode
from collections.abc import AsyncIterator, Iterable
from typing import Any
from uuid import uuid4

from perdure.actors.inputs import ActivateExecution
from perdure.cluster.connection import Connection
from perdure.definitions.model import Workflow
from perdure.errors import BadInput, ExecutionExists, ExecutionNotFound
from perdure.events.entry import Entry, Recorded, decode
from perdure.events.jetstream_log import IMPORTED
from perdure.events.vocabulary import ExecutionStarted

_VERSION = 1
_IMPORTED = {IMPORTED: "1"}


async def export(connection: Connection, execution: str) -> AsyncIterator[str]:
    """Yield the lines of the file: a head, the definition, each blob, each entry, and an end with the last digest.

    Raises ExecutionNotFound.
    """
    entries = [recorded async for recorded in connection.log.read(execution)]
    if not entries:
        raise ExecutionNotFound(f"there is no execution {execution!r} in this store")
    yield json.dumps({"perdure_history": _VERSION, "execution": execution, "entries": len(entries)})
    for event in entries[0].entry.events:
        if isinstance(event, ExecutionStarted):
            yield json.dumps({"definition": json.loads(await connection.registry.definition(event.digest))})
    written: set[str] = set()
    for recorded in entries:
        for blob in recorded.slim.blobs:
            if blob.name in written:
                continue
            written.add(blob.name)
            content = io.BytesIO()
            await connection.log.blobs.read(blob, content)
            yield json.dumps({"blob": blob.name, "data": b64encode(content.getvalue()).decode()})
        yield json.dumps({"entry": recorded.data.decode()}, ensure_ascii=False)
    yield json.dumps({"end": entries[-1].digest})


async def import_(connection: Connection, lines: Iterable[str]) -> str:
    """Verify a history file whole, then append it, and wake the execution; return its id.

    An import that was broken off goes on where it was. Raises BadInput for a file that is cut short or altered, and
    ExecutionExists where the id has another past here.
    """
    execution, definition, blobs, entries = _verified(lines)
    started = _started(entries[0], blobs)
    there = [recorded.data async for recorded in connection.log.read(execution)]
    common = min(len(there), len(entries))  # here it may have gone on already
    if there[:common] != [data for data, _ in entries[:common]]:
        raise ExecutionExists(f"the execution id {execution!r} has another past in this store; nothing was imported")
    if definition is not None and started is not None:
        await connection.registry.put_definition(started.digest, Workflow.model_validate(definition))
    for name, content in blobs.items():
        await connection.log.blobs.put(name, content)
    position = await connection.log.last(execution)
    for data, entry in entries[len(there) :]:
        position = (await connection.log.append_stored(execution, entry.id, data, position, _IMPORTED)).position
    if started is not None:
        await connection.inbox.send(ActivateExecution(uuid4().hex, execution), started.lane)
    return execution


class _History:
    """A history file as it is read, line by line, each checked against those before."""

    def __init__(self) -> None:
        self.head: dict[str, Any] | None = None
        self.definition: Any = None
        self.blobs: dict[str, bytes] = {}
        self.entries: list[tuple[bytes, Entry]] = []
        self.prev = ""
        self.end = None

    def take(self, item: dict[str, Any], number: int) -> None:
        if self.head is None:
            if item.get("perdure_history") != _VERSION:
                raise BadInput(f"line {number}: this is no history file of version {_VERSION}")
            self.head = item
        elif "entry" in item:
            self.take_entry(str(item["entry"]).encode(), number)
        elif "blob" in item:
            self.blobs[item["blob"]] = b64decode(item["data"])
        self.definition = item.get("definition", self.definition)
        self.end = item.get("end", self.end)

    def take_entry(self, data: bytes, number: int) -> None:
        entry = decode(data)
        if (entry.prev, entry.n) != (self.prev, len(self.entries) + 1):
            raise BadInput(f"line {number}: entry {entry.n} does not follow the one before: the file was altered")
        self.entries.append((data, entry))
        self.prev = Recorded("", 0, data).digest


def _verified(lines: Iterable[str]) -> tuple[str, Any, dict[str, bytes], list[tuple[bytes, Entry]]]:
    """Return execution, definition, blobs and entries of a file whose hash chain holds from end to end."""
    history = _History()
    for number, line in enumerate(lines, 1):
        history.take(_parsed(line, number), number)
    if history.head is None or history.end != history.prev or len(history.entries) != history.head["entries"]:
        raise BadInput("the history file is cut short or altered: its end does not fit its entries")
    for _, entry in history.entries:
        for blob in entry.blobs:
            if hashlib.sha256(history.blobs.get(blob.name, b"")).hexdigest() != blob.digest:
                raise BadInput(f"the blob {blob.name} is missing from the history file, or altered")
    return history.head["execution"], history.definition, history.blobs, history.entries


def _parsed(line: str, number: int) -> dict[str, Any]:
    try:
        item = json.loads(line)
    except json.JSONDecodeError as error:
        raise BadInput(f"line {number}: not JSON: {error.msg}; the file was altered") from None
    if not isinstance(item, dict):
        raise BadInput(f"line {number}: not part of a history file")
    return item


def _started(first: tuple[bytes, Entry], blobs: dict[str, bytes]) -> ExecutionStarted | None:
    """Return the start of the history; None for one of which only a tombstone is left."""
    whole = Recorded("", 0, first[0], {blob.name: blobs[blob.name] for blob in first[1].blobs}).entry
    return next((event for event in whole.events if isinstance(event, ExecutionStarted)), None)
