"""The timers: what follows when the time of a retry, a wait, a timeout or a deadline has come."""

from collections.abc import Callable
from datetime import datetime

from perdure.actors import agent_loop, chart_calls, charts, flow
from perdure.actors.answers import decide
from perdure.actors.draft import Draft
from perdure.actors.failures import fail_attempt, fail_open, leave_root
from perdure.definitions.nodes import ApprovalNode, WaitNode
from perdure.definitions.paths import body_of
from perdure.events.vocabulary import Error, TimerFired, TimerHeld


def come(draft: Draft, timer: str, due: datetime) -> None:
    """Let a timer fire that is armed for this time; one that was armed anew since does nothing."""
    if draft.state.timers.get(timer) == due:
        fire(draft, timer)
    elif timer.startswith("after/") and timer not in draft.state.timers:
        charts.too_late(draft, timer)


def fire(draft: Draft, timer: str) -> None:
    """Let a timer count, or hold it where the execution is paused."""
    kind, _, path = timer.partition("/")
    if draft.state.paused and timer not in draft.state.held and kind != "after":  # a chart holds the event instead
        draft.emit(TimerHeld(timer))
        return
    draft.emit(TimerFired(timer))
    _TIMERS[kind](draft, path)


def try_again(draft: Draft, path: str) -> None:
    """Begin the next attempt at a node."""
    node = draft.state.node(path)
    assert node is not None  # noqa: S101 (a try of it failed)
    if draft.plan.node(path).calls is not None:
        draft.schedule(path, node.attempt + 1, node.input, node.secrets)
    elif draft.plan.body(body_of(path)).calls:
        chart_calls.start(draft, path, node.attempt + 1, node.input, node.secrets)
    else:
        flow.begin(draft, path, node.attempt + 1)


def _waited(draft: Draft, path: str) -> None:
    """End a wait: its time has come, or nobody answered in time."""
    node, model = draft.state.node(path), draft.plan.node(path).model
    assert node is not None  # noqa: S101 (it waits)
    if isinstance(model, ApprovalNode) and model.approval.on_timeout != "fail":
        decide(draft, path, approved=model.approval.on_timeout == "approve", by="timeout")
    elif isinstance(model, WaitNode) and (model.wait.signal is None or model.wait.on_timeout == "continue"):
        flow.complete(draft, path, node.attempt, None)
    else:
        what = "nobody answered" if isinstance(model, ApprovalNode) else "no signal came"
        fail_attempt(draft, path, node.attempt, Error("Timeout", f"{what} in time"))


def _timed_out(draft: Draft, path: str) -> None:
    """End an attempt at a node that waits, or has bodies, whose `timeout` is over."""
    fail_open(draft, path, Error("Timeout", f"it took longer than {draft.plan.node(path).timeout:g} s"))


def _past_deadline(draft: Draft, path: str) -> None:
    """Fail a node whose `deadline` is over, tries or no tries."""
    if path not in draft.state.undoing:  # else it failed, and is not tried again once that is compensated
        deadline = draft.plan.node(path).model.deadline
        fail_open(draft, path, Error("Timeout", f"it was not done within {deadline:g} s, its deadline"))


def _execution_timed_out(draft: Draft, _: str) -> None:
    error = Error("Timeout", f"the execution took longer than {draft.plan.timeout:g} s")
    leave_root(draft, "", error, None, 0)  # the timer is disarmed with the main body


_TIMERS: dict[str, Callable[[Draft, str], None]] = {
    "retry": try_again,
    "wait": _waited,
    "budget": agent_loop.out_of_time,
    "timeout": _timed_out,
    "deadline": _past_deadline,
    "execution": _execution_timed_out,
    "after": charts.fire,
}
