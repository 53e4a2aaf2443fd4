"""Perdure as an MCP server: agents start workflows, look at executions, and give them what they wait for."""

from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping
from contextlib import asynccontextmanager
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, get_args

import msgspec
from pydantic import Field

from perdure.actors.listeners import active_states
from perdure.actors.state import Status
from perdure.cluster.client import AsyncClient
from perdure.cluster.references import is_reference
from perdure.cluster.run import AsyncRun
from perdure.definitions.hints import did_you_mean
from perdure.definitions.loading import Definition, load
from perdure.errors import BadInput, PerdureError

if TYPE_CHECKING:
    from mcp.server import MCPServer

_Tools = dict[str, Callable[..., Awaitable[Any]]]

_STATUSES = get_args(Status)
_MOST = 100
_LOOK = 100_000  # characters of JSON that `show` returns of outputs

Id = Annotated[str, Field(description="The execution's id.")]
Node = Annotated[str, Field(description="The path of the node that asks, as `show` names it.")]


class Operator:
    """What an agent may do. open_client: opens the client, which the operator closes.

    by: who decides, as is recorded. files: definitions that it may start by name; all registered workflows where there
    are none.
    """

    def __init__(self, open_client: Callable[[], Awaitable[AsyncClient]], by: str, files: Mapping[str, Path]) -> None:
        self.by, self.files = by, files
        self._open_client = open_client
        self._client: AsyncClient | None = None

    @property
    def client(self) -> AsyncClient:
        """The client while it serves."""
        assert self._client is not None  # noqa: S101 (tools are called within `opened` only)
        return self._client

    @asynccontextmanager
    async def opened(self, _server: Any = None) -> AsyncIterator[None]:
        """Hold the client open."""
        async with await self._open_client() as self._client:
            yield

    async def workflows(self) -> list[dict[str, Any]]:
        """List the workflows that can be started: what they are for, and JSON Schemas of input and signals."""
        if self.files:
            return [_about(name, load(file)) for name, file in self.files.items()]
        known = [each.name for each in await self.client.workflows.list() if each.active is not None]
        return [_about(name, await self.client.workflows.resolve(name)) for name in known]

    async def start(
        self,
        workflow: Annotated[str, Field(description="The workflow's name, as `workflows` lists it.")],
        input: Annotated[Any, Field(description="Its input, which keeps to its schema.")] = None,
        id: Annotated[str | None, Field(description="An id for the execution; the same id never starts twice.")] = None,
    ) -> dict[str, Any]:
        """Start an execution of a workflow; return its id at once, and look at it with `show`."""
        if workflow not in self.files:
            if self.files:
                hint = did_you_mean(workflow, self.files) or f"; there is {', '.join(self.files)}"
                raise BadInput(f"there is no workflow {workflow!r} here{hint}")
            if not is_reference(workflow):
                raise BadInput(f"{workflow!r} is no workflow's name; only registered ones are started here")
        run = await self.client.start(self.files.get(workflow, workflow), input, id=id)
        return {"id": run.id, "workflow": workflow}

    async def executions(
        self,
        status: Annotated[str | None, Field(description=f"Only those: {', '.join(_STATUSES)}.")] = None,
        limit: Annotated[int, Field(ge=1, le=_MOST, description="At most so many, newest first.")] = 20,
    ) -> list[dict[str, Any]]:
        """List executions, newest first."""
        if status is not None and status not in _STATUSES:
            raise BadInput(f"the status {status!r} is none; there are {', '.join(_STATUSES)}")
        rows: Any = await self.client.executions(status, limit)
        return [msgspec.to_builtins(row, enc_hook=str) for row in rows]

    async def show(self, id: Id) -> dict[str, Any]:
        """Show an execution: status, output or error, nodes, active states, signals and approvals that it awaits."""
        return await _shown(self.client.get(id))

    async def signal(
        self,
        id: Id,
        name: Annotated[str, Field(description="The signal's name.")],
        data: Annotated[Any, Field(description="Its data.")] = None,
    ) -> dict[str, Any]:
        """Give an execution a signal: the node that waits for it goes on, or one that will."""
        return {"id": id, "recorded": await self.client.get(id).signal(name, data)}

    async def approve(
        self,
        id: Id,
        node: Node,
        data: Annotated[
            Any,
            Field(description="Data for the node; for an agent's call {'arguments': {...}} in place of the model's."),
        ] = None,
    ) -> dict[str, Any]:
        """Approve what an execution asks."""
        return {"id": id, "recorded": await self.client.get(id).approve(node, by=self.by, data=data)}

    async def reject(
        self,
        id: Id,
        node: Node,
        data: Annotated[Any, Field(description="Data, such as why.")] = None,
    ) -> dict[str, Any]:
        """Reject what an execution asks."""
        return {"id": id, "recorded": await self.client.get(id).reject(node, by=self.by, data=data)}


def server(operator: Operator, version: str, *, read_only: bool) -> "MCPServer":
    """Return the MCP server of an operator. read_only: it only looks."""
    from mcp.server import MCPServer
    from mcp_types import ToolAnnotations

    made = MCPServer(
        "perdure", version=version, log_level="WARNING", lifespan=operator.opened,
        instructions="Start durable workflows and look after them. An execution goes on by itself; `show` tells how "
        "it stands, and what it waits for: signals, and approvals that people decide unless you were told to.",
    )  # fmt: skip
    looking: _Tools = {"workflows": operator.workflows, "list": operator.executions, "show": operator.show}
    acting: _Tools = {
        "start": operator.start, "signal": operator.signal, "approve": operator.approve, "reject": operator.reject,
    }  # fmt: skip
    for name, each in (looking if read_only else looking | acting).items():
        made.add_tool(_told(each), name, annotations=ToolAnnotations(read_only_hint=name in looking))
    return made


def _told(function: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
    """Return the function with its errors in words for the agent."""
    from mcp.server.mcpserver.exceptions import ToolError

    @wraps(function)
    async def call(*args: Any, **kwargs: Any) -> Any:
        try:
            return await function(*args, **kwargs)
        except PerdureError as error:
            raise ToolError(f"{type(error).__name__}: {error}") from error

    return call


def _about(name: str, definition: Definition) -> dict[str, Any]:
    workflow = definition.workflow
    signals = {signal: each.schema_ for signal, each in (workflow.signals or {}).items()} | (workflow.events or {})
    return {"name": name, "description": workflow.description, "input": workflow.input, "signals": signals}


async def _shown(run: AsyncRun) -> dict[str, Any]:
    state = await run.state()
    nodes: dict[str, Any] = {}
    room = _LOOK
    for path, node in sorted(state.nodes.items()):
        told = msgspec.to_builtins(node, enc_hook=dict)
        kept = {key: told[key] for key in ("status", "attempt", "error", "waits_for") if told.get(key)}
        if node.status == "waiting":
            kept["waits_for"] = node.input
        if (output := told.get("output")) is not None:
            room -= len(msgspec.json.encode(output))
            kept["output"] = output if room >= 0 else "left out: the outputs are too long"
        nodes[path] = kept
    chart = state.main.chart
    return {
        "id": run.id, "workflow": state.started.workflow, "status": state.status, "input": state.started.input,
        "nodes": nodes, **({"states": active_states(state)} if active_states(state) else {}),
        **({"context": chart.context} if chart is not None else {}),
        "signals": await run.accepts(), "outcome": msgspec.to_builtins(state.outcome),
    }  # fmt: skip


def files_by_name(files: Iterable[Path]) -> dict[str, Path]:
    """Return the files of definitions by the names of their workflows; raise BadInput where two have the same."""
    found: dict[str, Path] = {}
    for file in files:
        name = load(file).workflow.name
        if name in found:
            raise BadInput(f"{found[name]} and {file} are both named {name!r}; rename one of them")
        found[name] = file
    return found
