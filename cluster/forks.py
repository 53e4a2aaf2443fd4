"""Forks: a new execution from a place in the past of another one; its first entry holds that past."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from uuid import uuid4

from msgspec import UNSET, UnsetType
from msgspec.structs import replace

from perdure.actors import tools
from perdure.actors.forking import Point, fork
from perdure.actors.inputs import ActivateExecution
from perdure.actors.search import with_attributes
from perdure.actors.state import Started
from perdure.cluster.checks import check_id, check_input, checked
from perdure.cluster.code import CodeStore, shipped
from perdure.cluster.connection import Connection
from perdure.cluster.history import At, History
from perdure.cluster.inbox import lane_of
from perdure.cluster.references import is_reference
from perdure.cluster.settings import Settings
from perdure.cluster.workflows import Workflows
from perdure.definitions.loading import Definition, WorkflowLike, load
from perdure.definitions.plan import Plan
from perdure.errors import BadInput, ExecutionExists, VersionConflict
from perdure.events.entry import Entry, as_data
from perdure.events.vocabulary import Event, ExecutionForked, ExecutionStarted

_DEEPEST = 50  # forks of forks: each one's past lies within the next one's


@dataclass(frozen=True)
class Asked:
    """What a fork is asked for; see AsyncRun.fork. value: its input, UNSET for that of the source."""

    at: At | None = None
    nodes: Sequence[str] = ()
    value: Any | UnsetType = UNSET
    workflow: WorkflowLike | None = None
    model: str | None = None


async def forked(
    connection: Connection, settings: Settings, source: str, asked: Asked,
    execution: str | None = None, lane: str | None = None,
) -> str:  # fmt: skip
    """Record a fork, have it taken up, and return its id; one that is there already, as it is asked for, goes on.

    lane: where its commands go, other than to the store's hosts. Raises as AsyncRun.fork.
    """
    execution = uuid4().hex if execution is None else execution
    check_id(execution)
    events = await _events(connection, settings, source, execution, asked, lane)
    started = events[0]
    assert isinstance(started, ExecutionStarted)  # noqa: S101 (a fork begins with it)
    try:
        entry = Entry(uuid4().hex, 1, "", datetime.now(UTC), events)
        await connection.log.append(execution, entry, 0)
    except VersionConflict:
        started = await _same(connection, execution, events)
    await connection.inbox.send(ActivateExecution(uuid4().hex, execution), started.lane)
    return execution


async def _events(
    connection: Connection, settings: Settings, source: str, execution: str, asked: Asked, lane: str | None
) -> list[Event]:
    """Return the events of the fork's first entry; its definition is stored, and its code."""
    point = await point_of(connection, source, asked.at)
    was, now = point.state.started, datetime.now(UTC)
    before = load(json.loads(await connection.registry.definition(was.digest)))
    other = None if asked.workflow is None else await _meant(connection, settings, asked.workflow)
    definition = _changed(other or before, asked.model)
    value = was.input if asked.value is UNSET else tools.to_json(asked.value, "the input")
    check_input(definition, value)
    places = was.tools
    if other is not None:
        value, places = checked(settings, definition, value, execution)
        places = await shipped(CodeStore(connection, settings.replicas), definition, places)
    started = _started(before.plan, definition.plan, was, now)
    started = replace(started, input=value, tools=places, lane=lane or lane_of(execution))
    started, error = with_attributes(definition.plan, execution, started, now)
    if error is not None:
        raise BadInput(f"the fork cannot begin: {error.message}")
    events = fork(definition.plan, before.plan, execution, started, point, asked.nodes, now)
    await connection.registry.put_definition(definition.plan.digest, definition.workflow)
    return events


async def _meant(connection: Connection, settings: Settings, workflow: WorkflowLike) -> Definition:
    """Return the definition that is meant: a registered one by its name, or else what is written."""
    if not is_reference(workflow):
        return load(workflow)
    workflows = Workflows(settings, connection)
    try:
        return await workflows.resolve(str(workflow))
    finally:
        await workflows.close()


def _started(before: Plan, plan: Plan, was: ExecutionStarted, now: datetime) -> ExecutionStarted:
    """Return the start of a fork: that of the source under another plan, without parent and evaluated attributes."""
    given = {name: value for name, value in was.search.items() if name not in before.search}
    began = now if plan.limits or plan.gates else None
    return replace(was, workflow=plan.name, digest=plan.digest, parent=None, search=given, began=began)


async def point_of(connection: Connection, source: str, at: At | None = None) -> Point:
    """Return a place in the past of an execution. Raises ExecutionNotFound, and BadInput where there is none."""
    history = History(source, connection)
    end = await history.step(at)
    past = [as_data(step.entry) async for step in history.steps() if step.entry.n <= end.entry.n]
    if _depth(past) >= _DEEPEST:
        raise BadInput(f"execution {source!r} is a fork of forks, {_DEEPEST} deep; start a new execution instead")
    state = end.after.state
    assert isinstance(state, Started)  # noqa: S101 (step has looked)
    return Point(source, end.entry.n, end.entry.at, state, past)


def _depth(past: list[dict[str, Any]] | None) -> int:
    depth = 0
    while past:
        depth += 1
        past = next((event["past"] for event in past[0]["events"] if event.get("past")), None)
    return depth


def _changed(definition: Definition, model: str | None) -> Definition:
    """Return the definition with another model for all of its agents."""
    if model is None:
        return definition
    if not model.strip():
        raise BadInput("the model to fork with has no name; leave it out to keep those of the definition")
    if not definition.workflow.agents:
        raise BadInput(f"workflow {definition.workflow.name!r} has no agents whose model could be another one")
    data = json.loads(definition.workflow.model_dump_json(by_alias=True, exclude_defaults=True))
    for agent in data["agents"].values():
        agent["model"] = model
    return load(data, definition.base)


async def _same(connection: Connection, execution: str, events: list[Event]) -> ExecutionStarted:
    """Return the start of the fork that is there, where it is the one that is asked for; else raise ExecutionExists."""
    first = [recorded async for recorded in connection.log.read(execution, limit=1)]
    there = first[0].entry.events if first else []
    if len(there) > 1 and isinstance(there[0], ExecutionStarted) and isinstance(there[1], ExecutionForked):
        ours = replace(events[0], lane=there[0].lane, tools=there[0].tools, began=there[0].began)
        if (ours, events[1]) == (there[0], there[1]):
            return there[0]
    raise ExecutionExists(f"the execution id {execution!r} is taken by another execution; choose another id")
