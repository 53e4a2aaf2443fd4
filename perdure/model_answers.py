"""What a scripted model sends: replies as chat completions or responses, whole or as a stream of events."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

_PIECE = 24  # characters of a streamed piece


@dataclass(frozen=True)
class Answer:
    """One HTTP answer; `missing`: bytes that its length promises, and that are never sent."""

    status: int
    data: bytes
    headers: Mapping[str, str] = field(default_factory=lambda: {"Content-Type": "application/json"})
    missing: int = 0


class Scripted(Protocol):
    """What is needed of a reply."""

    @property
    def reply(self) -> Any:
        """Its text, or JSON value."""

    @property
    def calls(self) -> Sequence[Mapping[str, Any]]:
        """The calls that it asks for."""

    @property
    def headers(self) -> Mapping[str, str]:
        """The headers that are sent too."""

    @property
    def fault(self) -> str | None:
        """What goes wrong."""

    @property
    def usage(self) -> tuple[int, int] | None:
        """The tokens in and out."""


def refused(status: int, message: str, headers: Mapping[str, str] | None = None) -> Answer:
    """Return an error as OpenAI sends it."""
    data = json.dumps({"error": {"message": message}}).encode()
    return Answer(status, data, {"Content-Type": "application/json", **(headers or {})})


def conversation_of(path: str, body: dict[str, Any]) -> tuple[str, int]:
    """Return all that was said, as one text, and how many replies of the model are among it."""
    if path.endswith("/responses"):
        given = body["input"] if isinstance(body["input"], list) else [{"role": "user", "content": body["input"]}]
        said = [{"role": "system", "content": body.get("instructions") or ""}, *given]
    else:
        said = body["messages"]
    turns, calling = 0, False
    for each in said:  # of the Responses API, several items in a row are one reply
        speaks = each.get("role") == "assistant" or each.get("type") == "function_call"
        turns += speaks and (not calling or "messages" in body)
        calling = speaks
    return "\n".join(_text_of(each) for each in said), turns


def _text_of(message: dict[str, Any]) -> str:
    content = message.get("content") or message.get("output") or ""
    calls = [f"{call['function']['name']} {call['function']['arguments']}" for call in message.get("tool_calls") or ()]
    calls += [f"{message['name']} {message['arguments']}"] if message.get("type") == "function_call" else []
    return "\n".join([str(content), *calls])


def answered(path: str, body: dict[str, Any], reply: Scripted, said: str, number: int) -> Answer:
    """Return a scripted reply as the protocol has it that it was asked by."""
    made = _Made(body, reply, said, number)
    whole = made.response() if path.endswith("/responses") else made.completion()
    if not body.get("stream"):
        return _broken(json.dumps(whole).encode(), {"Content-Type": "application/json", **reply.headers}, reply.fault)
    events = made.response_events() if path.endswith("/responses") else made.chunks()
    return _broken("".join(events).encode(), {"Content-Type": "text/event-stream", **reply.headers}, reply.fault)


def _broken(data: bytes, headers: Mapping[str, str], fault: str | None) -> Answer:
    """Return the answer, or what is left of it by a fault."""
    half = len(data) // 2
    if fault == "malformed":
        data = data.replace(b'"', b"", 3) if b"data: " not in data else b'data: {"choices": [{\n\ndata: [DONE]\n\n'
    return Answer(200, data[:half], headers, len(data) - half) if fault == "truncated" else Answer(200, data, headers)


class _Made:
    """One reply in the making."""

    def __init__(self, body: dict[str, Any], reply: Scripted, said: str, number: int) -> None:
        self._number = number
        self._model = body.get("model", "scripted")
        self._usage_wanted = (body.get("stream_options") or {}).get("include_usage", False)
        text = reply.reply
        self._text = text if isinstance(text, str) else json.dumps(text, ensure_ascii=False)
        named = [next(iter(each.items())) for each in reply.calls]
        self._calls = [
            (f"call_{number}_{index}", name, given if isinstance(given, str) else json.dumps(given))
            for index, (name, given) in enumerate(named)
        ]
        self._usage = reply.usage or (len(said) // 4, max(1, len(self._text + str(self._calls or "")) // 4))

    def completion(self) -> dict[str, Any]:
        message: dict[str, Any] = {"role": "assistant", "content": self._text or None}
        if self._calls:
            message["tool_calls"] = [self._call(*call) for call in self._calls]
        choice = {"index": 0, "message": message, "finish_reason": self._finish}
        return {**self._head("chat.completion"), "choices": [choice], "usage": self._chat_usage()}

    def chunks(self) -> Iterator[str]:
        pieces: list[dict[str, Any]] = [{"role": "assistant"}, *({"content": piece} for piece in self._pieces())]
        for index, call in enumerate(self._calls):
            pieces.append({"tool_calls": [{"index": index, **self._call(call[0], call[1], "")}]})
            half = len(call[2]) // 2
            parts = (call[2][:half], call[2][half:])
            pieces += [{"tool_calls": [{"index": index, "function": {"arguments": part}}]} for part in parts]
        head = self._head("chat.completion.chunk")
        for delta in pieces:
            yield _event({**head, "choices": [{"index": 0, "delta": delta, "finish_reason": None}]})
        yield _event({**head, "choices": [{"index": 0, "delta": {}, "finish_reason": self._finish}]})
        if self._usage_wanted:
            yield _event({**head, "choices": [], "usage": self._chat_usage()})
        yield "data: [DONE]\n\n"

    def response(self) -> dict[str, Any]:
        output: list[dict[str, Any]] = []
        if self._text:
            content = [{"type": "output_text", "text": self._text, "annotations": []}]
            message = {"id": f"msg_{self._number}", "type": "message", "role": "assistant", "status": "completed"}
            output.append({**message, "content": content})
        for identity, name, given in self._calls:
            call = {"type": "function_call", "id": f"fc_{identity}", "call_id": identity, "status": "completed"}
            output.append({**call, "name": name, "arguments": given})
        taken, made = self._usage
        details = {"input_tokens_details": {"cached_tokens": 0}, "output_tokens_details": {"reasoning_tokens": 0}}
        return {
            "id": f"resp_{self._number}", "object": "response", "created_at": 0, "model": self._model,
            "status": "completed", "output": output, "parallel_tool_calls": True, "tool_choice": "auto", "tools": [],
            "usage": {"input_tokens": taken, "output_tokens": made, "total_tokens": taken + made, **details},
        }  # fmt: skip

    def response_events(self) -> Iterator[str]:
        whole = self.response()
        kinds: list[dict[str, Any]] = [{"type": "response.created", "response": {**whole, "output": []}}]
        place = {"item_id": f"msg_{self._number}", "output_index": 0, "content_index": 0, "logprobs": []}
        kinds += [{"type": "response.output_text.delta", **place, "delta": piece} for piece in self._pieces()]
        kinds.append({"type": "response.completed", "response": whole})
        for number, event in enumerate(kinds):
            yield f"event: {event['type']}\n" + _event({**event, "sequence_number": number})

    @property
    def _finish(self) -> str:
        return "tool_calls" if self._calls else "stop"

    def _head(self, kind: str) -> dict[str, Any]:
        return {"id": f"scripted-{self._number}", "object": kind, "created": 0, "model": self._model}

    def _call(self, identity: str, name: str, given: str) -> dict[str, Any]:
        return {"id": identity, "type": "function", "function": {"name": name, "arguments": given}}

    def _chat_usage(self) -> dict[str, int]:
        taken, made = self._usage
        return {"prompt_tokens": taken, "completion_tokens": made, "total_tokens": taken + made}

    def _pieces(self) -> Iterator[str]:
        size = max(_PIECE, len(self._text) // 2000)
        return (self._text[start : start + size] for start in range(0, len(self._text), size))


def _event(data: dict[str, Any]) -> str:
    return f"data: {json.dumps(data)}\n\n"
