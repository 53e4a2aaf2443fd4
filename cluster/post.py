"""The post between executions: children's starts and ends, and reports to parents, all through the inbox."""

from typing import TYPE_CHECKING, Any

from perdure.actors.inputs import (
    CancelExecution,
    Command,
    CompensateExecution,
    ReportChild,
    ReportCompensation,
    SignalExecution,
    StartExecution,
    TerminateExecution,
)
from perdure.actors.state import Started
from perdure.cluster.checks import checked
from perdure.cluster.code import CodeStore, shipped
from perdure.cluster.connection import Connection
from perdure.cluster.inbox import child_lane
from perdure.cluster.references import is_reference
from perdure.cluster.settings import Settings
from perdure.definitions.loading import Definition
from perdure.definitions.plan import Plan, digest_of
from perdure.errors import BadInput, CommandNotAllowed, ExecutionNotFound
from perdure.events.vocabulary import ChildRequested, Parent

if TYPE_CHECKING:
    from perdure.cluster.workflows import Workflows


_BEGINS_WITHIN = 5.0  # seconds


class InboxPost:
    """Carries messages between executions through the inbox; see Post."""

    def __init__(self, connection: Connection, settings: Settings) -> None:
        self._connection = connection
        self._settings = settings
        self._workflows: Workflows | None = None

    async def start_child(self, execution: str, state: Started, plan: Plan, request: ChildRequested) -> None:
        """Start a child; see Post."""
        started, own = state.started, plan.node(request.node).model.priority
        priority = started.priority if own is None else own
        parent = Parent(execution, request.node, request.attempt, started.lane, request.detached)
        value, tools = request.input, started.tools
        if request.workflow in plan.workflows:
            workflow = plan.workflows[request.workflow]
            name, digest = workflow.name, digest_of(workflow)
            await self._connection.registry.put_definition(digest, workflow)
        else:
            definition = await self.registered(request.workflow)
            name, digest = definition.plan.name, definition.plan.digest
            value, tools = checked(self._settings, definition, value, request.child, priority, sees_secrets=True)
            tools = await shipped(CodeStore(self._connection, self._settings.replicas), definition, tools)
        lane = child_lane(started.lane, request.child)
        await self._connection.inbox.start(
            StartExecution(f"{request.child}/start", request.child, name, digest, value, lane, tools, priority, parent)
        )

    async def close_child(self, state: Started, request: ChildRequested) -> None:
        """Cancel or terminate a child; see Post."""
        reason, by = "its parent does not wait for it any more", "parent"
        kind = CancelExecution if request.on_close == "cancel" else TerminateExecution
        command: Command = kind(f"{request.child}/close", request.child, reason, by)
        await self._connection.inbox.send(command, child_lane(state.started.lane, request.child))

    async def compensate_child(self, state: Started, command: CompensateExecution) -> None:
        """Have a child undone; see Post."""
        await self._connection.inbox.send(command, child_lane(state.started.lane, command.execution))

    async def report(self, parent: Parent, report: ReportChild | ReportCompensation) -> None:
        """Tell the parent that its child has ended, or is undone; see Post."""
        await self._connection.inbox.send(report, parent.lane)

    async def signal(self, to: str, signal: str, data: Any, name: str) -> None:
        """Give another execution a signal under the name by which it counts once, waiting a little for it to begin.

        Raises ExecutionNotFound, CommandNotAllowed where it has ended, BadInput where the data is too large.
        """
        if not isinstance(to, str) or not isinstance(signal, str):
            raise BadInput(f"a signal goes to an execution's id, not to {to!r}")
        from perdure.cluster.run import AsyncRun  # which needs hosts, which need this

        target = AsyncRun(to, self._connection)
        if await target.begun(within=_BEGINS_WITHIN) is None:
            raise ExecutionNotFound(f"there is no execution {to!r} in this store")
        state = await target.state()
        if state.outcome is not None:
            raise CommandNotAllowed(f"execution {to!r} has ended: it is {state.status}")
        await self._connection.inbox.send(SignalExecution(name, to, signal, data), state.started.lane)

    async def registered(self, which: str) -> Definition:
        """Return the definition that a registered workflow's name means now. Raises BadInput or WorkflowNotFound."""
        if not is_reference(which):
            raise BadInput(f"{which!r} is no registered workflow's name, and the definition carries none of that name")
        if self._workflows is None:
            from perdure.cluster.workflows import Workflows  # most executions have no such children

            self._workflows = Workflows(self._settings, self._connection)
        return await self._workflows.resolve(which)

    async def close(self) -> None:
        """Close what was opened."""
        if self._workflows is not None:
            await self._workflows.close()
