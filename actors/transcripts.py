"""What an agent's model is asked: the conversation so far, made of what is recorded. Pure."""

import json
from collections.abc import Callable, Iterable
from typing import Any, Literal

import msgspec

from perdure.actors.replies import AskedFor, Reply, numbered
from perdure.actors.state import BodyState, NodeState, Started
from perdure.definitions.agent_parts import MODEL, RECALL
from perdure.definitions.agent_plan import approval_of
from perdure.definitions.nodes import ModelNode, SessionNode
from perdure.definitions.paths import body_of, owner_of
from perdure.definitions.plan import Plan


class Said(msgspec.Struct, frozen=True, omit_defaults=True):
    """One message: of the `user`, of the agent (`assistant`) with the calls that it asked for, or of a `tool`.

    call: which call a tool's message answers. files: what goes with it, each `{"file" or "url", "media_type", "name"}`.
    """

    role: Literal["user", "assistant", "tool"]
    text: str
    calls: list[AskedFor] = []
    call: str = ""
    files: list[dict[str, Any]] = []


class Conversation(msgspec.Struct, frozen=True):
    """What a model is asked: as which agent, what was said so far, and what it remembers by (up to which record)."""

    agent: str
    said: list[Said]
    session: str | None = None
    upto: int = 0


Reveal = Callable[[Any, Iterable[str]], Any]
"""Returns an input with the values of the secrets that the pointers lead to."""


def given_to(state: Started, plan: Plan, path: str, node: NodeState, reveal: Reveal) -> Any:
    """Return what a worker gets for a running node: its input; for the steps of an agent the conversation so far."""
    model = plan.node(path).model
    if not isinstance(model, ModelNode | SessionNode):
        return reveal(node.input, node.secrets)
    owner, _ = owner_of(body_of(path))
    around = state.node(owner)
    assert around is not None  # noqa: S101 (it is open)
    question = reveal(around.input, around.secrets)
    recalled = around.bodies["0"].nodes.get(RECALL)
    session = (recalled or node).input.get("session")
    upto = (recalled.output or {}).get("upto", 0) if recalled is not None and recalled.output else 0
    return Conversation(node.input["agent"], conversation(around, question), session, upto)


def conversation(node: NodeState, question: Any) -> list[Said]:
    """Return what was said in an agent's node so far, its question first."""
    said = [asked(question)]
    for number in range(len(node.bodies)):
        said += _in_turn(node.bodies[str(number)])
    return said


def asked(question: Any) -> Said:
    """Return the question: `message` as it is, the rest of the input as JSON, `files` beside them."""
    given = question if isinstance(question, dict) else {"message": question}
    rest = {key: value for key, value in given.items() if key not in ("message", "files")}
    parts = [*([given["message"]] if "message" in given else []), *([rest] if rest else [])]
    texts = [each if isinstance(each, str) else json.dumps(each, ensure_ascii=False) for each in parts]
    return Said("user", "\n\n".join(texts), files=given.get("files") or [])


def _in_turn(body: BodyState) -> list[Said]:
    model = body.nodes.get(MODEL)
    if model is None:
        return []
    said = [Said("user", _to_mend(model.input["repair"]))] if "repair" in model.input else []
    if model.status != "succeeded":
        return said
    reply = Reply.of(model.output)
    said.append(Said("assistant", reply.text, reply.calls))
    if body.status == "succeeded":
        told = (body.output or {}).get("told", {})
        for number, (call, name) in enumerate(zip(reply.calls, numbered(reply.calls), strict=True)):
            text = told.get(str(number))
            text = _edit(body, name) + _result(body.nodes.get(name)) if text is None else text
            said.append(Said("tool", text, call=call.id))
    return said


def _edit(body: BodyState, name: str) -> str:
    """Say with which arguments a person had a call made, where these were not the model's; else ""."""
    decided = body.nodes.get(approval_of(name))
    data = decided.output.get("data") if decided is not None and isinstance(decided.output, dict) else None
    if not isinstance(data, dict) or "arguments" not in data:
        return ""
    return f"called, as a person decided, with {json.dumps(data['arguments'], ensure_ascii=False)}:\n"


def _to_mend(problem: str) -> str:
    return f"{problem}\nReply again, with nothing but JSON that fits."


def _result(node: NodeState | None) -> str:
    """Return what the model is told of a call that ended."""
    if node is None:
        return "error: this call was not made"
    if node.status == "succeeded":
        return node.output if isinstance(node.output, str) else json.dumps(node.output, ensure_ascii=False)
    if node.error is not None:
        return f"error: {node.error.type}: {node.error.message}"
    return f"error: this call was {node.status}" + (f": {node.reason}" if node.reason else "")
