"""What models say, as the command line shows it while they say it: line by line, or its end in the table of nodes."""

import asyncio
import contextlib
import json
import re
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from perdure.cluster.listening import Heard

_TAIL = 100  # characters of a reply under way that the table shows
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069]")


def harmless(text: str) -> str:
    """Return text of models and tools as a terminal may show it: what would steer that is made visible."""
    return _CONTROL.sub("\ufffd", text)


class Saying:
    """What was heard of each node's reply so far."""

    def __init__(self) -> None:
        self._said: dict[str, str] = {}
        self._progress: dict[str, str] = {}

    def take(self, heard: Heard) -> list[str]:
        """Take in what was heard; return the lines that are whole now."""
        if heard.kind == "progress":
            self._progress[heard.node] = text = harmless(json.dumps(heard.data, ensure_ascii=False))
            return [f"{heard.node}  {text}"]
        if heard.kind != "text":
            return self.end(heard.node)
        begun = "" if heard.again else self._said.get(heard.node, "")
        *lines, self._said[heard.node] = (begun + heard.text).split("\n")
        return [harmless(f"{heard.node}> {line}") for line in lines]

    def end(self, node: str) -> list[str]:
        """Forget a node that has ended; return the line that was not whole yet."""
        self._progress.pop(node, None)
        text = self._said.pop(node, "")
        return [harmless(f"{node}> {text}")] if text else []

    def tail(self, node: str) -> str:
        """Return the end of what a node says now, or how far it is."""
        return (self._progress.get(node) or self._said.get(node, ""))[-_TAIL:]


@asynccontextmanager
async def hearing(
    heard: AsyncIterator[Heard] | None, saying: Saying, tell: Callable[[list[str]], None]
) -> AsyncIterator[None]:
    """Listen while the block runs; `tell` takes the lines that come, none where only the table changes."""

    async def listen() -> None:
        if heard is not None:
            async for each in heard:
                tell(saying.take(each))

    listening = asyncio.create_task(listen())
    try:
        yield
    finally:
        listening.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await listening
