"""Forks: a new execution from a place in the past of another one; its first entry holds that past."""

import json
from collections.abc import Sequence
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
from perdure.cluster.settings import Settings
from perdure.definitions.loading import Definition, WorkflowLike, load
from perdure.errors import BadInput, ExecutionExists, VersionConflict
from perdure.events.entry import Entry, as_data
from perdure.events.vocabulary import Event, ExecutionForked, ExecutionStarted

_DEEPEST = 50  # forks of forks: each one's past lies within the next one's


async def forked(
    connection: Connection,
    settings: Settings,
    source: str,
    *,
    at: At | None = None,
    nodes: Sequence[str] = (),
    value: Any | UnsetType = UNSET,
    workflow: WorkflowLike | None = None,
    model: str | None = None,
    execution: str | None = None,
    lane: str | None = None,
) -> str:
    """Record a fork, have it taken up, and return its id; one that is there already, as it is asked for, goes on.

    See AsyncRun.fork. lane: where its commands go, other than to the store's hosts.
    """
    execution = uuid4().hex if execution is None else execution
    check_id(execution)
    events = await _events(connection, settings, source, execution, (at, nodes, value, workflow, model), lane)
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
    connection: Connection, settings: Settings, source: str, execution: str, asked: tuple[Any, ...], lane: str | None
) -> list[Event]:
    at, nodes, value, workflow, model = asked
    point = await point_of(connection, source, at)
    was = point.state.started
    before = load(json.loads(await connection.registry.definition(was.digest)))
    definition = _changed(before if workflow is None else load(workflow), model)
    value = was.input if value is UNSET else tools.to_json(value, "the input")
    check_input(definition, value)
    places = was.tools
    if workflow is not None:
        value, places = checked(settings, definition, value, execution)
        places = await shipped(CodeStore(connection, settings.replicas), definition, places)
    plan, now = definition.plan, datetime.now(UTC)
    search = {name: each for name, each in was.search.items() if name not in before.plan.search}
    started = ExecutionStarted(
        plan.name, plan.digest, value, lane or lane_of(execution), places, was.priority, None, search, was.tags,
        now if plan.limits or plan.gates else None,
    )  # fmt: skip
    started, error = with_attributes(plan, execution, started, now)
    if error is not None:
        raise BadInput(f"the fork cannot begin: {error.message}")
    events = fork(plan, before.plan, execution, started, point, nodes, now)
    await connection.registry.put_definition(plan.digest, definition.workflow)
    return events


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
        ours = replace(events[0], lane=there[0].lane, tools=there[0].tools)
        if (ours, events[1]) == (there[0], there[1]):
            return there[0]
    raise ExecutionExists(f"the execution id {execution!r} is taken by another execution; choose another id")
