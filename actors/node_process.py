"""The process of a node actor: it gets its code, loads its tool once, and makes calls, as many at once as it may."""

import asyncio
import os
import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from time import monotonic
from typing import Any

from perdure.actors import tools
from perdure.actors.batches import Slice
from perdure.actors.context import Beats, Context
from perdure.actors.demands import Demand
from perdure.actors.packages import unpack
from perdure.actors.tool_schema import Tool
from perdure.actors.work import call_here, whole_error_of
from perdure.events.vocabulary import Error


class _Call:
    """One call under way."""

    def __init__(self) -> None:
        self.beats = Beats()
        self.ended = asyncio.Event()
        self.task: asyncio.Task[tuple[Any, Error | None]] | None = None


class NodeProcess:
    """A Ray actor that runs one tool: an `async def` one on this loop, another in a thread.

    With one call at a time that is always the same thread, for what a library keeps by thread.
    """

    def __init__(self, demand: Demand) -> None:
        self._demand = demand
        self._calls: dict[str, _Call] = {}
        self._threads = ThreadPoolExecutor(self._demand.concurrency, "perdure-tool")
        self._stopped = asyncio.Event()
        self._going_on: dict[str, asyncio.Task[tuple[Any, Error | None]]] = {}
        self._sent: set[str] = set()
        self._unwanted: set[str] = set()

    async def where(self) -> tuple[int, str]:
        """Return the process's id and its Ray node's; who gets an answer knows that it has its resources."""
        import ray

        return os.getpid(), ray.get_runtime_context().get_node_id()

    async def prepare(self, packages: dict[str, bytes]) -> tuple[bool, Error | None]:
        """Put code where it is found and load the tool; return whether it can be asked to stop, or what was raised.

        packages: by digest.
        """
        try:
            for what, digest in self._demand.code:
                self._put(what, digest, packages[digest])
            tool = await asyncio.get_running_loop().run_in_executor(self._threads, self._load)
        except BaseException as error:
            return False, whole_error_of(error)
        return tool.is_async or tool.context is not None, None

    async def call(self, call: str, arguments: dict[str, Any], context: Context) -> tuple[Any, Error | None]:
        """Make one call; return its JSON result, or the error that it raised."""
        made = self._calls[call] = _Call()
        place, told = self._demand.place, made.beats.of(context)
        try:
            if not tools.find(place).is_async:
                loop = asyncio.get_running_loop()
                return _hidden(told, *await loop.run_in_executor(self._threads, call_here, place, arguments, told))
            made.task = asyncio.create_task(self._awaited(place, arguments, told))
            return _hidden(told, *await made.task)
        except asyncio.CancelledError as error:
            return None, whole_error_of(error)
        finally:
            made.ended.set()
            del self._calls[call]

    async def batch(self, calls: list[tuple[str, dict[str, Any], Context]], seconds: float) -> Slice:
        """Make calls one after the other, and return what came of them after so many seconds at the latest.

        Of those that have not begun by then nothing is made; one that goes on is to be awaited with `finish`.
        """
        began, outcomes = monotonic(), list[tuple[Any, Error | None]]()
        going_on = ""
        self._sent.update(call for call, _, _ in calls)
        for call, arguments, context in calls:
            left = seconds - (monotonic() - began)
            if left <= 0:
                break
            if call in self._unwanted:
                outcomes.append((None, None))
                continue
            made = asyncio.create_task(self.call(call, arguments, context))
            done, _ = await asyncio.wait({made}, timeout=left)
            if not done:
                going_on, self._going_on[call] = call, made
                break
            outcomes.append(made.result())
        for each in (self._sent, self._unwanted):
            each.difference_update(call for call, _, _ in calls)
        return Slice(outcomes, going_on, monotonic() - began)

    async def finish(self, call: str) -> tuple[Any, Error | None]:
        """Return what came of a call that a batch left going on."""
        made = self._going_on.pop(call, None)
        return await made if made is not None else (None, Error("Cancelled", "it was stopped"))

    async def beats(self, call: str) -> tuple[float, Any]:
        """Return the seconds since a call's last heartbeat, and its last progress."""
        made = self._calls.get(call)
        return made.beats.read() if made else (0.0, None)  # it has not begun, or just ended

    async def stop(self, call: str) -> None:
        """Ask a call to end, and return when it has."""
        made = self._calls.get(call)
        self._going_on.pop(call, None)  # nobody asks for it any more
        if made is None:
            self._unwanted |= {call} & self._sent
            return
        made.beats.stop()
        if made.task is not None:
            made.task.cancel()
        await made.ended.wait()

    async def live(self) -> None:
        """Never return: who waits for it learns when the process dies."""
        await self._stopped.wait()

    def _put(self, what: str, digest: str, data: bytes) -> None:
        folder = unpack(digest, data)
        if what.endswith(".py") and os.path.isabs(what):  # noqa: PTH117 (a path of another machine)
            tools.moved(what, str(folder / os.path.basename(what)))  # noqa: PTH119
            return
        sys.path.insert(0, str(folder))
        if what == "working_dir":
            with suppress(FileNotFoundError):
                os.chdir(folder)

    def _load(self) -> Tool:
        tool = tools.find(self._demand.place)
        tools.function_of(tool)
        return tool

    async def _awaited(self, place: str, arguments: dict[str, Any], context: Context) -> tuple[Any, Error | None]:
        try:
            return await tools.call_async(tools.find(place), arguments, context), None
        except BaseException as error:
            return None, whole_error_of(error)


def _hidden(context: Context, result: Any, error: Error | None) -> tuple[Any, Error | None]:
    """Return how a call went without the secrets that were looked up here; its execution knows only its own."""
    redact = context.outside.secrets.redact
    return redact(result), error and Error(error.type, redact(error.message), redact(error.data))
