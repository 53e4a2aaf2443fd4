"""The work of one attempt at a node: what is to be done, and the one place that says where each kind runs."""

import asyncio
import contextlib
import threading
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, Protocol, TypeVar

import msgspec

from perdure.actors import agents, own_nodes, tools
from perdure.actors.context import Context
from perdure.definitions.json_values import clean_text
from perdure.definitions.plan import Plan, PlanNode
from perdure.errors import PerdureError
from perdure.events.vocabulary import Error

Result = TypeVar("Result")


class WorkerLost(PerdureError):
    """The process that did the work is gone without an answer."""


class Timeout(PerdureError):
    """An attempt took longer than its `timeout`."""


class Work(msgspec.Struct, frozen=True):
    """One attempt at a node, with all that is needed to do it. undone: how often it was compensated."""

    execution: str
    path: str
    node: PlanNode
    attempt: int
    input: Any
    plan: Plan
    place: str | None
    undone: int = 0

    @property
    def idempotency_key(self) -> str:
        """The key of this node's effect: the same across attempts and crashes, another one once it was undone."""
        return f"{self.execution}/{self.path}" + (f"#{self.undone + 1}" if self.undone else "")


class CallElsewhere(Protocol):
    """Calls a plain `def` tool where it cannot block the event loop: a node actor, or a thread."""

    async def __call__(self, place: str, arguments: dict[str, Any], seconds: float | None = None) -> Any:
        """Return the JSON result of the tool at `place`; raise ToolFailed, Timeout or WorkerLost.

        seconds: how long it may take once it has begun; waiting for a place to run does not count.
        """
        ...


Worker = Callable[[Work], Awaitable[Any]]
"""Does the work and returns its JSON output, or raises."""


def worker(endpoint: agents.Endpoint, call_elsewhere: CallElsewhere) -> Worker:
    """Return the worker that does agents, own kinds and `async def` tools on the loop, plain `def` tools elsewhere."""

    async def do(work: Work) -> Any:
        node = work.node
        if node.calls == "agent":
            agent = work.plan.agents[node.target]
            return await in_time(agents.ask(endpoint, node.target, agent, work.input), node.timeout)
        if node.calls == "custom":
            context = Context(work.execution, work.path, work.attempt, work.idempotency_key)
            return await in_time(own_nodes.execute(node.target, context, work.input), node.timeout)
        assert work.place is not None  # noqa: S101 (every tool was located before the start)
        tool = tools.find(work.place)
        if runs_apart(node, work.place):
            return await call_elsewhere(work.place, work.input, node.timeout)
        return await in_time(tools.call_async(tool, work.input), node.timeout)

    return do


def runs_apart(node: PlanNode, place: str | None) -> bool:
    """Say whether node actors do a node's work: plain `def` tools, and what is asked to run there."""
    if node.calls != "tool" or place is None:
        return False
    try:
        return (node.run_on or ("loop" if tools.find(place).is_async else "actor")) == "actor"
    except PerdureError:
        return False  # its code is not there: it fails as soon as it is called


async def in_time(work: Coroutine[Any, Any, Result], seconds: float | None) -> Result:
    """Await work that may take so many seconds; raise Timeout when it takes longer."""
    if seconds is None:
        return await work
    loop = asyncio.get_running_loop()
    deadline = loop.time() + seconds
    late = Timeout(f"it took longer than {seconds:g} s")
    try:
        async with asyncio.timeout_at(deadline) as limit:
            result = await work
    except TimeoutError as error:
        if not limit.expired():
            raise  # the tool's own
        raise late from error
    if loop.time() > deadline:  # it blocked the loop, so that nothing could interrupt it
        raise late
    return result


class ToolFailed(Exception):
    """What a tool raised elsewhere, in its recorded form: exceptions themselves do not always travel."""

    def __init__(self, error: Error) -> None:
        super().__init__(error.message)
        self.error = error


async def call_in_thread(place: str, arguments: dict[str, Any], seconds: float | None = None) -> Any:
    """Call a plain `def` tool in a thread of this process: what runs without Ray do.

    A daemon thread: a tool that outlives its timeout must not keep the process from ending.
    """
    loop = asyncio.get_running_loop()
    done: asyncio.Future[tuple[Any, Error | None]] = loop.create_future()

    def answer(outcome: tuple[Any, Error | None]) -> None:
        if not done.done():
            done.set_result(outcome)

    def run() -> None:
        outcome = call_here(place, arguments)
        with contextlib.suppress(RuntimeError):  # the loop may have ended meanwhile
            loop.call_soon_threadsafe(answer, outcome)

    threading.Thread(target=run, name=f"perdure-tool {place}", daemon=True).start()

    async def answered() -> tuple[Any, Error | None]:
        return await done

    return result_of(await in_time(answered(), seconds))


def call_here(place: str, arguments: dict[str, Any]) -> tuple[Any, Error | None]:
    """Call the tool at a place in this thread; return its JSON result, or the error that it raised, whatever it was."""
    try:
        return tools.call(tools.find(place), arguments), None
    except BaseException as error:
        return None, whole_error_of(error)


def result_of(outcome: tuple[Any, Error | None]) -> Any:
    """Return the result of a call elsewhere, or raise ToolFailed."""
    result, error = outcome
    if error is not None:
        raise ToolFailed(error)
    return result


def _as_it_is(value: Any) -> Any:
    return value


def error_of(error: BaseException, redact: Callable[[Any], Any] = _as_it_is) -> Error:
    """Return the recorded form of an exception; its message is cut only after secrets are out of it."""
    whole = whole_error_of(error)
    return Error(whole.type, clean_text(redact(whole.message)), redact(whole.data))


def whole_error_of(error: BaseException) -> Error:
    """Return an exception as data, its message whole; its class name is what `retry.on` matches."""
    if isinstance(error, ToolFailed):
        return error.error
    try:
        message = str(error)
    except Exception:
        message = ""
    return Error(type(error).__name__, message or type(error).__name__)
