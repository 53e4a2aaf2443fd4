"""Random workflows over every kind that runs, and what may happen to them: for the properties of the engine."""

from collections.abc import Callable
from typing import Any

from scenario import EXECUTION, NOW

from perdure.actors.inputs import (
    CancelExecution,
    CompleteNode,
    Continue,
    DecideApproval,
    FireTimer,
    Input,
    PauseExecution,
    Recover,
    ReportChild,
    ReportCompensation,
    ReportFailure,
    ReportLoss,
    ReportSuccess,
    ResumeExecution,
    SignalExecution,
    SkipNode,
    TerminateExecution,
)
from perdure.actors.state import Started
from perdure.definitions.loading import load
from perdure.definitions.plan import Plan
from perdure.errors import DefinitionError
from perdure.events.vocabulary import Error

Choose = Callable[[int], int]
"""Gives a number below another: hypothesis's choice, so that it can be made smaller, or a random one."""

DEEPEST = 3
_AGENT: dict[str, Any] = {"model": "m", "instructions": "i", "budget": {"turns": 3, "tokens": 100}}
AGENTS = {
    "plain": _AGENT,
    "able": {**_AGENT, "tools": ["t", {"tool": "u", "approve": "always", "compensate": {"tool": "v"}}]},
    "exact": {**_AGENT, "output": {"type": "object", "required": ["n"]}},
}
REPLIES: list[Any] = [
    "Hi.", '{"n": 1}', {"calls": [{"id": "c", "name": "t"}, {"id": "d", "name": "u", "arguments": '{"x": 1}'}]},
]  # fmt: skip
USAGE = {"model": "m", "input": 20, "output": 5}
JOINS = ("none_failed", "all_succeeded", "any_succeeded", "all_done")


def random_plan(choose: Choose) -> Plan | None:
    """Return a random workflow, or None where it breaks a rule of definitions, such as a circle."""
    parts: dict[str, Any] = {"name": "flow", "agents": AGENTS, "nodes": _body(choose, 0)}
    if choose(2):
        parts["failure"] = "drain"
    for name in ("on_failure", "on_cancel", "finally"):
        if choose(5) == 0:
            parts[name] = _body(choose, DEEPEST - 1)
    if choose(6) == 0:
        parts["timeout"] = "1h"
    try:
        return load(parts).plan
    except DefinitionError:
        return None


def _body(choose: Choose, depth: int) -> dict[str, Any]:
    count = 1 + choose((6, 3, 2)[min(depth, 2)])
    names = [f"{'abcd'[depth]}{number}" for number in range(count)]
    led: set[str] = set()
    nodes: dict[str, Any] = {}
    for number, name in enumerate(names):
        free = [each for each in names[number + 1 :] if each not in led]
        node = _kind(choose, depth, names[:number], free, led)
        _modify(choose, node, names[:number], free, led)
        nodes[name] = node
    return nodes


def _kind(choose: Choose, depth: int, before: list[str], free: list[str], led: set[str]) -> dict[str, Any]:
    kinds: list[Callable[[], dict[str, Any]]] = [lambda: {"tool": "t"}] * 5
    kinds += [lambda: {"set": choose(3)}] * 2 + [lambda: {"fail": "on purpose"}, lambda: {"wait": "5m"}]
    kinds += [lambda: {"wait": {"signal": "go", "timeout": "1h", "on_timeout": "continue"}}]
    kinds += [lambda: {"approval": {"title": "?", "timeout": "1h", "on_timeout": ("fail", "reject")[choose(2)]}}]
    kinds += [lambda: {"set": "${{ input.missing }}"}, lambda: {"workflow": "leaf"}]
    kinds += [lambda: {"agent": list(AGENTS)[choose(len(AGENTS))], "with": {"message": "hi"}}] * 2
    if before:
        kinds += [lambda: {"aggregate": {"from": [before[choose(len(before))]], "how": "collect"}}]
    if len(free) > 1:
        kinds += [lambda: _switch(choose, free, led)] * 2
    if depth < DEEPEST - 1:
        kinds += [lambda: _parallel(choose, depth), lambda: _foreach(choose, depth), lambda: _loop(choose, depth)] * 2
    return kinds[choose(len(kinds))]()


def _switch(choose: Choose, free: list[str], led: set[str]) -> dict[str, Any]:
    led.update(free[:2])
    case = {"when": bool(choose(2)), "then": free[0]}
    return {"switch": {"cases": [case], **({"default": free[1]} if choose(3) else {})}}


def _parallel(choose: Choose, depth: int) -> dict[str, Any]:
    branches: dict[str, Any] = {name: {"do": _body(choose, depth + 1)} for name in "xyz"[: 1 + choose(3)]}
    return {"parallel": {"branches": branches, "join": ("all", "any", 1 + choose(len(branches)))[choose(3)]}}


def _foreach(choose: Choose, depth: int) -> dict[str, Any]:
    foreach = {
        "items": list(range(choose(4))),
        "max_parallel": 1 + choose(2),
        "batch": 1 + choose(2),
        "on_failure": ("stop", "continue", {"threshold": "50%"})[choose(3)],
    }
    return {"foreach": foreach, "do": _body(choose, depth + 1)}


def _loop(choose: Choose, depth: int) -> dict[str, Any]:
    loop: dict[str, Any] = {"max_iterations": 1 + choose(3)}
    how = choose(3)
    if how:
        loop |= {"while": "loop.index < 2"} if how == 1 else {"until": "loop.index >= 1"}
    return {"loop": loop, "do": _body(choose, depth + 1)}


def _modify(choose: Choose, node: dict[str, Any], before: list[str], free: list[str], led: set[str]) -> None:
    if before:
        node["needs"] = [name for name in before if choose(3) == 0]
        node["join"] = JOINS[choose(4)]
    if choose(6) == 0:
        node["if"] = (True, False, "input.missing")[choose(3)]
    if choose(4) == 0:
        node["retry"] = {"attempts": 1 + choose(3), "delay": choose(2), "exhausted": ("fail", "pause")[choose(4) == 0]}
    if choose(6) == 0:
        node["deadline"] = "2h"
    if choose(6) == 0:
        node["timeout"] = "1h"
    if "fail" not in node and choose(3) == 0:
        call = {"workflow": "leaf"} if choose(4) == 0 else {"tool": "u"}
        node["compensate"] = {**call, "retry": {"attempts": 1 + choose(2), "delay": 1}}
        if choose(4) == 0:
            node["compensate"]["with"] = {"why": "${{ error.message }}", "x": "${{ input.missing }}"}
    if choose(12) == 0:
        node["output"] = "${{ [output] }}"
    left = [name for name in free if name not in led]
    catches = [{"on": "Boom", "then": name} for name in left[:1] if choose(4) == 0]
    led.update(each["then"] for each in catches)
    node["catch"] = catches + ([{"output": "caught"}] if choose(8) == 0 else [])


def possible(state: Started, choose: Choose, told: list[Input]) -> Input:
    """Return something that could happen now: mostly what is due, sometimes late, doubled or out of place."""
    strange: list[Input] = [Recover(), Continue(), ReportSuccess("a0", 1 + choose(2)), *told[-2:]]
    strange += [PauseExecution("p", EXECUTION), ResumeExecution("r", EXECUTION), SignalExecution("s", EXECUTION, "go")]
    if choose(6) == 0:
        strange += [CancelExecution("c", EXECUTION), TerminateExecution("x", EXECUTION)]
    choices = [*favourable(state), *unfavourable(state)]
    begun = sorted(state.nodes)
    if begun and choose(4) == 0:
        path = begun[choose(len(begun))]
        strange += [SkipNode("k", EXECUTION, path), CompleteNode("o", EXECUTION, path, 1)]
    if state.paused:
        strange += [ResumeExecution("r", EXECUTION)] * 4
    if not choices or choose(8) == 0:
        return strange[choose(len(strange))]
    return choices[choose(len(choices))]


def unfavourable(state: Started) -> list[Input]:
    """Return how all that is under way could go wrong now."""
    inputs: list[Input] = [
        FireTimer(f"t-{timer}", EXECUTION, timer, due) for timer, due in sorted(state.timers.items())
    ]
    for path, node in sorted(state.running.items()):
        inputs += [ReportFailure(path, node.attempt, Error("Boom", "it broke")), ReportLoss(path, node.attempt)]
        if path.endswith("/model"):
            inputs.append(ReportFailure(path, node.attempt, Error("Refused", "no"), USAGE))
    for path, node in sorted(state.waiting.items()):
        if "child" in node.input:
            inputs.append(ReportChild("e", EXECUTION, node.input["child"], error=Error("Boom", "it broke")))
        elif "compensation" in node.input:
            inputs.append(ReportCompensation("e", EXECUTION, path, node.input["compensation"], Error("Boom", "no")))
        else:
            inputs.append(DecideApproval("d", EXECUTION, path, approved=False))
    return inputs


def favourable(state: Started) -> list[Input]:
    """Return how all that is under way could go well now."""
    inputs: list[Input] = []
    for path, node in sorted(state.running.items()):
        said = [(reply, USAGE) for reply in REPLIES] if path.endswith("/model") else [(path, None)]
        inputs += [ReportSuccess(path, node.attempt, output, usage) for output, usage in said]
    for path, node in sorted(state.waiting.items()):
        if node.input.get("approval"):
            inputs.append(DecideApproval("d", EXECUTION, path, approved=True))
        elif "child" in node.input:
            inputs.append(ReportChild("e", EXECUTION, node.input["child"], 1))
        elif "compensation" in node.input:
            inputs.append(ReportCompensation("e", EXECUTION, path, node.input["compensation"]))
        elif "signal" in node.input:
            inputs.append(SignalExecution("s", EXECUTION, "go", 1))
    timers = {timer: due for timer, due in sorted(state.timers.items()) if timer.startswith(("retry/", "wait/"))}
    return inputs + [FireTimer(f"t-{timer}", EXECUTION, timer, due) for timer, due in timers.items()]


__all__ = ["NOW", "Choose", "favourable", "possible", "random_plan", "unfavourable"]
