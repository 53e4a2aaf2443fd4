"""What schedules owe to executions, through the inbox: their starts, and the end of those that give way."""

from typing import Any

from perdure.actors.inputs import CancelExecution, ReportChild, StartExecution
from perdure.actors.loading import load
from perdure.actors.outgoing import report_of
from perdure.actors.schedule_state import Schedule, id_of
from perdure.actors.state import Purged, Started
from perdure.cluster.checks import checked
from perdure.cluster.code import CodeStore, shipped
from perdure.cluster.connection import Connection
from perdure.cluster.inbox import lane_of
from perdure.cluster.post import InboxPost
from perdure.cluster.settings import Settings
from perdure.events.schedules import ScheduleSet
from perdure.events.vocabulary import Parent


class ScheduleStarts:
    """Sends what schedules owe; see perdure.actors.schedule_actor.Starter."""

    def __init__(self, connection: Connection, settings: Settings, post: InboxPost) -> None:
        self._connection = connection
        self._settings = settings
        self._post = post

    async def start(self, schedule: Schedule, execution: str) -> None:
        """Start the execution of a fire; see Starter."""
        plan = schedule.plan
        assert plan is not None  # noqa: S101 (it has started something)
        value = input_at(plan, schedule.running[execution].isoformat())
        digest, tools, name = plan.digest, plan.tools, plan.workflow
        if not digest:
            definition = await self._post.registered(plan.workflow)
            name, digest = definition.plan.name, definition.plan.digest
            value, tools = checked(self._settings, definition, value, execution, plan.priority, sees_secrets=True)
            tools = await shipped(CodeStore(self._connection, self._settings.replicas), definition, tools)
        lane, parent = _lane(schedule, execution), Parent(id_of(schedule.name), "fire", 1, plan.lane)
        await self._connection.inbox.start(
            StartExecution(f"{execution}/start", execution, name, digest, value, lane, tools, plan.priority, parent)
        )

    async def cancel(self, schedule: Schedule, execution: str) -> None:
        """Cancel one that has to give way; see Starter."""
        reason = f"schedule {schedule.name!r} starts a newer one"
        command = CancelExecution(f"{execution}/gives-way", execution, reason, "schedule")
        await self._connection.inbox.send(command, _lane(schedule, execution))

    async def end_of(self, schedule: Schedule, execution: str) -> ReportChild | None:
        """Return how an execution ended; see Starter."""
        folded, _ = await load(self._connection.log, self._connection.snapshots, execution)
        state = folded.state
        if isinstance(state, Purged):
            return ReportChild(f"{execution}/ended", id_of(schedule.name), execution)
        if not isinstance(state, Started) or state.outcome is None or state.started.parent is None:
            return None
        return report_of(execution, state.started.parent, state.outcome)


def input_at(plan: ScheduleSet, at: str) -> Any:
    """Return the input of a fire, with its time where the plan asks for that."""
    if not plan.time_as:
        return plan.input
    return {**(plan.input or {}), plan.time_as: at.replace("+00:00", "Z")}


def _lane(schedule: Schedule, execution: str) -> str:
    """Return the lane of an execution: its partition's, or the schedule's where that is served apart from these."""
    assert schedule.plan is not None  # noqa: S101 (it has started something)
    apart = schedule.plan.lane != lane_of(id_of(schedule.name))
    return schedule.plan.lane if apart else lane_of(execution)
