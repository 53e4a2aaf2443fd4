"""Logs: records that say what they are about (execution, node, attempt, partition), as lines for people or as JSON.

The hosts of a cluster publish theirs under `perdure.logs` too, so that `perdure up` shows those of every machine.
"""

import asyncio
import json
import logging
import sys
from datetime import UTC, datetime
from typing import Any, TextIO

from nats.aio.client import Client as Nats

from perdure.actors.log_context import context

SUBJECT = "perdure.logs"
_ABOUT = ("execution", "node", "attempt", "partition")


def configure(style: str, stream: TextIO | None = None) -> None:
    """Have this process write perdure's records from INFO on, and those of all others from WARNING on.

    style: `console` or `json`. stream: standard error where none is given.
    """
    _attach(_Stream(style, stream or sys.stderr))


def to_nats(nats: Nats, process: str) -> None:
    """Publish this process's records too; call it on the connection's event loop."""
    _attach(_Published(nats, process, asyncio.get_running_loop()))


def record_of(record: logging.LogRecord) -> dict[str, Any]:
    """Return a log record as JSON data."""
    told: dict[str, Any] = {
        "at": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
        "level": record.levelname.lower(),
        "logger": record.name,
        "message": record.getMessage(),
        **{key: value for key, value in {**context(), **vars(record)}.items() if key in _ABOUT},
    }
    if record.exc_info:
        told["exception"] = logging.Formatter().formatException(record.exc_info)
    elif record.exc_text:  # without the secrets that were in it
        told["exception"] = record.exc_text
    return told


def line_of(told: dict[str, Any], style: str) -> str:
    """Return a record as one line of JSON, or as lines for people."""
    if style == "json":
        return json.dumps(told, ensure_ascii=False, default=str)
    about = " ".join(f"{key}={told[key]}" for key in (*_ABOUT, "process") if key in told)
    line = f"{told['at'][11:23]} {told['level']:<7} {told['message']}" + (f"  [{about}]" if about else "")
    return f"{line}\n{told['exception']}" if "exception" in told else line


class _Stream(logging.Handler):
    def __init__(self, style: str, stream: TextIO) -> None:
        super().__init__()
        self._style = style
        self._stream = stream

    def emit(self, record: logging.LogRecord) -> None:
        try:
            self._stream.write(line_of(record_of(record), self._style) + "\n")
            self._stream.flush()
        except Exception:
            self.handleError(record)


class _Published(logging.Handler):
    """Publishes records from any thread; while the connection is away they are only in the process's own log."""

    def __init__(self, nats: Nats, process: str, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__()
        self._nats = nats
        self._process = process
        self._loop = loop
        self._publishing: set[asyncio.Task[None]] = set()

    def emit(self, record: logging.LogRecord) -> None:
        if not self._nats.is_connected or self._loop.is_closed():
            return
        try:
            data = line_of({**record_of(record), "process": self._process}, "json").encode()
            self._loop.call_soon_threadsafe(self._publish, data)
        except Exception:
            self.handleError(record)

    def _publish(self, data: bytes) -> None:
        task = self._loop.create_task(self._nats.publish(f"{SUBJECT}.{self._process}", data))
        self._publishing.add(task)
        task.add_done_callback(self._done)

    def _done(self, task: "asyncio.Task[None]") -> None:
        self._publishing.discard(task)
        if not task.cancelled():
            task.exception()  # the connection went away: the record is in the process's own log


def _attach(handler: logging.Handler) -> None:
    root = logging.getLogger()
    for old in [old for old in root.handlers if type(old) is type(handler)]:
        root.removeHandler(old)
    root.addHandler(handler)
    logging.getLogger("perdure").setLevel(logging.INFO)
