"""How each kind of node begins: at once done, at work, waiting for the outside, or open with bodies of its own."""

from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime
from hashlib import sha256
from typing import Any

import msgspec

from perdure.actors import agent_turns
from perdure.actors.containers import open_chart, open_foreach, open_loop, open_parallel
from perdure.actors.draft import Draft
from perdure.actors.signals import misfit, next_signal
from perdure.actors.state import NodeState
from perdure.definitions.chart_plan import ENTERED
from perdure.definitions.durations import duration_in_bounds
from perdure.definitions.json_values import to_json_value
from perdure.definitions.nodes import AggregateNode, ApprovalNode, FailNode, SwitchNode, WaitNode, WorkflowNode
from perdure.definitions.paths import UNDO, body_of, name_of, node_in, owner_of
from perdure.definitions.places import items_of
from perdure.definitions.secret_references import pointers_kept
from perdure.errors import ExpressionError
from perdure.events.vocabulary import BranchTaken, ChildRequested, Error, NodeWaiting, SignalTaken, TimerArmed


class Failed(Exception):
    """A node that fails as it begins."""

    def __init__(self, kind: str, message: str, data: Any = None) -> None:
        super().__init__(message)
        self.error = Error(kind, message, data)


def start(draft: Draft, path: str, attempt: int) -> None:
    """Begin an attempt at a node. Raises ExpressionError or Failed, of which the attempt fails."""
    node = draft.plan.node(path)
    if node.model.timeout is not None and (node.kind in _TIMED_HERE or node.takes_turns):
        draft.arm("timeout", path, node.model.timeout)
    _START[node.kind](draft, path, attempt)


_TIMED_HERE = frozenset({"wait", "approval", "workflow", "foreach", "loop", "parallel", "statechart"})
"""The kinds that no worker does, so that no worker sees to their `timeout`."""


def _input(draft: Draft, path: str) -> Any:
    """Return what somebody gave a node by hand, or else what its `with` or config gives."""
    if (undone := _undone_as_it_is(draft, path)) is not None:
        if path.endswith(ENTERED + UNDO):
            state, names = name_of(owner_of(body_of(path))[0]), draft.names(body_of(path), ())
            return {"state": state, "context": names["context"]}
        return {"input": undone.input, "output": undone.output}
    return draft.state.inputs[path] if path in draft.state.inputs else draft.value(path, draft.plan.node(path).given)


def _secrets(draft: Draft, path: str) -> list[str]:
    """Return the pointers to the references to secrets in that input."""
    if (undone := _undone_as_it_is(draft, path)) is not None:
        return [f"/input{pointer}" for pointer in undone.secrets]
    node, given = draft.plan.node(path), draft.state.inputs
    return list(pointers_kept(node.templates[node.given], given[path]) if path in given else node.secrets)


def _undone_as_it_is(draft: Draft, path: str) -> NodeState | None:
    """Return the node that a call undoes which has no `with`, and so gets that node's input and output."""
    if not path.endswith(UNDO) or draft.plan.node(path).templates["with"] is not None:
        return None
    return draft.state.node(path.removesuffix(UNDO))


def _call(draft: Draft, path: str, attempt: int) -> None:
    agent_turns.ask(draft, path, attempt, _input(draft, path), _secrets(draft, path))


def _workflow(draft: Draft, path: str, attempt: int) -> None:
    """Ask for a child; the node waits until that says that it has ended, unless it is detached."""
    model = draft.plan.node(path).model
    assert isinstance(model, WorkflowNode)  # noqa: S101 (by its kind)
    request_child(draft, path, attempt, _input(draft, path), draft.value(path, "workflow/id"))


def request_child(draft: Draft, path: str, attempt: int, value: Any, wanted: Any) -> None:
    """Ask for a child with this input, and the id that is wanted or one made for it. Raises Failed."""
    model = draft.plan.node(path).model
    assert isinstance(model, WorkflowNode)  # noqa: S101 (by its kind)
    part, child = model.workflow, wanted or _child_id(draft, path, attempt)
    known = draft.plan.workflows.get(part.name)
    if known is not None and (problem := misfit(known.input, value, "input")):
        raise Failed("Invalid", f"the input of workflow {part.name!r} does not fit: {problem}")
    if not isinstance(child, str) or not 1 <= len(child) <= _LONGEST_ID or not child.isprintable():
        raise Failed("Invalid", f"the id of a child has 1 to {_LONGEST_ID} printable characters, not {child!r}")
    if child in draft.state.children:
        raise Failed("Invalid", f"a child {child!r} of this execution is at work already")
    draft.emit(ChildRequested(path, attempt, child, part.name, value, part.detach, part.on_parent_close))
    if part.detach:
        draft.finish(path, attempt, child)


def _compensation(draft: Draft, path: str, attempt: int) -> None:
    """Have the child undone by which a node succeeded, and wait until it says so."""
    undone = draft.state.node(path.removesuffix(UNDO))
    draft.emit(NodeWaiting(path, attempt, {"compensation": undone.child if undone else ""}))


_LONGEST_ID = 200


def _child_id(draft: Draft, path: str, attempt: int) -> str:
    """Return the id of a child that was given none: its parent's and the node's, or a digest where that is too long.

    Each run of the node has a child of its own: another try, one of what is around it, or of the execution.
    """
    tries, retries = (*draft.state.tries_around(path), attempt), draft.state.retries
    often = ("" if set(tries) == {1} else "#" + ".".join(map(str, tries))) + (f"+{retries}" if retries else "")
    execution, name = draft.execution, f"{draft.execution}.{path}{often}"
    return name if len(name) <= _LONGEST_ID else f"{execution[:100]}.{sha256(name.encode()).hexdigest()[:32]}"


def _set(draft: Draft, path: str, attempt: int) -> None:
    draft.finish(path, attempt, draft.value(path, "set"))


def _fail(draft: Draft, path: str, attempt: int) -> None:
    model = draft.plan.node(path).model
    assert isinstance(model, FailNode)  # noqa: S101 (by its kind)
    raise Failed(model.fail.type, str(draft.value(path, "fail/message")), draft.value(path, "fail/data"))


def _switch(draft: Draft, path: str, attempt: int) -> None:
    model = draft.plan.node(path).model
    assert isinstance(model, SwitchNode)  # noqa: S101 (by its kind)
    for index, case in enumerate(model.switch.cases):
        if draft.condition(path, f"switch/cases/{index}/when"):
            return _take(draft, path, attempt, case.then)
    if model.switch.default is None:
        raise Failed("NoMatch", f"no arm of switch {path!r} holds, and it has no default")
    return _take(draft, path, attempt, model.switch.default)


def _take(draft: Draft, path: str, attempt: int, then: list[str]) -> None:
    draft.emit(BranchTaken(path, then))
    draft.finish(path, attempt, then)


def _wait(draft: Draft, path: str, attempt: int) -> None:
    model = draft.plan.node(path).model
    assert isinstance(model, WaitNode)  # noqa: S101 (by its kind)
    wait = model.wait
    if wait.signal is not None:
        number, data = next_signal(draft, wait.signal, wait.schema_)
        if number is not None:
            draft.emit(SignalTaken(wait.signal, path, number))
            return draft.finish(path, attempt, data)
        draft.emit(NodeWaiting(path, attempt, {"signal": wait.signal}))
        seconds = _seconds(draft, path, "wait/timeout")
        return None if seconds is None else draft.arm("wait", path, seconds)
    if wait.until is not None:
        due = _moment(path, draft.value(path, "wait/until"))
        draft.emit(NodeWaiting(path, attempt, {"until": due.isoformat()}))
        return draft.emit(TimerArmed(f"wait/{path}", max(due, draft.at)))
    seconds = _seconds(draft, path, "wait/duration") or 0.0
    draft.emit(NodeWaiting(path, attempt, {"duration": seconds}))
    return draft.arm("wait", path, seconds)


def _approval(draft: Draft, path: str, attempt: int) -> None:
    model = draft.plan.node(path).model
    assert isinstance(model, ApprovalNode)  # noqa: S101 (by its kind)
    keys = ("title", "details", "assignees")
    asked = {key: draft.value(path, f"approval/{key}") for key in keys}
    draft.emit(NodeWaiting(path, attempt, {**{key: value for key, value in asked.items() if value}, "approval": True}))
    seconds = _seconds(draft, path, "approval/timeout")
    if seconds is not None:
        draft.arm("wait", path, seconds)


def _seconds(draft: Draft, path: str, key: str) -> float | None:
    value = draft.value(path, key)
    try:
        return None if value is None else duration_in_bounds(value)
    except ValueError as error:
        raise ExpressionError(f"{key.rpartition('/')[2]!r} of node {path!r}: {error}") from None


def _moment(path: str, value: Any) -> datetime:
    try:
        moment = datetime.fromisoformat(value)
        if moment.tzinfo is not None:
            return moment.astimezone(UTC)
    except (TypeError, ValueError, OverflowError):
        pass
    raise ExpressionError(f"'until' of node {path!r} gave {value!r}, which is no time with a zone")


def _aggregate(draft: Draft, path: str, attempt: int) -> None:
    node = draft.plan.node(path)
    assert isinstance(node.model, AggregateNode)  # noqa: S101 (by its kind)
    part = node.model.aggregate
    if part.from_ is not None:
        states = [draft.state.node(node_in(body_of(path), name)) for name in part.from_]
        items = [state.output for state in states if state is not None and state.status in ("succeeded", "caught")]
    else:
        items = items_of(path, draft.value(path, "aggregate/items"))
    if part.how is None:
        value = {**_input(draft, path), "items": items}
        secrets = [each for each in _secrets(draft, path) if each.split("/")[1] != "items"]
        agent_turns.ask(draft, path, attempt, value, secrets)
    else:
        draft.finish(path, attempt, _HOW[part.how](items))


def _merge(items: list[Any]) -> dict[str, Any]:
    merged: dict[str, Any] = {}
    for number, item in enumerate(items):
        if not isinstance(item, dict):
            raise Failed(
                "Invalid", f"only objects can be merged, and number {number} of {len(items)} is none: {item!r}"
            )
        merged |= item
    return merged


def _vote(items: list[Any]) -> dict[str, Any]:
    """Return the value that most gave; of several the one that was given first."""
    if not items:
        raise Failed("NoVotes", "nobody voted")
    keys = [msgspec.json.encode(to_json_value(item), order="sorted") for item in items]
    counts = Counter(keys)
    winner = max(counts, key=lambda key: counts[key])
    return {"winner": items[keys.index(winner)], "votes": counts[winner], "of": len(items)}


_HOW: dict[str, Callable[[list[Any]], Any]] = {"collect": list, "merge": _merge, "vote": _vote}

_START: dict[str, Callable[[Draft, str, int], None]] = {
    "agent": _call,
    "tool": _call,
    "custom": _call,
    "workflow": _workflow,
    "compensation": _compensation,
    "set": _set,
    "fail": _fail,
    "switch": _switch,
    "wait": _wait,
    "approval": _approval,
    "aggregate": _aggregate,
    "foreach": open_foreach,
    "loop": open_loop,
    "parallel": open_parallel,
    "statechart": open_chart,
}
