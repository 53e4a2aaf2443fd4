"""What the calls, waits and children of a past execution came to: the results that an evaluation does not pay again."""

from collections.abc import Iterable, Mapping
from typing import Any

import msgspec

from perdure.actors.evolve import evolve
from perdure.actors.fork_fold import entries, with_past
from perdure.actors.state import INITIAL, ExecutionState, NodeState, Started
from perdure.actors.transcripts import given_to
from perdure.definitions.plan import Plan
from perdure.definitions.secret_references import revealed
from perdure.events.vocabulary import (
    ChildRequested,
    Error,
    Event,
    ExecutionForked,
    ExecutionStarted,
    NodeAttemptFailed,
    NodeCatching,
    NodeCaught,
    NodeFailed,
    NodeResumed,
    NodeScheduled,
    NodeSucceeded,
    NodeWaiting,
)

_FAILS = NodeAttemptFailed | NodeFailed | NodeCatching | NodeCaught


class Result(msgspec.Struct):
    """What one attempt was given, by which definition, and what it came to; it has not ended where `ended` is false."""

    given: Any
    making: Any
    ended: bool = False
    output: Any = None
    error: Error | None = None


def results_of(plans: Mapping[str, Plan], events: Iterable[Event]) -> dict[tuple[str, int], Result]:
    """Return the newest result of each attempt, by the node's path and the attempt's number; a fork's past counts.

    plans: those that the execution, and what it is a fork of, ran under, by digest.
    """
    results: dict[tuple[str, int], Result] = {}
    state: ExecutionState = INITIAL
    plan: Plan | None = None
    for event in events:
        if isinstance(event, ExecutionStarted):
            plan = plans[event.digest]
        elif isinstance(event, ExecutionForked):
            results.update(results_of(plans, (each for entry in entries(event) for each in entry.events)))
        state = evolve(state, event)
        if plan is not None and isinstance(event, NodeScheduled | NodeWaiting | ChildRequested | NodeResumed):
            results.update(_begun(plan, state, event))
        elif isinstance(event, NodeSucceeded):
            _end(results, event, event.output, None)
        elif isinstance(event, _FAILS):
            _end(results, event, None, event.error)
    return results


def digests_in(events: Iterable[Event]) -> set[str]:
    """Return the digests of the definitions that an execution, and what it is a fork of, ran under."""
    return {event.digest for event in with_past(events) if isinstance(event, ExecutionStarted)}


def _begun(plan: Plan, state: ExecutionState, event: Any) -> dict[tuple[str, int], Result]:
    node = state.node(event.node) if isinstance(state, Started) else None
    if not isinstance(state, Started) or node is None:
        return {}
    given = event.input if isinstance(event, ChildRequested) else asked(state, plan, event.node, node)
    return {(event.node, event.attempt): Result(given, making_of(plan, event.node, given))}


def asked(state: Started, plan: Plan, path: str, node: NodeState) -> Any:
    """Return what a call is given, as data to compare: of a model's reply the whole conversation."""
    return msgspec.to_builtins(given_to(state, plan, path, node, _named))


def _named(value: Any, pointers: Iterable[str]) -> Any:
    return revealed(value, pointers, "[secret {}]".format)


def making_of(plan: Plan, path: str, given: Any) -> Any:
    """Return all of a definition that says how a node's call is made: the node, its agent, its tool."""
    node = plan.node(path)
    agent = given.get("agent") if node.calls == "model" and isinstance(given, dict) else node.target
    called = plan.agents.get(str(agent)) if node.calls in ("agent", "model") else plan.tools.get(node.target)
    return (node.model, node.called, called)


def _end(results: dict[tuple[str, int], Result], event: Any, output: Any, error: Error | None) -> None:
    result = results.get((event.node, event.attempt))
    if result is not None and not (result.ended and error is not None):
        result.ended, result.output, result.error = True, output, error
