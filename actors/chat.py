"""The chat-completions protocol: a request becomes its messages, and its answer, streamed or whole, a reply."""

from collections.abc import Mapping
from typing import Any

from perdure.actors.models import Asked, Endpoint, Hear, Took, Unavailable, check_calls
from perdure.actors.openai_client import client_of, telling
from perdure.actors.replied import (
    File,
    call_of,
    check_refusal,
    check_reply,
    check_size,
    length_of,
    text_of,
    tokens,
)
from perdure.actors.replies import AskedFor, InvalidReply, Reply
from perdure.actors.transcripts import Said


async def put(endpoint: Endpoint, asked: Asked, file: File, hear: Hear, took: Took) -> Reply:
    """Ask by chat completions. Raises RateLimited, Unavailable, Refused, ReplyTooLarge or InvalidReply."""
    body = {"model": asked.model, "messages": await messages(asked, file), **_options(asked)}
    if asked.stream:
        body |= {"stream": True, "stream_options": {"include_usage": True}}
    async with telling(asked.name):
        answer = await client_of(endpoint).chat.completions.create(**body)
        if asked.stream:
            return await _heard(asked, answer, hear, took)
        return _whole(asked, answer, hear, took)


def _options(asked: Asked) -> dict[str, Any]:
    options: dict[str, Any] = {} if asked.temperature is None else {"temperature": asked.temperature}
    if asked.schema is not None:
        options["response_format"] = {
            "type": "json_schema",
            "json_schema": {"name": asked.name, "schema": asked.schema},
        }
    if asked.tools:
        options["tools"] = [
            {"type": "function", "function": {"name": t.name, "description": t.description, "parameters": t.input}}
            for t in asked.tools
        ]
    return {**options, **({"extra_body": asked.options} if asked.options else {})}


async def messages(asked: Asked, file: File) -> list[dict[str, Any]]:
    """Return the conversation as the protocol has it."""
    return [{"role": "system", "content": asked.instructions}, *[await _message(each, file) for each in asked.said]]


async def _message(said: Said, file: File) -> dict[str, Any]:
    if said.role == "tool":
        return {"role": "tool", "tool_call_id": said.call, "content": said.text}
    if said.role == "assistant":
        calls = [
            {"id": call.id, "type": "function", "function": {"name": call.name, "arguments": call.arguments}}
            for call in said.calls
        ]
        return {"role": "assistant", "content": said.text or None, **({"tool_calls": calls} if calls else {})}
    if not said.files:
        return {"role": "user", "content": said.text}
    return {
        "role": "user",
        "content": [{"type": "text", "text": said.text}, *[await _part(f, file) for f in said.files]],
    }


async def _part(given: Mapping[str, Any], file: File) -> dict[str, Any]:
    url = await file(given)
    if str(given.get("media_type", "image/")).startswith("image/"):
        return {"type": "image_url", "image_url": {"url": url}}
    return {"type": "file", "file": {"filename": given.get("name", "file"), "file_data": url}}


async def _heard(asked: Asked, stream: Any, hear: Hear, took: Took) -> Reply:
    """Take a streamed reply piece by piece; one that is too large, or breaks off, is none."""
    taking = _Taking(asked, hear)
    try:
        async with stream:
            async for chunk in stream:
                taking.take(chunk)
    finally:
        if taking.begun:  # what was said up to a break has to be paid
            took(*taking.tokens())
    if not taking.ended:
        hint = "" if taking.begun else "; where it does not stream, say `stream: false`"
        raise Unavailable(f"agent {asked.name!r}: the endpoint's stream ended before the reply did{hint}")
    return taking.answer()


class _Taking:
    """A reply that comes in pieces."""

    def __init__(self, asked: Asked, hear: Hear) -> None:
        self._asked = asked
        self._hear = hear
        self._text: list[str] = []
        self._calls: list[dict[str, str]] = []
        self._at: dict[int, dict[str, str]] = {}
        self._refusal: list[str] = []
        self._usage: Any = None
        self._size = 0
        self._withheld = False
        self.begun = self.ended = False

    def take(self, chunk: Any) -> None:
        self.begun = True
        self._usage = getattr(chunk, "usage", None) or self._usage
        self._count(".")  # one that says nothing, such as of what a model thinks, is something too
        for choice in chunk.choices or ():
            self.ended = self.ended or bool(choice.finish_reason)
            self._withheld = self._withheld or choice.finish_reason == "content_filter"
            delta = choice.delta
            if delta is None:
                continue
            if text := text_of(delta.content):
                self._count(text)
                self._text.append(text)
                self._hear(text)
            if refusal := getattr(delta, "refusal", None):
                self._count(refusal)
                self._refusal.append(refusal)
            for piece in delta.tool_calls or ():
                self._take_call(piece)

    def _take_call(self, piece: Any) -> None:
        call = self._at.get(piece.index or 0)
        named = piece.function is not None and piece.function.name
        if call is None or (named and piece.id and piece.id != call["id"]):  # some servers number every call 0
            call = self._at[piece.index or 0] = {"id": "", "name": "", "arguments": ""}
            self._calls.append(call)
            check_calls(self._asked.name, len(self._calls))
        if not call["id"]:
            self._count(piece.id or "")
            call["id"] = piece.id or ""
        if piece.function is not None:
            self._count(piece.function.name or "")
            self._count(piece.function.arguments or "")
            call["name"] += piece.function.name or ""
            call["arguments"] += piece.function.arguments or ""

    def _count(self, text: str) -> None:
        self._size += len(text)
        check_size(self._asked, self._size)

    def tokens(self) -> tuple[int, int]:
        length = sum(map(len, self._text)) + sum(len(call["arguments"]) for call in self._calls)
        return tokens(self._asked, self._usage, length)

    def answer(self) -> Reply:
        check_refusal(self._asked, "".join(self._refusal), withheld=self._withheld)
        return Reply("".join(self._text), [call_of(number, **call) for number, call in enumerate(self._calls)])


def _whole(asked: Asked, completion: Any, hear: Hear, took: Took) -> Reply:
    if not getattr(completion, "choices", None):
        raise InvalidReply(f"agent {asked.name!r}: the endpoint's answer has no choices")
    choice = completion.choices[0]
    message, withheld = choice.message, choice.finish_reason == "content_filter"
    text, calls = "", list[AskedFor]()
    try:
        text = text_of(message.content)
        for number, call in enumerate(message.tool_calls or ()):
            calls.append(call_of(number, call.id, call.function.name, call.function.arguments))
    finally:
        took(*tokens(asked, getattr(completion, "usage", None), length_of(text, calls)))
    check_refusal(asked, getattr(message, "refusal", None), withheld=withheld)
    check_reply(asked, text, calls)
    hear(text)
    return Reply(text, calls)
