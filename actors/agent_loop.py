"""Agents that take turns: what follows of a reply, of the end of a call, of a person's decision. Pure.

A turn is a body within the agent's node: the model's reply (`draft[2]/model`), the calls that it asks for
(`draft[2]/lookup`), and the approvals of these (`draft[2]/refund.approve`). See ADR 20.
"""

from typing import Any

import msgspec

from perdure.actors import agent_turns, kinds
from perdure.actors.draft import Draft
from perdure.actors.failures import fail_attempt, fail_open
from perdure.actors.replies import AskedFor, InvalidReply, Reply, arguments_of, checked, numbered
from perdure.actors.state import SETTLED, BodyState, NodeState
from perdure.definitions.agent_parts import HAND_OFF, MODEL, RECALL, REMEMBER, Budget
from perdure.definitions.agent_plan import agent_of, approval_of
from perdure.definitions.durations import duration_in_bounds
from perdure.definitions.paths import body_of, inner_body, name_of, node_in, owner_of
from perdure.errors import ExpressionError
from perdure.events.vocabulary import BodySucceeded, Error, NodeCharged, NodeWaiting

_TOLD = "agent {!r} is not done after {}, its budget is {:g}"
MOST_CALLS = 64
"""Calls of one reply that are made; the model is told so of any further ones."""


class _Turn(msgspec.Struct):
    """The turn that an agent's node is at: `agent` is the one that speaks, `at` the path of the turn's body."""

    path: str
    node: NodeState
    number: int
    at: str
    body: BodyState
    agent: str = ""

    def told(self, name: str) -> NodeState | None:
        return self.body.nodes.get(name)


def progress(draft: Draft, path: str) -> Error | None:
    """Go on with an agent's node: ask its model, make calls, or let it succeed. Returns the error of which it fails.

    Raises ExpressionError, of which it fails too.
    """
    node = draft.state.node(path)
    if node is None or node.status != "open" or path in draft.state.undoing or draft.over:
        return None
    if not node.bodies:
        _begin(draft, path)
        return None
    number = len(node.bodies) - 1
    turn = _Turn(path, node, number, inner_body(path, str(number)), node.bodies[str(number)])
    if (recalled := turn.told(RECALL)) is not None and (recalled.status not in SETTLED or recalled.error):
        return recalled.error if recalled.status in SETTLED else None
    reply = turn.told(MODEL)
    if reply is None:
        _ask(draft, turn.at, {"agent": agent_of(draft.plan.node(path))})
        return None
    if reply.status not in SETTLED:
        return None
    if reply.status != "succeeded":
        return reply.error or Error("Failed", f"the model's reply was {reply.status}")
    turn.agent = reply.input["agent"]
    said = Reply.of(reply.output)
    return _calls_go_on(draft, turn, said) if said.calls else _done(draft, turn, said)


def out_of_time(draft: Draft, path: str) -> None:
    """Fail an agent whose budget of time is over."""
    agent = agent_of(draft.plan.node(path))
    node = draft.state.node(path)
    told = f"agent {agent!r} was not done within {draft.plan.agents[agent].budget.time:g} s, its budget"
    fail_open(draft, path, Error("OutOfTime", told, spent(node) if node is not None else None))


def charged(draft: Draft, path: str, attempt: int, usage: dict[str, Any]) -> Error | None:
    """Record what a failed attempt took; return the error of which its agent fails, where that used up its budget."""
    draft.emit(NodeCharged(path, attempt, usage))
    if draft.plan.node(path).calls != "model":
        return None
    around = owner_of(body_of(path))[0]
    agent, node = agent_of(draft.plan.node(around)), draft.state.node(around)
    return None if node is None else _paid_over(agent, draft.plan.agents[agent].budget, spent(node))


def spent(node: NodeState) -> dict[str, Any]:
    """Return what an agent has used up, its helpers included: turns, tokens and cost."""
    uses = list(_uses(node))
    tokens = sum(use.get("input", 0) + use.get("output", 0) for use in uses)
    return {"turns": len(node.bodies), "tokens": tokens, "cost": round(sum(use.get("cost", 0.0) for use in uses), 9)}


def _uses(node: NodeState) -> list[dict[str, Any]]:
    inner = [use for body in node.bodies.values() for each in body.nodes.values() for use in _uses(each)]
    return [*([node.usage] if node.usage else []), *inner]


def _begin(draft: Draft, path: str) -> None:
    """Begin the first turn: with what is remembered, where there is a session."""
    if draft.state.paused:
        return
    plan = draft.plan.node(path)
    at = inner_body(path, "0")
    session = _session(draft, path)
    draft.begin_body(at)
    if session is None:
        _ask(draft, at, {"agent": agent_of(plan)})
    else:
        draft.schedule(node_in(at, RECALL), 1, {"session": session, "agent": agent_of(plan)}, ())


def _session(draft: Draft, path: str) -> str | None:
    if RECALL not in draft.plan.node(path).bodies["do"].nodes:
        return None
    session = draft.value(path, "session")
    if isinstance(session, int) and not isinstance(session, bool):
        session = str(session)
    if not isinstance(session, str) or not 1 <= len(session) <= 200 or not session.isprintable():
        what = f"'session' of node {path!r} gave {str(session)[:100]!r}"
        raise ExpressionError(f"{what}; it is text of 1 to 200 printable characters")
    return session


def _ask(draft: Draft, at: str, given: dict[str, Any]) -> None:
    """Have the model asked; the conversation is made of what is recorded when that is done, and not written again."""
    if not draft.state.paused:
        draft.schedule(node_in(at, MODEL), 1, given, ())


def _next(draft: Draft, turn: _Turn, given: dict[str, Any], told: dict[str, str]) -> Error | None:
    """End a turn and begin the next one, where the agent has not used up what it may."""
    first = agent_of(draft.plan.node(turn.path))
    if (over := _over(first, draft.plan.agents[first].budget, turn.node)) is not None:
        return over
    if not draft.state.paused:
        _end(draft, turn, told)
        following = inner_body(turn.path, str(turn.number + 1))
        draft.begin_body(following)
        _ask(draft, following, given)
    return None


def _end(draft: Draft, turn: _Turn, told: dict[str, str]) -> None:
    draft.emit(BodySucceeded(turn.at, {"told": told} if told else None, list(turn.body.nodes)))


def _over(agent: str, budget: Budget, node: NodeState) -> Error | None:
    used = spent(node)
    if used["turns"] >= budget.turns:
        return Error("OutOfTurns", _TOLD.format(agent, f"{used['turns']} turns", budget.turns), used)
    return _paid_over(agent, budget, used)


def _paid_over(agent: str, budget: Budget, used: dict[str, Any]) -> Error | None:
    if budget.tokens is not None and used["tokens"] >= budget.tokens:
        return Error("OutOfTokens", _TOLD.format(agent, f"{used['tokens']} tokens", budget.tokens), used)
    if budget.cost is not None and used["cost"] >= budget.cost:
        return Error("OutOfMoney", _TOLD.format(agent, f"a cost of {used['cost']:g}", budget.cost), used)
    return None


def _done(draft: Draft, turn: _Turn, said: Reply) -> Error | None:
    """Let the agent's reply be the node's result, or have it mended where it breaks the output schema."""
    agent, value = draft.plan.agents[turn.agent], said.text
    if agent.output is not None:
        try:
            value = checked(turn.agent, said.text, agent.output)
        except InvalidReply as error:
            return _mend(draft, turn, str(error))
    if (recalled := turn.node.bodies["0"].nodes.get(RECALL)) is not None:
        remembered = turn.told(REMEMBER)
        if remembered is None:
            given = {"session": recalled.input["session"], "agent": turn.agent}
            if not draft.state.paused:
                draft.schedule(node_in(turn.at, REMEMBER), 1, given, ())
            return None
        if remembered.status not in SETTLED or remembered.error is not None:
            return remembered.error if remembered.status in SETTLED else None
    _end(draft, turn, {})
    draft.finish(turn.path, turn.node.attempt, value)
    return None


def _mend(draft: Draft, turn: _Turn, problem: str) -> Error | None:
    """Ask for a reply that fits, as often as the agent allows."""
    asked = [body.nodes[MODEL].input for body in turn.node.bodies.values() if MODEL in body.nodes]
    mended = sum("repair" in each for each in asked)
    if mended >= draft.plan.agents[turn.agent].repairs:
        return Error("InvalidReply", problem)
    return _next(draft, turn, {"agent": turn.agent, "repair": problem}, {})


def _calls_go_on(draft: Draft, turn: _Turn, said: Reply) -> Error | None:
    """Make the calls of a reply that can be made; when all have ended, go on with the next turn."""
    told: dict[str, str] = {}
    waits, speaks = False, turn.agent
    for number, (call, name) in enumerate(zip(said.calls, numbered(said.calls), strict=True)):
        to = call.name.removeprefix(HAND_OFF)
        if to != call.name and to in draft.plan.agents[turn.agent].handoffs:
            speaks = to
            told[str(number)] = f"the conversation is handed over to {to}"
            continue
        outcome = _call(draft, turn, call, name, number)
        if isinstance(outcome, Error):
            return outcome
        waits = waits or outcome is None
        if outcome:
            told[str(number)] = outcome
    return None if waits else _next(draft, turn, {"agent": speaks}, told)


def _call(draft: Draft, turn: _Turn, call: AskedFor, name: str, number: int) -> str | Error | None:
    """Make a call, or see how far it is: None while it is under way, "" when its node says how it ended.

    Otherwise returns what the model is told in the place of a result, or the error of which the agent fails.
    """
    offered = {tool.offered: tool for tool in draft.plan.agents[turn.agent].tools}
    if call.name not in offered:
        return f"error: there is no tool {call.name[:64]!r}; there are: {', '.join(offered) or 'none'}"
    if number >= MOST_CALLS:
        return f"error: a reply may ask for {MOST_CALLS} calls, and this is one too many"
    path = node_in(turn.at, name)
    node = draft.state.node(path)
    if node is not None:
        if node.status == "failed" and offered[call.name].on_error == "fail":
            return node.error
        return "" if node.status in SETTLED else None
    try:
        return _allowed(draft, turn, path, arguments_of(call))
    except InvalidReply as error:
        return f"error: {error}"


def _allowed(draft: Draft, turn: _Turn, path: str, given: dict[str, Any]) -> str | None:
    """Begin a call once it is allowed: at once, or when a person says so; or say why it is not."""
    tool = draft.plan.node(path).called
    assert tool is not None  # noqa: S101 (it is a tool of an agent)
    asking = node_in(turn.at, approval_of(name_of(path)))
    decided = draft.state.node(asking)
    if decided is None and tool.approve not in (None, False):
        try:
            asks = tool.always_asks or draft.condition(path, "approve", args=given)
        except ExpressionError as error:
            return f"error: whether this may be called cannot be decided: {error}"
        if asks:
            if not draft.state.paused:
                _ask_person(draft, turn, asking, path, given)
            return None
    if decided is not None:
        if decided.status not in SETTLED:
            return None
        answer = decided.output if isinstance(decided.output, dict) else {}
        if not answer.get("approved"):
            return _refusal(answer)
        given = _edited(answer, given)
    if not draft.state.paused:
        _begin_call(draft, path, given)
    return None


def _ask_person(draft: Draft, turn: _Turn, asking: str, path: str, given: dict[str, Any]) -> None:
    """Let a person decide on a call; nothing is held meanwhile."""
    tool = draft.plan.node(path).called
    assert tool is not None  # noqa: S101 (it is a tool of an agent)
    title = f"agent {turn.agent!r} asks to call {tool.offered!r}"
    asked = {"title": title, "details": {"tool": tool.offered, "arguments": given}, "approval": True}
    draft.emit(NodeWaiting(asking, 1, asked | ({"assignees": tool.assignees} if tool.assignees else {})))
    if tool.approve_timeout is not None:
        draft.arm("wait", asking, duration_in_bounds(tool.approve_timeout))


def _refusal(answer: dict[str, Any]) -> str:
    data = answer.get("data")
    reason = data.get("reason") if isinstance(data, dict) else data
    by = f" by {answer['by']}" if answer.get("by") else ""
    return f"this call was refused{by}" + (f": {reason}" if reason else "")


def _edited(answer: dict[str, Any], given: dict[str, Any]) -> dict[str, Any]:
    data = answer.get("data")
    edited = data.get("arguments") if isinstance(data, dict) else None
    return edited if isinstance(edited, dict) else given


def _begin_call(draft: Draft, path: str, given: dict[str, Any]) -> None:
    node = draft.plan.node(path)
    value = {**given, **(draft.value(path, "with") or {})}
    if node.timeout is not None and (node.kind == "workflow" or node.takes_turns):
        draft.arm("timeout", path, node.timeout)
    if node.kind != "workflow":
        agent_turns.ask(draft, path, 1, value, list(node.secrets))
        return
    try:
        kinds.request_child(draft, path, 1, value, None)
    except kinds.Failed as failure:
        fail_attempt(draft, path, 1, failure.error)
