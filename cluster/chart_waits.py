"""Waiting until a statechart of an execution is in a state, by following its log."""

from collections.abc import AsyncIterator
from contextlib import aclosing

from perdure.actors.evolve import evolve
from perdure.actors.folded import Folded
from perdure.actors.listeners import active_states
from perdure.actors.loading import load
from perdure.actors.state import Started
from perdure.cluster.connection import Connection
from perdure.definitions.hints import did_you_mean
from perdure.definitions.plan import Plan
from perdure.definitions.plan_nodes import PlanBody
from perdure.errors import BadInput, StateNotReached


async def wait_for_state(connection: Connection, execution: str, wanted: str) -> None:
    """Return when a state is active, by its name or its path; a node's statechart is `node/chart/state`.

    Raises BadInput where there is no such state, StateNotReached where the execution ends elsewhere.
    """
    folded, _ = await load(connection.log, connection.snapshots, execution)
    checked = False
    async with aclosing(_states_from(connection, execution, folded)) as states:  # type: ignore[type-var]
        async for state in states:
            if not checked:
                _check(await connection.registry.plan(state.started.digest), wanted)
                checked = True
            if any(_is_meant(path, wanted) for path in active_states(state)):
                return
            if state.outcome is not None:
                where = ", ".join(active_states(state)) or "no state"
                raise StateNotReached(f"execution {execution!r} is {state.status}, in {where}; never in {wanted!r}")


async def _states_from(connection: Connection, execution: str, folded: Folded) -> AsyncIterator[Started]:
    """Yield the state as it is, and then after each event that comes."""
    state = folded.state
    if isinstance(state, Started):
        yield state
    async with aclosing(connection.log.follow(execution, folded.position)) as entries:  # type: ignore[type-var]
        async for recorded in entries:
            for event in recorded.entry.events:
                state = evolve(state, event)
                if isinstance(state, Started):
                    yield state


def _is_meant(path: str, wanted: str) -> bool:
    state = path.rpartition("/")[2]
    return wanted in (path, state, state.rpartition(".")[2])


def _check(plan: Plan, wanted: str) -> None:
    states = {path for body in (plan.main, *plan.ends.values()) for path in _states(body)}
    name = wanted.rpartition("/")[2]
    if not any(_is_meant(path, name) for path in states):
        raise BadInput(f"workflow {plan.name!r} has no state {name!r}{did_you_mean(name, states)}")


def _states(body: PlanBody) -> set[str]:
    own = set(body.nodes) if body.chart is not None else set[str]()
    return own.union(*(_states(inner) for node in body.nodes.values() for inner in node.bodies.values()))
