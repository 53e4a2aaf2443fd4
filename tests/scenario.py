"""`given(definition, events).when(input).then(events)`: how the pure core is tested."""

from datetime import UTC, datetime
from typing import Any, Self

from perdure.actors.decisions import decide
from perdure.actors.evolve import fold
from perdure.actors.inputs import FireTimer, Input, StartExecution
from perdure.actors.state import ExecutionState, Started
from perdure.definitions.loading import load
from perdure.definitions.plan import Plan
from perdure.events.vocabulary import Error, Event, ExecutionFailed, ExecutionStarted, ExecutionSucceeded

NOW = datetime(2026, 1, 1, 12, 0, 0, tzinfo=UTC)
EXECUTION = "x-1"


def plan_of(nodes: dict[str, Any], **parts: Any) -> Plan:
    return load({"name": "flow", "nodes": nodes, **parts}).plan


def start(plan: Plan, value: Any = None, command: str = "start-1") -> StartExecution:
    return StartExecution(command, EXECUTION, plan.name, plan.digest, value, "0")


def started(plan: Plan, value: Any = None) -> ExecutionStarted:
    return ExecutionStarted(plan.name, plan.digest, value, "0")


class Given:
    def __init__(self, plan: Plan, *events: Event) -> None:
        self.plan = plan
        self.state: ExecutionState = fold(events)
        self.events: list[Event] = []

    def when(self, *inputs: Input) -> Self:
        for given in inputs:
            events, state = decide(self.plan, EXECUTION, self.state, given, NOW)
            self.state = fold(events, self.state)
            assert state == self.state
            self.events += events
        return self

    def then(self, *expected: Event) -> Self:
        assert self.events == list(expected)
        return self

    def then_types(self, *expected: type) -> Self:
        assert [type(event) for event in self.events] == list(expected)
        return self

    def then_nothing(self) -> Self:
        return self.then()

    @property
    def now(self) -> Started:
        assert isinstance(self.state, Started)
        return self.state


BOOM = Error("Boom", "it broke")


def running(nodes: dict[str, Any], value: Any = None, **parts: Any) -> Given:
    plan = plan_of(nodes, **parts)
    return Given(plan).when(start(plan, value))


def due(given: Given, timer: str) -> FireTimer:
    return FireTimer(f"fire-{timer}", EXECUTION, timer, given.now.timers[timer])


def output(given: Given) -> Any:
    assert isinstance(given.now.outcome, ExecutionSucceeded), given.now.outcome
    return given.now.outcome.output


def failure(given: Given) -> Error:
    assert isinstance(given.now.outcome, ExecutionFailed), given.now.outcome
    return given.now.outcome.error
