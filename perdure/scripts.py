"""What a played workflow meets: scripted outcomes of calls, and what it is told from outside, in virtual time."""

import json
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import wraps
from inspect import Signature, iscoroutinefunction, signature
from typing import Any

import msgspec

from perdure.actors import replies, tools
from perdure.actors.context import Context
from perdure.actors.inputs import (
    CancelExecution,
    ChangeInput,
    CompleteNode,
    DecideApproval,
    ExtendDeadline,
    Input,
    PauseExecution,
    Recover,
    ResumeExecution,
    RetryExecution,
    SignalExecution,
    SkipNode,
    TerminateExecution,
)
from perdure.actors.replies import AskedFor, Reply
from perdure.actors.tool_schema import Face, Tool
from perdure.actors.work import error_of
from perdure.definitions.agent_parts import Agent
from perdure.definitions.durations import duration_in_bounds
from perdure.definitions.hints import did_you_mean
from perdure.errors import BadInput
from perdure.events.vocabulary import Error


class Unscripted(BadInput):
    """A played workflow calls something for which its script has no outcome."""


@dataclass(frozen=True)
class Ending:
    """How one call ends: after so many virtual seconds, with a value, an error, or a worker that is lost."""

    value: Any = None
    error: Error | None = None
    seconds: float = 0.0
    is_lost: bool = False


def fails(type: str, message: str = "", data: Any = None, *, after: str | float = 0) -> Ending:
    """Return the outcome of a call that fails with an error of this type, after a duration."""
    return Ending(error=Error(type, message or f"scripted: {type}", data), seconds=seconds(after))


def calls(*asked: tuple[str, dict[str, Any]], text: str = "", **named: dict[str, Any]) -> dict[str, Any]:
    """Return the reply of a model that asks for calls: pairs of tool and arguments, or arguments by tool."""
    listed = [*asked, *named.items()]
    made = [AskedFor(f"call_{index}", name, json.dumps(given)) for index, (name, given) in enumerate(listed)]
    return as_reply(Reply(text, made))


def as_reply(value: Any) -> dict[str, Any]:
    """Return what is recorded of a scripted reply: one that `calls` made, or else its text or JSON."""
    if isinstance(value, dict) and value.keys() == {_REPLY}:
        made: dict[str, Any] = value[_REPLY]
        return made
    if isinstance(value, Reply):
        return {_REPLY: msgspec.to_builtins(value)}
    return {"text": value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)}


_REPLY = "$reply"


def takes(duration: str | float, value: Any = None) -> Ending:
    """Return the outcome of a call that gives its value after a duration, such as `3h`."""
    return Ending(value, seconds=seconds(duration))


def lost(*, after: str | float = 0) -> Ending:
    """Return the outcome of a call whose process dies without an answer, after a duration."""
    return Ending(is_lost=True, seconds=seconds(after))


@dataclass(frozen=True)
class Told:
    """What an execution is told from outside: at a time since its start, or (an approval) as soon as it is asked."""

    make: Callable[[str, str], Input]
    seconds: float | None = 0.0
    approval: str | None = None
    crashes: bool = False
    retries: bool = False


def signal(name: str, data: Any = None, *, at: str | float = 0) -> Told:
    """Give it a signal, so long after its start."""
    value = tools.to_json(data, f"the data of signal {name!r}")
    return Told(lambda id_, execution: SignalExecution(id_, execution, name, value), seconds(at))


def approve(node: str, *, by: str = "", data: Any = None, at: str | float | None = None) -> Told:
    """Approve what the approval at `node` asks: so long after the start, or as soon as it is asked."""
    return _answer(node, True, by, data, at)


def reject(node: str, *, by: str = "", data: Any = None, at: str | float | None = None) -> Told:
    """Reject what the approval at `node` asks: so long after the start, or as soon as it is asked."""
    return _answer(node, False, by, data, at)


def _answer(node: str, yes: bool, by: str, data: Any, at: str | float | None) -> Told:
    value = tools.to_json(data, f"the data of the answer to {node!r}")

    def make(id_: str, execution: str) -> Input:
        return DecideApproval(id_, execution, node, yes, by, value)

    return Told(make, None if at is None else seconds(at), node)


def pause(*, at: str | float = 0) -> Told:
    """Pause it, so long after its start."""
    return Told(lambda id_, execution: PauseExecution(id_, execution), seconds(at))


def resume(*, at: str | float = 0) -> Told:
    """Resume it, so long after its start."""
    return Told(lambda id_, execution: ResumeExecution(id_, execution), seconds(at))


def cancel(reason: str = "", *, at: str | float = 0) -> Told:
    """Cancel it, so long after its start."""
    return Told(lambda id_, execution: CancelExecution(id_, execution, reason), seconds(at))


def terminate(reason: str = "", *, at: str | float = 0) -> Told:
    """Terminate it, so long after its start."""
    return Told(lambda id_, execution: TerminateExecution(id_, execution, reason), seconds(at))


def retry(*, at: str | float) -> Told:
    """Retry it after it has failed, so long after its start."""
    return Told(lambda id_, execution: RetryExecution(id_, execution), seconds(at), retries=True)


def skip_node(node: str, *, at: str | float = 0) -> Told:
    """Settle the node at a path as skipped, so long after the start."""
    return Told(lambda id_, execution: SkipNode(id_, execution, node), seconds(at))


def complete_node(node: str, output: Any = None, *, at: str | float = 0) -> Told:
    """Settle the node at a path with an output, so long after the start."""
    value = tools.to_json(output, f"the output of node {node!r}")
    return Told(lambda id_, execution: CompleteNode(id_, execution, node, value), seconds(at))


def change_input(node: str, value: Any, *, at: str | float = 0) -> Told:
    """Give the node at a path, which has not begun, another input, so long after the start."""
    given = tools.to_json(value, f"the input of node {node!r}")
    return Told(lambda id_, execution: ChangeInput(id_, execution, node, given), seconds(at))


def extend_deadline(by: str | float, node: str = "", *, at: str | float = 0) -> Told:
    """Move the deadline of the node at a path, or the execution's timeout, so long after the start."""
    more = seconds(by)
    return Told(lambda id_, execution: ExtendDeadline(id_, execution, node, more), seconds(at))


def crash(*, at: str | float = 0) -> Told:
    """Let its process die, so long after its start: another takes over from the log, and calls under way run again."""
    return Told(lambda _, __: Recover(), seconds(at), crashes=True)


def seconds(value: str | float) -> float:
    """Return the seconds of a duration such as `2d`; raise BadInput where it is none."""
    try:
        return duration_in_bounds(value)
    except ValueError as error:  # pydantic's own errors are ValueErrors too
        raise BadInput(str(error)) from None


@dataclass
class Script:
    """The outcomes of one tool or agent: a list has one for each call; anything else is that of every call."""

    kind: str
    name: str
    outcomes: Any
    made: int = field(default=0)

    def next(self, context: Context, given: dict[str, Any], agent: Agent | None = None) -> Ending:
        """Return the outcome of the next call, to this agent if to one; raise Unscripted where there is none left."""
        self.made += 1
        outcome = self.outcomes
        if isinstance(outcome, list):
            if self.made > len(outcome):
                raise Unscripted(
                    f"{self.kind} {self.name!r} is called for the {self.made}. time (by node {context.node!r}, with "
                    f"{shown(given)}), and its script has {len(outcome)} outcomes; add one, or give a function"
                )
            outcome = outcome[self.made - 1]
        if isinstance(outcome, BaseException):
            return Ending(error=error_of(outcome))
        if callable(outcome):
            outcome = self._call(outcome, given, context)
        return self._checked(outcome if isinstance(outcome, Ending) else Ending(outcome), agent)

    def _call(self, function: Callable[..., Any], given: dict[str, Any], context: Context) -> Any:
        """Call a function as the engine calls tools: its arguments are checked, and what it raises is its failure."""
        endings: list[Ending] = []
        checking = _checking(function, endings)
        tool = Tool(self.name, checking, iscoroutinefunction(function), Face(checking, ""))
        try:
            result = _in_thread(tool, given, context) if tool.is_async else tools.call(tool, given, context)
        except Exception as error:
            return Ending(error=error_of(error))
        return endings[0] if endings else result

    def _checked(self, outcome: Ending, agent: Agent | None) -> Ending:
        if outcome.error is not None or outcome.is_lost:
            return outcome
        what = f"the scripted outcome of {self.kind} {self.name!r}"
        value = tools.to_json(outcome.value, what)
        if agent is not None and agent.output is not None:
            try:
                replies.checked(self.name, json.dumps(value), agent.output)
            except replies.InvalidReply as error:
                return Ending(error=error_of(error), seconds=outcome.seconds)
        elif agent is not None and not isinstance(value, str):
            raise BadInput(f"{what} is {shown(value)}; the agent has no output schema, so that it replies with text")
        return Ending(value, seconds=outcome.seconds)


def scripts_of(kind: str, given: Mapping[str, Any], called: set[str]) -> dict[str, Script]:
    """Return the scripts by name; raise BadInput for one that the workflow never calls."""
    for name in given.keys() - called:
        hint = did_you_mean(name, called) or f"; it calls: {', '.join(sorted(called)) or 'none'}"
        raise BadInput(f"there is a script for {kind} {name!r}, which the workflow does not call{hint}")
    return {name: Script(kind, name, outcomes) for name, outcomes in given.items()}


def shown(value: Any) -> str:
    """Return a value as one short line."""
    text = json.dumps(value, ensure_ascii=False, default=repr)
    return text if len(text) <= 200 else f"{text[:200]}…"


def _checking(function: Callable[..., Any], endings: list[Ending]) -> Callable[..., Any]:
    """Return the function, its result unchecked; an Ending that it returns is put aside, for it is no JSON."""

    def put_aside(result: Any) -> Any:
        if isinstance(result, Ending):
            endings.append(result)
            return None
        return result

    @wraps(function)
    def call(*values: Any, **more: Any) -> Any:
        return put_aside(function(*values, **more))

    @wraps(function)
    async def call_async(*values: Any, **more: Any) -> Any:
        return put_aside(await function(*values, **more))

    checking = call_async if iscoroutinefunction(function) else call
    unchecked = signature(function, eval_str=True).replace(return_annotation=Signature.empty)
    vars(checking)["__signature__"] = unchecked
    return checking


def _in_thread(tool: Tool, given: dict[str, Any], context: Context) -> Any:
    """Call an `async def` tool on an event loop of its own, in a thread: the test may have a loop here."""
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(tools.call, tool, given, context).result()
