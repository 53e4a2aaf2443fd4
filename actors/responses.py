"""The Responses API: a request becomes its items, and its answer, streamed or whole, a reply."""

from collections.abc import Mapping
from typing import Any

from perdure.actors.models import Asked, Endpoint, Hear, Unavailable
from perdure.actors.openai_client import client_of, telling
from perdure.actors.replied import (
    Answer,
    File,
    call_of,
    check_refusal,
    check_reply,
    check_size,
    failed,
    text_of,
    tokens,
)
from perdure.actors.replies import AskedFor, InvalidReply, Reply
from perdure.actors.transcripts import Said


async def put(endpoint: Endpoint, asked: Asked, file: File, hear: Hear) -> Answer:
    """Ask by the Responses API. Raises RateLimited, Unavailable, Refused, ReplyTooLarge or InvalidReply."""
    body: dict[str, Any] = {"model": asked.model, "instructions": asked.instructions, "store": False}
    body |= {"input": await _items(asked, file), **_options(asked), "stream": asked.stream}
    async with telling(asked.name):
        answer: Any = await client_of(endpoint).responses.create(**body)
        if asked.stream:
            answer = await _ended(asked, answer, hear)
        return _reply(asked, answer, _silent if asked.stream else hear)


def _silent(_piece: str) -> None:
    """Say nothing of what was heard already."""


def _options(asked: Asked) -> dict[str, Any]:
    options: dict[str, Any] = {} if asked.temperature is None else {"temperature": asked.temperature}
    if asked.schema is not None:
        form = {"type": "json_schema", "name": asked.name, "schema": asked.schema, "strict": False}
        options["text"] = {"format": form}
    if asked.tools:
        options["tools"] = [
            {"type": "function", "name": t.name, "description": t.description, "parameters": t.input, "strict": False}
            for t in asked.tools
        ]
    return {**options, **({"extra_body": asked.options} if asked.options else {})}


async def _items(asked: Asked, file: File) -> list[dict[str, Any]]:
    return [item for each in asked.said for item in await _said(each, file)]


async def _said(said: Said, file: File) -> list[dict[str, Any]]:
    if said.role == "tool":
        return [{"type": "function_call_output", "call_id": said.call, "output": said.text}]
    if said.role == "assistant":
        calls = [
            {"type": "function_call", "call_id": call.id, "name": call.name, "arguments": call.arguments}
            for call in said.calls
        ]
        return [*([_spoken(said.text)] if said.text else []), *calls]
    parts = [{"type": "input_text", "text": said.text}, *[await _part(each, file) for each in said.files]]
    return [{"role": "user", "content": parts if said.files else said.text}]


def _spoken(text: str) -> dict[str, Any]:
    """Return what the model said as an item that is told in full: llama.cpp's server does not take less."""
    content = [{"type": "output_text", "text": text, "annotations": []}]
    return {"type": "message", "role": "assistant", "status": "completed", "content": content}


async def _part(given: Mapping[str, Any], file: File) -> dict[str, Any]:
    url = await file(given)
    if str(given.get("media_type", "image/")).startswith("image/"):
        return {"type": "input_image", "image_url": url}
    if "url" in given:
        return {"type": "input_file", "file_url": url}
    return {"type": "input_file", "filename": given.get("name", "file"), "file_data": url}


async def _ended(asked: Asked, stream: Any, hear: Hear) -> Any:
    """Listen to a streamed response up to its end, and return it whole."""
    size = 0
    async with stream:
        async for event in stream:
            size += 1
            check_size(asked, size)
            if event.type in ("response.output_text.delta", "response.function_call_arguments.delta"):
                size += len(event.delta)
                check_size(asked, size)
                if event.type == "response.output_text.delta":
                    hear(event.delta)
            elif event.type in ("response.completed", "response.incomplete"):
                return event.response
            elif event.type == "response.failed":
                raise failed(asked, event.response.error)
            elif event.type == "error":
                raise failed(asked, event)
    raise Unavailable(f"agent {asked.name!r}: the endpoint's stream ended before the reply did")


def _reply(asked: Asked, response: Any, hear: Hear) -> Answer:
    if getattr(response, "status", None) == "failed":
        raise failed(asked, getattr(response, "error", None))
    if getattr(response, "output", None) is None:
        raise InvalidReply(f"agent {asked.name!r}: the endpoint's answer has no output")
    texts, calls = [], list[AskedFor]()
    for item in response.output:
        if item.type == "message":
            texts += [text_of(part.text) for part in item.content if part.type == "output_text"]
            check_refusal(asked, "".join(part.refusal for part in item.content if part.type == "refusal"))
        elif item.type == "function_call":
            calls.append(call_of(len(calls), getattr(item, "call_id", None), item.name, item.arguments))
    text, cut = "".join(texts), getattr(response, "incomplete_details", None)
    check_refusal(asked, None, withheld=getattr(cut, "reason", None) == "content_filter")
    check_reply(asked, text, calls)
    hear(text)
    return Reply(text, calls), tokens(asked, getattr(response, "usage", None), text, calls)
