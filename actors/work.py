"""The work of one attempt at a node: what is to be done, and the one place that says where each kind runs."""

import asyncio
import contextlib
import threading
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from datetime import datetime
from typing import Any, Protocol
from weakref import WeakKeyDictionary

import msgspec

from perdure.actors import agents, own_nodes, retry_after, tools
from perdure.actors.agent_tools import check_exact
from perdure.actors.context import Beats, Context, idempotency_key
from perdure.actors.mcp_tools import PREFIX
from perdure.actors.models import Models
from perdure.actors.outside import Outside
from perdure.actors.time_limits import HeartbeatLost, alive, in_time
from perdure.actors.tool_schema import Tool
from perdure.actors.usage import Paid, unpaid
from perdure.definitions.json_values import clean_text
from perdure.definitions.placement import placement_of
from perdure.definitions.plan import Plan
from perdure.definitions.plan_nodes import PlanNode
from perdure.errors import PerdureError
from perdure.events.vocabulary import Error, LimitClaim

_ON_LOOP_ONLY = (PREFIX, "perdure.actors.nats_tools:")  # what uses connections of the process
_SUSPECT = 2  # losses of its process, after which work is no longer done in a process that others share


class WorkerLost(PerdureError):
    """The process that did the work is gone without an answer; the message says how, as far as that is known."""


def _nobody(_what: Any) -> None:
    """Take what nobody wants to know."""


def _nothing(_result: Any) -> dict[str, float]:
    """Know nothing of what was taken in truth."""
    return {}


class Work(msgspec.Struct, frozen=True):
    """One attempt at a node, with all that is needed to do it.

    undone: how often it was compensated. deadline: when the node is given up. places: those that the execution began
    with. resumed: how often this attempt lost its process. waits_for: what is recorded that it waits for. queued: told
    for what it waits, "" when it does not any more. progress: told what the tool tells by its heartbeats. outside: what
    tools reach things with. priority: of the node, or else the execution. claims: what it has to hold of limits
    meanwhile; began: when the execution did, in seconds since 1970 (UTC). parked: told when it begins to wait for them
    and when it does not any more. spent: gives, for a result, how much was taken of each limit in truth, where the
    definition says so. hear: told what a model says, piece by piece; paid: what it took.
    """

    execution: str
    path: str
    node: PlanNode
    attempt: int
    input: Any
    plan: Plan
    place: str | None
    undone: int = 0
    deadline: datetime | None = None
    places: Mapping[str, str] = {}
    resumed: int = 0
    waits_for: str = ""
    queued: Callable[[str], None] = _nobody
    progress: Callable[[Any], None] = _nobody
    outside: Outside = msgspec.field(default_factory=Outside)
    priority: int = 5
    claims: Sequence[LimitClaim] = ()
    began: float = 0.0
    parked: Callable[[bool], None] = _nobody
    spent: Callable[[Any], dict[str, float]] = _nothing
    hear: Callable[[str], None] = _nobody
    paid: Paid = unpaid

    def tool(self) -> Tool:
        """Return the tool that it calls; it was located before the start."""
        assert self.place is not None  # noqa: S101
        return tools.find(self.place)

    def context(self) -> Context:
        """Return what its code is told about it."""
        key = idempotency_key(self.execution, self.path, self.undone)
        return Context(self.execution, self.path, self.attempt, key, self.deadline, outside=self.outside)


class CallElsewhere(Protocol):
    """Calls a plain `def` tool where it cannot block the event loop: a node actor, or a thread."""

    async def __call__(self, work: Work) -> Any:
        """Return the JSON result of the tool; raise ToolFailed, Timeout, HeartbeatLost, QueueTimeout or WorkerLost.

        The `timeout` and the `heartbeat` count once it has begun, `queue_timeout` before.
        """
        ...


Worker = Callable[[Work], Awaitable[Any]]
"""Does the work and returns its JSON output, or raises."""


Send = Callable[[str, str, Any, str], Coroutine[Any, Any, None]]
"""Gives another execution a signal: its id, the signal, its data, and the id by which it counts once."""


def worker(models: Models, call_elsewhere: CallElsewhere, send: Send | None = None) -> Worker:
    """Return the worker that does agents, own kinds and `async def` tools on the loop, other tools elsewhere."""
    isolates = call_elsewhere is not call_in_thread

    async def do(work: Work) -> Any:
        node = work.node
        if node.calls == "send":
            assert send is not None  # noqa: S101 (only tests have no post)
            to, event, data = work.input["to"], work.input["event"], work.input["data"]
            return await in_time(send(to, event, data, work.context().idempotency_key), node.timeout)
        if node.calls == "agent":
            own, agent = work.plan.endpoints, work.plan.agents[node.target]
            asking = agents.ask(models, own, node.target, agent, work.input, work.hear, work.paid)
            return await in_time(asking, node.timeout)
        if node.calls == "session":
            key = work.context().idempotency_key
            does = getattr(node.model, "does", "")
            return await agents.remember(models, work.plan, work.input, does, key, work.paid)
        if node.calls == "model":
            return await agents.take_turn(
                models, work.plan, work.input, work.places, work.outside, work.hear, work.paid
            )
        if node.called is not None:
            await check_exact(work.plan, node.called, work.places, work.outside, work.input)
        if runs_apart(work.plan, node, work.place, work.resumed if isolates else 0):
            return await call_elsewhere(work)
        return await _on_loop(work)

    return do


def runs_apart(plan: Plan, node: PlanNode, place: str | None, resumed: int = 0) -> bool:
    """Say whether node actors do a node's work: plain `def` tools, classes, and what asks for what only those give.

    And any tool whose process was lost twice: it may be the cause, and must not take others down with it again.
    """
    if node.calls != "tool" or place is None or place.startswith(_ON_LOOP_ONLY):
        return False
    if resumed >= _SUSPECT:
        return True
    if node.run_on is not None:
        return node.run_on == "actor"
    if placement_of(plan, node).asks:
        return True
    try:
        tool = tools.find(place)
    except PerdureError:
        return False  # its code is not there: it fails as soon as it is called
    return not tool.is_async or tool.made_of is not None


class ToolFailed(Exception):
    """What a tool raised elsewhere, in its recorded form: exceptions themselves do not always travel."""

    def __init__(self, error: Error) -> None:
        super().__init__(error.message)
        self.error = error


async def call_in_thread(work: Work) -> Any:
    """Call a tool in this process, as what runs without Ray does: a plain `def` one in a thread of its own.

    The one instance of a class takes no more calls at once than a node actor would.
    """
    tool = work.tool()
    if tool.made_of is None:
        return await _in_thread(work)
    rooms = _rooms.setdefault(asyncio.get_running_loop(), {})
    assert work.place is not None  # noqa: S101 (every tool was located before the start)
    many = placement_of(work.plan, work.node).pool.concurrency
    async with rooms.setdefault(work.place, asyncio.Semaphore(many)):
        return await (_on_loop(work) if tool.is_async else _in_thread(work))


_rooms: WeakKeyDictionary[asyncio.AbstractEventLoop, dict[str, asyncio.Semaphore]] = WeakKeyDictionary()


async def _on_loop(work: Work) -> Any:
    """Await an `async def` tool, or a node of an own kind, on the running loop."""
    node, beats = work.node, Beats(work.progress)
    context = beats.of(work.context())
    if node.calls == "custom":
        call = own_nodes.execute(node.target, context, work.input)
    else:
        tool = work.tool()
        if tool.made_of is not None:
            await asyncio.to_thread(tools.function_of, tool)  # what it loads may take long
        call = tools.call_async(tool, work.input, context)
    return await in_time(alive(call, node.heartbeat, beats.silence), node.timeout)


async def _in_thread(work: Work) -> Any:
    """Call a tool in a daemon thread: one that outlives its timeout must not keep the process from ending."""
    assert work.place is not None  # noqa: S101 (every tool was located before the start)
    place, beats = work.place, Beats(work.progress)
    context = beats.of(work.context())
    loop = asyncio.get_running_loop()
    done: asyncio.Future[tuple[Any, Error | None]] = loop.create_future()

    def answer(outcome: tuple[Any, Error | None]) -> None:
        if not done.done():
            done.set_result(outcome)

    def run() -> None:
        outcome = call_here(place, work.input, context)
        with contextlib.suppress(RuntimeError):  # the loop may have ended meanwhile
            loop.call_soon_threadsafe(answer, outcome)

    threading.Thread(target=run, name=f"perdure-tool {place}", daemon=True).start()

    async def answered() -> tuple[Any, Error | None]:
        return await done

    try:
        return result_of(await in_time(alive(answered(), work.node.heartbeat, beats.silence), work.node.timeout))
    finally:
        beats.stop()  # it may go on, and should not


def call_here(place: str, arguments: dict[str, Any], context: Context) -> tuple[Any, Error | None]:
    """Call the tool at a place in this thread; return its JSON result, or the error that it raised, whatever it was."""
    try:
        return tools.call(tools.find(place), arguments, context), None
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
    return Error(type(error).__name__, message or type(error).__name__, _data_of(error))


def _data_of(error: BaseException) -> Any:
    """Return what programs read of an exception: the last progress, or the seconds that it asks to wait."""
    if isinstance(error, HeartbeatLost):
        return error.data
    try:
        seconds = retry_after.checked(getattr(error, "retry_after", None))
    except Exception:  # a tool's own property may raise anything
        return None
    return None if seconds is None else {"retry_after": seconds}
