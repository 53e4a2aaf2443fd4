"""The synchronous client: the asynchronous one on an event loop in a thread of its own."""

import asyncio
import contextlib
import threading
from collections.abc import AsyncIterator, Coroutine, Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from os import PathLike
from typing import TYPE_CHECKING, Any, Self, TypeVar, Unpack

from msgspec import UNSET

from perdure.actors.described import Difference
from perdure.actors.pools import PoolReport
from perdure.actors.state import Started
from perdure.actors.transcripts import Said
from perdure.cluster.client import AsyncClient, connect_async
from perdure.cluster.history import At
from perdure.cluster.history import History as AsyncHistory
from perdure.cluster.listening import Heard
from perdure.cluster.progress import NodeProgress
from perdure.cluster.run import AsyncRun, Status
from perdure.cluster.settings import Settings
from perdure.cluster.sync_batching import Batching
from perdure.cluster.sync_queries import Queries
from perdure.cluster.sync_subscribing import Subscribing
from perdure.cluster.tasks import stop
from perdure.definitions.loading import WorkflowLike
from perdure.errors import BadInput
from perdure.events.entry import Happened, Recorded

if TYPE_CHECKING:
    from perdure.actors.schedule_state import Schedule
    from perdure.cluster.schedules import Options
    from perdure.cluster.schedules import Schedules as AsyncSchedules
    from perdure.cluster.workflow_versions import RegisteredWorkflow
    from perdure.cluster.workflows import Registration
    from perdure.cluster.workflows import Workflows as AsyncWorkflows
    from perdure.events.schedules import Overlap

Result = TypeVar("Result")
Item = TypeVar("Item")


def connect(settings: Settings | None = None, *, local: bool = False) -> "Client":
    """Open a client: the NATS server and Ray that the settings name, else embedded ones, started in parallel.

    local: run executions in this process, without Ray. Raises EnvironmentProblem when something cannot be started.
    """
    loop = _Loop()
    try:
        return Client(loop.run(connect_async(settings, local=local)), loop)
    except BaseException:
        loop.close()
        raise


class Client(Queries, Subscribing, Batching):
    """A client of one store. Use it as a context manager, or call `close`."""

    _client: AsyncClient
    _loop: "_Loop"

    def __init__(self, client: AsyncClient, loop: "_Loop") -> None:
        self._client = client
        self._loop = loop

    def start(
        self,
        workflow: WorkflowLike,
        input: Any = None,
        *,
        id: str | None = None,
        priority: int = 5,
        search: Mapping[str, str | float | bool] | None = None,
        tags: Iterable[str] = (),
        confirm: bool = True,
    ) -> "Run":
        """Start an execution and return its handle; see AsyncClient.start."""
        start = self._client.start(
            workflow, input, id=id, priority=priority, search=search, tags=tags, confirm=confirm
        )  # fmt: skip
        return Run(self._loop.run(start), self._loop)

    def start_many(
        self,
        workflow: WorkflowLike,
        inputs: Iterable[Any],
        *,
        priority: int = 5,
        search: Mapping[str, str | float | bool] | None = None,
        tags: Iterable[str] = (),
    ) -> "list[Run]":
        """Queue one execution per input, all at once, and return their handles in the same order."""
        start = self._client.start_many(workflow, inputs, priority=priority, search=search, tags=tags)
        runs = self._loop.run(start)
        return [Run(run, self._loop) for run in runs]

    def get(self, execution: str) -> "Run":
        """Return the handle of an execution that was started earlier, here or elsewhere."""
        return Run(self._client.get(execution), self._loop)

    def sessions(self) -> dict[str, int]:
        """Return the sessions that agents remember, each with how many records it has."""
        return self._loop.run(self._client.sessions())

    def session(self, name: str) -> list[Said]:
        """Return what agents remember of a session, oldest first; nothing where there is none."""
        return self._loop.run(self._client.session(name))

    def forget_session(self, name: str) -> None:
        """Remove a session for good; see AsyncClient.forget_session."""
        self._loop.run(self._client.forget_session(name))

    def upload(self, path: str | PathLike[str], media_type: str | None = None) -> dict[str, Any]:
        """Keep a file in the store and return the reference to it; see AsyncClient.upload."""
        return self._loop.run(self._client.upload(path, media_type))

    def pools(self) -> list[PoolReport]:
        """Return how the pools of node actors stand."""
        return self._loop.run(self._client.pools())

    def queues(self) -> dict[str, Any]:
        """Return who waits for what and why, and who holds it; see AsyncClient.queues."""
        return self._loop.run(self._client.queues())

    @property
    def workflows(self) -> "Workflows":
        """The workflows that are registered in this store under their names."""
        return Workflows(self._client.workflows, self._loop)

    @property
    def schedules(self) -> "Schedules":
        """The schedules of this store."""
        return Schedules(self._client.schedules, self._loop)

    def close(self) -> None:
        """Stop this client's hosts and whatever was started for it; executions go on when a host serves them again."""
        try:
            self._loop.run(self._client.close())
        finally:
            self._loop.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class Workflows:
    """The registered workflows of a store; see perdure.cluster.workflows.Workflows."""

    def __init__(self, workflows: "AsyncWorkflows", loop: "_Loop") -> None:
        self._workflows = workflows
        self._loop = loop

    def register(self, workflow: WorkflowLike) -> "Registration":
        """Make a definition the next version of its name; the same one again changes nothing."""
        return self._loop.run(self._workflows.register(workflow))

    def list(self) -> "Sequence[RegisteredWorkflow]":
        """Return every registered workflow, by name."""
        return self._loop.run(self._workflows.list())

    def show(self, name: str) -> "RegisteredWorkflow":
        """Return a workflow with all of its versions. Raises WorkflowNotFound."""
        return self._loop.run(self._workflows.show(name))

    def activate(self, name: str, version: int) -> "RegisteredWorkflow":
        """Make `name` alone start this version, also where it was deprecated; return the workflow."""
        return self._loop.run(self._workflows.activate(name, version))

    def deprecate(self, name: str, version: int, why: str) -> "RegisteredWorkflow":
        """Refuse new starts of a version; executions of it go on. Return the workflow."""
        return self._loop.run(self._workflows.deprecate(name, version, why))

    def definition(self, which: str) -> str:
        """Return a definition as JSON text, of a `name`, `name@3`, `name@sha256:...` or `sha256:...`."""
        return self._loop.run(self._workflows.definition(which))


class Schedules:
    """The schedules of a store; see perdure.cluster.schedules.Schedules."""

    def __init__(self, schedules: "AsyncSchedules", loop: "_Loop") -> None:
        self._schedules = schedules
        self._loop = loop

    def add(self, name: str, workflow: WorkflowLike, input: Any = None, **how: "Unpack[Options]") -> "Schedule":
        """Start a workflow by the clock: cron, every or at, and how; see the asynchronous `add`."""
        return self._loop.run(self._schedules.add(name, workflow, input, **how))

    def list(self) -> "Sequence[Schedule]":
        """Return every schedule, by name."""
        return self._loop.run(self._schedules.list())

    def show(self, name: str) -> "Schedule":
        """Return one schedule. Raises ScheduleNotFound."""
        return self._loop.run(self._schedules.show(name))

    def pause(self, name: str, reason: str = "") -> "Schedule":
        """Start nothing from now on; what runs goes on."""
        return self._loop.run(self._schedules.pause(name, reason))

    def resume(self, name: str) -> "Schedule":
        """Fire again; the fire times in the pause are left out."""
        return self._loop.run(self._schedules.resume(name))

    def remove(self, name: str) -> "Schedule":
        """Fire no more; what runs goes on."""
        return self._loop.run(self._schedules.remove(name))

    def backfill(
        self, name: str, since: datetime | str, until: datetime | str | None = None, overlap: "Overlap | None" = None
    ) -> "Sequence[str]":
        """Start the executions of fire times that have passed and have none yet; return their ids."""
        return self._loop.run(self._schedules.backfill(name, since, until, overlap))

    def served(self) -> bool:
        """Say whether hosts answer that let schedules fire."""
        return self._loop.run(self._schedules.served())


class Run:
    """The handle of one execution."""

    def __init__(self, run: AsyncRun, loop: "_Loop") -> None:
        self.id = run.id
        self._run = run
        self._loop = loop

    def result(self, timeout: float | None = None) -> Any:
        """Wait for the end, at most `timeout` seconds, and return the output; raise ExecutionFailed or WaitTimeout."""
        return self._loop.run(self._run.result(timeout))

    def status(self) -> Status:
        """Return its status in one word; `queued` where it has not begun."""
        return self._loop.run(self._run.status())

    def signal(self, name: str, data: Any = None) -> bool:
        """Give it a signal; see AsyncRun.signal, for all commands."""
        return self._loop.run(self._run.signal(name, data))

    send = signal

    def approve(self, node: str, *, by: str = "", data: Any = None) -> bool:
        """Approve what the approval at `node` asks."""
        return self._loop.run(self._run.approve(node, by=by, data=data))

    def reject(self, node: str, *, by: str = "", data: Any = None) -> bool:
        """Reject what the approval at `node` asks."""
        return self._loop.run(self._run.reject(node, by=by, data=data))

    def pause(self, reason: str = "", *, by: str = "") -> bool:
        """Let nothing new start; what runs goes on to its end and is recorded."""
        return self._loop.run(self._run.pause(reason, by=by))

    def resume(self, *, by: str = "") -> bool:
        """Let it go on after a pause; timers that came due meanwhile count now."""
        return self._loop.run(self._run.resume(by=by))

    def cancel(self, reason: str = "", *, by: str = "") -> bool:
        """Stop what runs, compensate what is completed, run `on_cancel` and `finally`, and end."""
        return self._loop.run(self._run.cancel(reason, by=by))

    def terminate(self, reason: str = "", *, by: str = "") -> bool:
        """End it at once; nothing is compensated."""
        return self._loop.run(self._run.terminate(reason, by=by))

    def retry(self, reason: str = "", *, by: str = "") -> bool:
        """Let it go on from what failed; what succeeded, and was not compensated, stays as it is."""
        return self._loop.run(self._run.retry(reason, by=by))

    def skip_node(self, node: str, reason: str = "", *, by: str = "") -> bool:
        """Settle a node as skipped, whether it has begun or not."""
        return self._loop.run(self._run.skip_node(node, reason, by=by))

    def complete_node(self, node: str, output: Any = None, reason: str = "", *, by: str = "") -> bool:
        """Settle a node by hand, with this output."""
        return self._loop.run(self._run.complete_node(node, output, reason, by=by))

    def change_input(self, node: str, value: Any, reason: str = "", *, by: str = "") -> bool:
        """Give a node that has not begun another input."""
        return self._loop.run(self._run.change_input(node, value, reason, by=by))

    def extend_deadline(self, seconds: float, node: str = "", reason: str = "", *, by: str = "") -> bool:
        """Move a node's deadline, or the timeout of the execution where none is named, by so many seconds."""
        return self._loop.run(self._run.extend_deadline(seconds, node, reason, by=by))

    def accepts(self) -> list[str]:
        """Return the events and signals that it waits for now; see AsyncRun.accepts."""
        return self._loop.run(self._run.accepts())

    def wait_for(self, state: str, timeout: float | None = None) -> None:
        """Wait until a state of its statechart is active; see AsyncRun.wait_for."""
        self._loop.run(self._run.wait_for(state, timeout))

    def state(self) -> Started:
        """Return the state as of now, folded from the log; raise ExecutionNotFound."""
        return self._loop.run(self._run.state())

    def history(self) -> "History":
        """Return its past: its entries so far, and with `at` and `diff` its states."""
        return History(self._run.history(), self._loop)

    def fork(
        self, *, at: At | None = None, from_: str | Sequence[str] = (), input: Any = UNSET,
        workflow: WorkflowLike | None = None, model: str | None = None, id: str | None = None,
    ) -> "Run":  # fmt: skip
        """Begin a new execution with the past of this one, up to a place; see AsyncRun.fork."""
        forking = self._run.fork(at=at, from_=from_, input=input, workflow=workflow, model=model, id=id)
        return Run(self._loop.run(forking), self._loop)

    def progress(self) -> Iterator[NodeProgress]:
        """Yield what tools tell of their progress from now on, live, up to the end of the execution."""
        return self._each(self._run.progress())

    def stream(self, node: str = "") -> Iterator[Heard]:
        """Yield what its models say, and its calls of tools, live, up to the end; see AsyncRun.stream."""
        return self._each(self._run.stream(node))

    def transcript(self, node: str) -> list[Said]:
        """Return what was said at an agent's node, as far as it is recorded."""
        return self._loop.run(self._run.transcript(node))

    def events(self, after: int = 0) -> Iterator[Happened]:
        """Yield the events behind the log position `after`, then new ones as they come, up to the last one."""
        return self._each(self._run.events(after))

    def _each(self, items: AsyncIterator[Item]) -> Iterator[Item]:
        try:
            while True:
                with contextlib.suppress(StopAsyncIteration):
                    yield self._loop.run(_next(items))
                    continue
                return
        finally:
            self._loop.run(items.aclose())  # type: ignore[attr-defined]


class History:
    """The past of an execution; see perdure.cluster.history.History. Iterate over it for its entries."""

    def __init__(self, history: AsyncHistory, loop: "_Loop") -> None:
        self._history = history
        self._loop = loop

    def __iter__(self) -> Iterator[Recorded]:
        return iter(self._loop.run(self._history.all()))

    def at(self, at: At) -> Started:
        """Return the state as it was after the entry number `at`, or at a time. Raises BadInput, ExecutionNotFound."""
        return self._loop.run(self._history.at(at))

    def diff(self, before: At, after: At | None = None) -> "list[Difference]":
        """Return what changed between two places; up to now where only one is given."""
        return self._loop.run(self._history.diff(before, after))


async def _next(items: AsyncIterator[Item]) -> Item:
    return await anext(items)


class _Loop:
    """An event loop in a daemon thread; Ctrl-C in the waiting thread cancels what it waited for."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="perdure-client", daemon=True)
        self._thread.start()

    def run(self, work: Coroutine[Any, Any, Result]) -> Result:
        if self._loop.is_closed():
            work.close()
            raise BadInput("the client is closed; open another one with perdure.connect()")
        future = asyncio.run_coroutine_threadsafe(work, self._loop)
        try:
            return future.result()
        except BaseException:
            future.cancel()
            raise

    def close(self) -> None:
        with contextlib.suppress(RuntimeError):
            self.run(self._end_all())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    async def _end_all(self) -> None:
        mine = asyncio.current_task()
        await stop(*(task for task in asyncio.all_tasks() if task is not mine))
        await asyncio.get_running_loop().shutdown_asyncgens()
