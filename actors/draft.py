"""A decision in the making: the events so far, the state as they leave it, and what is still to be looked at."""

from collections import deque
from collections.abc import Iterable
from datetime import datetime, timedelta
from typing import Any

import msgspec

from perdure.actors.claims import claims_of
from perdure.actors.evolve import evolve
from perdure.actors.state import BodyState, NodeState, Started
from perdure.definitions.expressions import MOMENT, Moment
from perdure.definitions.nodes import ForeachNode, LoopNode, StatechartNode
from perdure.definitions.paths import UNDO, body_of, inner_body, is_within, name_of, node_in, owner_of, steps_to
from perdure.definitions.plan import Plan
from perdure.definitions.templates import render
from perdure.errors import ExpressionError
from perdure.events.vocabulary import (
    BodyStarted,
    Error,
    Event,
    LimitClaim,
    NodeScheduled,
    NodeSucceeded,
    TimerArmed,
    TimerCancelled,
)

TIMERS = ("budget", "deadline", "execution", "retry", "timeout", "wait")
"""The kinds of timers; a timer is named `<kind>/<path>`."""

Task = tuple[str, ...]
"""Something to look at next: `consider` a node, what follows a `settled` one, the `progress` of an open one."""


class Draft:
    """One decision in the making."""

    def __init__(self, plan: Plan, execution: str, state: Started, at: datetime) -> None:
        self.plan = plan
        self.execution = execution
        self.state = state
        self.at = at
        self.events: list[Event] = []
        self.todo: deque[Task] = deque()

    @property
    def over(self) -> bool:
        """Whether the execution has ended."""
        return self.state.outcome is not None

    def emit(self, event: Event) -> None:
        """Decide that this happens."""
        self.events.append(event)
        state = evolve(self.state, event)
        assert isinstance(state, Started)  # noqa: S101 (for the type checker: Started never goes back)
        self.state = state

    def later(self, what: str, *paths: str) -> None:
        """Look at something when what is under way is decided."""
        self.todo.append((what, *paths))

    def begin_body(self, body: str, forgets: str = "") -> None:
        """Begin a body: its first nodes are considered next."""
        self.emit(BodyStarted(body, forgets))
        plan = self.plan.body(body)
        if plan.chart is not None:
            self.later("chart", body)
        for name in plan.roots:
            self.later("consider", node_in(body, name))

    def is_live(self, body: str) -> bool:
        """Say whether nodes of a body may still begin: it has not ended, and no error is on its way out of it."""
        root, steps = steps_to(body)
        if self.state.queued is not None or self.over or (not root and (self.state.failing or self.state.cancelling)):
            return False
        around = self.state.ends.get(root) if root else self.state.main
        for name, key in steps:
            node = around.nodes.get(name) if around is not None and around.status == "running" else None
            if node is None or node.status != "open":
                return False
            around = node.bodies.get(key)
        return around is not None and around.status == "running" and self.undone_around(node_in(body, "x")) is None

    def undone_around(self, path: str) -> str | None:
        """Return the body or the node around a node in which something is being compensated."""
        return next((within for within in self.state.undoing if is_within(path, within)), None)

    def is_past_deadline(self, path: str) -> bool:
        """Say whether a node has a `deadline` that is over."""
        timer = f"deadline/{path}"
        armed = timer in self.state.timers or timer in self.state.held
        return self.plan.node(path).model.deadline is not None and not armed

    def finish(self, path: str, attempt: int, value: Any, usage: dict[str, Any] | None = None) -> None:
        """Let a node succeed with its output, made from its result; raise ExpressionError where that cannot be made."""
        node = self.plan.node(path)
        if "output" in node.templates:
            names = self.names(body_of(path), node.reads)
            value = render(node.templates["output"], {**names, "output": value})
        self.disarm(path)
        self.emit(NodeSucceeded(path, attempt, value, usage))
        self.later("settled", path)

    def schedule(self, path: str, attempt: int, value: Any, secrets: Iterable[str]) -> None:
        """Have a worker do an attempt at a node; `secrets` points to the references to secrets in its input.

        Another try claims what the first one did. Raises ExpressionError where it cannot be said what that claims.
        """
        claims, known = list[LimitClaim](), self.state.node(path) if self.plan.limits and attempt > 1 else None
        if known is not None:
            claims = [msgspec.structs.replace(each, since=self.at) for each in known.limits]
        elif self.plan.limits:
            claims = claims_of(self, path)
        self.emit(NodeScheduled(path, attempt, value, list(secrets), claims))

    def arm(self, timer: str, path: str, seconds: float) -> None:
        """Arm a timer of a node."""
        self.emit(TimerArmed(f"{timer}/{path}", self.at + timedelta(seconds=seconds)))

    def disarm(self, path: str, *, keep: str = "") -> None:
        """Disarm the timers of a node, or of the execution where the path is "" (`keep`: but not this kind)."""
        for kind in TIMERS:
            timer = f"{kind}/{path}"
            if kind != keep and (timer in self.state.timers or timer in self.state.held):
                self.emit(TimerCancelled(timer))

    def value(self, path: str, key: str, **more: Any) -> Any:
        """Render a field of a node; raises ExpressionError."""
        node = self.plan.node(path)
        template = node.templates.get(key)
        if template is None or isinstance(template, str | int | float | bool):
            return template
        return render(template, {**self.names(body_of(path), node.reads, path), **more})

    def condition(self, path: str, key: str, **more: Any) -> bool:
        """Evaluate a condition of a node; raises ExpressionError where it gives anything but true or false."""
        value = self.value(path, key, **more)
        if not isinstance(value, bool):
            what = key.rpartition("/")[2]
            raise ExpressionError(f"{what!r} of node {path!r} gave {value!r}; a condition gives true or false")
        return value

    def names(self, body: str, reads: Iterable[str], path: str = "") -> dict[str, Any]:
        """Return what expressions in a body may read: the names around it, and these nodes, inner ones first."""
        names: dict[str, Any] = {
            "input": self.state.started.input,
            "execution": {"id": self.execution, "workflow": self.state.started.workflow},
            # What was decided before marks the place, so that no two evaluations give the same ids.
            MOMENT: Moment(self.at, f"{self.execution}/{path or body}/{len(self.events)}"),
        }
        if self.plan.main.chart is not None and not steps_to(body)[0]:
            names |= _of_chart(self.state.main)
        error = self._error_at(body, path)
        if error is not None:
            names["error"] = {"type": error.type, "message": error.message, "data": error.data}
        elif steps_to(body)[0]:
            names["error"] = None  # what runs at the end may ask whether there was one
        if body:
            names.update(self._names_around(body))
        names["nodes"] = {name: _visible(self._resolve(body, name)) for name in reads}
        return names

    def _names_around(self, body: str) -> dict[str, Any]:
        names: dict[str, Any] = {}
        at, steps = steps_to(body)
        for name, key in steps:
            path = node_in(at, name)
            names.update(self.inner_names(path, key))
            at = inner_body(path, key)
        return names

    def inner_names(self, path: str, key: str) -> dict[str, Any]:
        """Return the names that a node gives to one of its bodies."""
        model, node = self.plan.node(path).model, self.state.node(path)
        if node is not None and isinstance(model, ForeachNode):
            return {model.foreach.as_: node.input[int(key)], model.foreach.index: int(key)}
        if node is not None and isinstance(model, LoopNode):
            before = node.bodies.get(str(int(key) - 1))
            return {"loop": {"index": int(key), "last": before.output if before else node.input}}
        if node is not None and isinstance(model, StatechartNode):
            return {"input": node.input, **_of_chart(node.bodies.get(key))}
        return {}

    def _error_at(self, body: str, path: str) -> Error | None:
        """Return the error that is readable there: of the caught node, or the one that ends the execution."""
        if name_of(path).endswith(UNDO):
            within = self.undone_around(path)
            return None if within is None else self.state.undoing[within].error
        while True:
            if path and (caught := self.plan.node(path).handler_of):
                node = self.state.node(node_in(body, caught))
                return node.error if node else None
            if not steps_to(body)[1]:
                break
            path, _ = owner_of(body)
            body = body_of(path)
        failing = self.state.failing
        return failing.error if failing and body else None

    def _resolve(self, body: str, name: str) -> NodeState | None:
        while True:
            if name in self.plan.body(body).nodes:
                return self.state.node(node_in(body, name))
            if not body:
                return None
            owner, _ = owner_of(body)
            body = body_of(owner)


def _of_chart(body: BodyState | None) -> dict[str, Any]:
    """Return what is readable of a statechart outside of its steps."""
    chart = body.chart if body is not None else None
    return {"context": chart.context if chart is not None else {}, "event": {"name": "", "data": None}}


def _visible(node: NodeState | None) -> dict[str, Any]:
    """Return what expressions may read of a node."""
    if node is None:
        return {"output": None, "status": "pending", "input": None}
    return {"output": node.output, "status": node.status, "input": node.input}
