"""What MCP servers write to stderr: into our log, with secrets taken out; and the end of it in errors."""

import logging
import os
import threading
from collections import deque
from collections.abc import Callable
from typing import Any, TextIO

_log = logging.getLogger("perdure.mcp")
_KEPT = 5  # lines


class Stderr:
    """The stderr of one program."""

    def __init__(self, name: str, redact: Callable[[Any], Any]) -> None:
        self._name, self._redact = name, redact
        self._lines: deque[str] = deque(maxlen=_KEPT)
        self._write: TextIO | None = None
        self._reading: threading.Thread | None = None

    def open(self) -> TextIO:
        """Return what the program is to write to."""
        reading, writing = os.pipe()
        self._write = os.fdopen(writing, "w")
        self._reading = threading.Thread(target=self._read, args=(reading,), name="perdure-mcp-stderr", daemon=True)
        self._reading.start()
        return self._write

    def close(self) -> None:
        """Write no more here; the program may, until it ends."""
        if self._write is not None:
            self._write.close()

    def last(self) -> str:
        """Return the last lines as the end of an error's message; "" where there are none."""
        if self._reading is not None and self._write is not None and self._write.closed:
            self._reading.join(0.5)
        return "; it said: " + " | ".join(self._lines) if self._lines else ""

    def _read(self, reading: int) -> None:
        with os.fdopen(reading, encoding="utf-8", errors="replace") as lines:
            for line in lines:
                told = self._redact(line.rstrip())
                self._lines.append(told)
                _log.info("MCP server %s: %s", self._name, told)
