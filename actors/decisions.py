"""The decisions: which events follow from an input, given the plan, the state and the time. Pure."""

from collections.abc import Iterable
from datetime import datetime, timedelta
from typing import Any
from zlib import crc32

from perdure.actors.inputs import (
    FireTimer,
    Input,
    Recover,
    ReportFailure,
    ReportLoss,
    ReportSuccess,
    StartExecution,
)
from perdure.actors.state import SETTLED, ExecutionState, NodeState, Purged, Started, evolve
from perdure.definitions.expressions import MOMENT, Moment
from perdure.definitions.model import Retry
from perdure.definitions.plan import Plan, PlanNode
from perdure.definitions.templates import Template, render
from perdure.errors import ExpressionError
from perdure.events.vocabulary import (
    CommandRefused,
    Error,
    Event,
    ExecutionFailed,
    ExecutionStarted,
    ExecutionSucceeded,
    NodeAttemptFailed,
    NodeCancelled,
    NodeFailed,
    NodeResumed,
    NodeScheduled,
    NodeSkipped,
    NodeSucceeded,
    TimerArmed,
    TimerCancelled,
    TimerFired,
)

MAX_RESUMES = 3


def decide(plan: Plan, execution: str, state: ExecutionState, given: Input, at: datetime) -> list[Event]:
    """Return the events that follow from one input at the UTC time `at`; none where everything is already so."""
    if isinstance(given, StartExecution):
        return _start(plan, execution, state, given, at)
    if not isinstance(state, Started) or state.outcome is not None:
        return []
    decision = _Decision(plan, execution, state, at)
    match given:
        case ReportSuccess(node, attempt, output) if _is_running(state, node, attempt):
            decision.emit(NodeSucceeded(node, attempt, output))
            decision.advance(plan.nodes[node].dependants)
        case ReportFailure(node, attempt, error) if _is_running(state, node, attempt):
            decision.fail_attempt(plan.nodes[node], attempt, error)
        case ReportLoss(node, attempt) if _is_running(state, node, attempt):
            decision.resume(plan.nodes[node], state.nodes[node])
        case Recover():
            for name, node_state in sorted(state.running.items()):
                if not decision.over:
                    decision.resume(plan.nodes[name], node_state)
        case FireTimer(timer=timer, due=due) if state.timers.get(timer) == due:  # else it was armed anew since
            decision.emit(TimerFired(timer))
            decision.retry(timer.removeprefix("retry/"))
    return decision.events


def _start(plan: Plan, execution: str, state: ExecutionState, given: StartExecution, at: datetime) -> list[Event]:
    if isinstance(state, Purged):
        return [CommandRefused(given.id, "the execution id was used by an execution that has been purged")]
    if isinstance(state, Started):
        same = (state.started.digest, state.started.input) == (given.digest, given.input)
        return [] if same else [CommandRefused(given.id, "the execution id is taken by another definition or input")]
    started = ExecutionStarted(given.workflow, given.digest, given.input, given.lane, given.tools, given.priority)
    decision = _Decision(plan, execution, Started(started), at)
    decision.events.append(started)
    decision.advance(plan.nodes)
    return decision.events


def _is_running(state: Started, node: str, attempt: int) -> bool:
    current = state.running.get(node)
    return current is not None and current.attempt == attempt


class _Decision:
    """One decision in the making: the events so far, and the state as they leave it."""

    def __init__(self, plan: Plan, execution: str, state: Started, at: datetime) -> None:
        self.plan = plan
        self.execution = execution
        self.state = state
        self.at = at
        self.events: list[Event] = []

    @property
    def over(self) -> bool:
        return self.state.outcome is not None

    def emit(self, event: Event) -> None:
        self.events.append(event)
        state = evolve(self.state, event)
        assert isinstance(state, Started)  # noqa: S101 (for the type checker: Started never goes back)
        self.state = state

    def advance(self, names: Iterable[str]) -> None:
        """Settle or schedule whatever is ready among these nodes and, in turn, their dependants; then perhaps end."""
        todo = list(names)
        for name in todo:
            if self.over:
                return
            if name not in self.state.nodes and self.is_ready(self.plan.nodes[name]):
                self.begin(self.plan.nodes[name])
                if name in self.state.nodes and self.state.nodes[name].status in SETTLED:
                    todo += self.plan.nodes[name].dependants
        if not self.over and self.state.settled == len(self.plan.nodes):
            self.succeed()

    def is_ready(self, node: PlanNode) -> bool:
        # The last need first: nodes mostly finish in order, so a wide join answers at once.
        nodes = self.state.nodes
        return all(need in nodes and nodes[need].status in SETTLED for need in reversed(node.needs))

    def begin(self, node: PlanNode) -> None:
        """Skip, compute or schedule a node whose needs are all settled."""
        if node.needs and all(self.state.nodes[need].status == "skipped" for need in node.needs):
            self.emit(NodeSkipped(node.name, "everything it needs was skipped"))
            return
        try:
            if not self.condition(node):
                self.emit(NodeSkipped(node.name, "its condition is false"))
                return
            value = render(node.template, self.scope(node.reads, node.name))
        except ExpressionError as error:
            self.fail(node.name, 1, Error("ExpressionError", str(error)))
            return
        self.emit(NodeSucceeded(node.name, 1, value) if node.kind == "set" else NodeScheduled(node.name, 1, value))

    def condition(self, node: PlanNode) -> bool:
        if node.condition is None:
            return True
        value = render(node.condition, self.scope(node.reads, node.name))
        if not isinstance(value, bool):
            raise ExpressionError(f"'if' of node {node.name!r} gave {value!r}; a condition gives true or false")
        return value

    def scope(self, reads: Iterable[str], part: str) -> dict[str, Any]:
        nodes = self.state.nodes
        return {
            "input": self.state.started.input,
            "execution": {"id": self.execution, "workflow": self.state.started.workflow},
            "nodes": {name: _visible(nodes.get(name)) for name in reads},
            MOMENT: Moment(self.at, f"{self.execution}/{part}"),
        }

    def fail_attempt(self, node: PlanNode, attempt: int, error: Error) -> None:
        """Arm the next attempt, or fail the node where its retries are spent or do not fit the error."""
        retry = node.retry
        if attempt >= retry.attempts or (retry.on is not None and error.type not in retry.on):
            self.fail(node.name, attempt, error)
            return
        delay = _delay(node.retry, attempt)
        if retry.jitter:
            # Spread without randomness, so that the decision stays a function of its inputs.
            delay *= 0.5 + crc32(f"{self.execution}/{node.name}/{attempt}".encode()) / 2**33
        self.emit(NodeAttemptFailed(node.name, attempt, error))
        self.emit(TimerArmed(f"retry/{node.name}", self.at + timedelta(seconds=delay)))

    def retry(self, name: str) -> None:
        before = self.state.nodes[name]
        self.emit(NodeScheduled(name, before.attempt + 1, before.input))

    def resume(self, node: PlanNode, state: NodeState) -> None:
        """Run an attempt again whose worker was lost, but not one that keeps taking its workers down."""
        if state.resumed < MAX_RESUMES:
            self.emit(NodeResumed(node.name, state.attempt))
            return
        lost = Error("WorkerLost", f"the process that ran it was lost {state.resumed + 1} times")
        self.fail_attempt(node, state.attempt, lost)

    def fail(self, name: str, attempt: int, error: Error) -> None:
        """Fail a node for good, and the execution with it: stop what still runs, disarm what still waits."""
        self.emit(NodeFailed(name, attempt, error))
        for other, node in sorted(self.state.nodes.items()):
            if node.status not in SETTLED:
                self.emit(NodeCancelled(other, f"node {name!r} failed"))
        for timer in sorted(self.state.timers):
            self.emit(TimerCancelled(timer))
        self.emit(ExecutionFailed(error, name, attempt))

    def succeed(self) -> None:
        try:
            output = self.output()
        except ExpressionError as error:
            self.emit(ExecutionFailed(Error("ExpressionError", f"output: {error}")))
        else:
            self.emit(ExecutionSucceeded(output))

    def output(self) -> Any:
        template: Template = self.plan.output
        if template is not None:
            return render(template, self.scope(self.plan.output_reads, "$output"))
        return {name: self.state.nodes[name].output for name in self.plan.leaves}


def _delay(retry: Retry, attempt: int) -> float:
    """Return the seconds before the try after this one, without the jitter."""
    try:
        return min(retry.cap, retry.delay * retry.backoff ** (attempt - 1))
    except OverflowError:
        return retry.cap


def _visible(node: NodeState | None) -> dict[str, Any]:
    """Return what expressions may read of a node."""
    if node is None:
        return {"output": None, "status": "pending"}
    return {"output": node.output, "status": node.status}
