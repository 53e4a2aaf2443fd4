"""The Responses API: a request becomes its items, and its answer, streamed or whole, a reply."""

from collections.abc import Mapping
from typing import Any

from perdure.actors.models import Asked, Endpoint, Hear, Took, Unavailable, unheard
from perdure.actors.openai_client import client_of, telling
from perdure.actors.replied import (
    File,
    call_of,
    check_refusal,
    check_reply,
    check_size,
    failed,
    length_of,
    text_of,
    tokens,
)
from perdure.actors.replies import AskedFor, InvalidReply, Reply
from perdure.actors.transcripts import Said

_DELTAS = ("response.output_text.delta", "response.function_call_arguments.delta")


async def put(endpoint: Endpoint, asked: Asked, file: File, hear: Hear, took: Took) -> Reply:
    """Ask by the Responses API. Raises RateLimited, Unavailable, Refused, ReplyTooLarge or InvalidReply."""
    body: dict[str, Any] = {"model": asked.model, "instructions": asked.instructions, "store": False}
    body |= {"input": await _items(asked, file), **_options(asked), "stream": asked.stream}
    async with telling(asked.name):
        answer: Any = await client_of(endpoint).responses.create(**body)
        if asked.stream:
            answer = await _ended(asked, answer, hear, took)
        return _reply(asked, answer, unheard if asked.stream else hear, took)  # what streams was heard already


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


async def _ended(asked: Asked, stream: Any, hear: Hear, took: Took) -> Any:
    """Listen to a streamed response up to its end, and return it whole."""
    said, number, response = 0, 0, None
    try:
        async with stream:
            async for event in stream:
                number += 1
                if event.type in _DELTAS:
                    said += len(event.delta)
                check_size(asked, number + said)
                if event.type == "response.output_text.delta":
                    hear(event.delta)
                elif event.type in ("response.completed", "response.incomplete"):
                    response = event.response
                    return response
                elif event.type == "response.failed":
                    raise failed(asked, event.response.error)
                elif event.type == "error":
                    raise failed(asked, event)
    finally:
        if said and response is None:  # what was said up to a break has to be paid
            took(*tokens(asked, None, said))
    raise Unavailable(f"agent {asked.name!r}: the endpoint's stream ended before the reply did")


def _reply(asked: Asked, response: Any, hear: Hear, took: Took) -> Reply:
    if getattr(response, "status", None) == "failed":
        raise failed(asked, getattr(response, "error", None))
    if getattr(response, "output", None) is None:
        raise InvalidReply(f"agent {asked.name!r}: the endpoint's answer has no output")
    text, refusal, calls = "", "", list[AskedFor]()
    try:
        for item in response.output:
            if item.type == "message":
                text += "".join(text_of(part.text) for part in item.content if part.type == "output_text")
                refusal += "".join(part.refusal for part in item.content if part.type == "refusal")
            elif item.type == "function_call":
                calls.append(call_of(len(calls), getattr(item, "call_id", None), item.name, item.arguments))
    finally:
        took(*tokens(asked, getattr(response, "usage", None), length_of(text, calls)))
    cut = getattr(response, "incomplete_details", None)
    check_refusal(asked, refusal, withheld=getattr(cut, "reason", None) == "content_filter")
    check_reply(asked, text, calls)
    hear(text)
    return Reply(text, calls)
