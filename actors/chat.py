"""The chat-completions protocol: a request becomes its messages, and its answer, streamed or whole, a reply."""

import asyncio
import json
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from importlib import import_module
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

from perdure.actors import retry_after
from perdure.actors.models import Asked, Endpoint, Hear, RateLimited, Refused, ReplyTooLarge, Unavailable, check_calls
from perdure.actors.replies import AskedFor, InvalidReply, Reply
from perdure.actors.transcripts import Said

if TYPE_CHECKING:
    from openai import APIError, AsyncOpenAI

File = Callable[[Mapping[str, Any]], Awaitable[str]]
Answer = tuple[Reply, tuple[int, int]]
"""A reply, and the tokens that it took and gave."""

_MOST_TOKENS = 10**9  # of one request; more is no count


async def put(endpoint: Endpoint, asked: Asked, file: File, hear: Hear) -> Answer:
    """Ask by chat completions. Raises RateLimited, Unavailable, Refused, ReplyTooLarge or InvalidReply."""
    body = {"model": asked.model, "messages": await messages(asked, file), **_options(asked)}
    if asked.stream:
        body |= {"stream": True, "stream_options": {"include_usage": True}}
    async with telling(asked.name):
        answer = await client_of(endpoint).chat.completions.create(**body)
        if asked.stream:
            return await _heard(asked, answer, hear)
        return _whole(asked, answer, hear)


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


async def _heard(asked: Asked, stream: Any, hear: Hear) -> Answer:
    """Take a streamed reply piece by piece; one that is too large, or breaks off, is none."""
    taking = _Taking(asked, hear)
    async with stream:
        async for chunk in stream:
            taking.take(chunk)
    if not taking.ended:
        raise Unavailable(f"agent {asked.name!r}: the endpoint's stream ended before the reply did")
    return taking.answer()


class _Taking:
    """A reply that comes in pieces."""

    def __init__(self, asked: Asked, hear: Hear) -> None:
        self._asked = asked
        self._hear = hear
        self._text: list[str] = []
        self._calls: list[dict[str, str]] = []
        self._at: dict[int, dict[str, str]] = {}
        self._usage: Any = None
        self._size = 0
        self.ended = False

    def take(self, chunk: Any) -> None:
        self._usage = getattr(chunk, "usage", None) or self._usage
        self._count(".")  # one that says nothing, such as of what a model thinks, is something too
        for choice in chunk.choices or ():
            self.ended = self.ended or bool(choice.finish_reason)
            delta = choice.delta
            if delta is None:
                continue
            if delta.content:
                self._count(delta.content)
                self._text.append(delta.content)
                self._hear(delta.content)
            for piece in delta.tool_calls or ():
                self._take_call(piece)

    def _take_call(self, piece: Any) -> None:
        call = self._at.get(piece.index or 0)
        named = piece.function is not None and piece.function.name
        if call is None or (named and piece.id and piece.id != call["id"]):  # Ollama numbers every call 0
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

    def answer(self) -> Answer:
        text = "".join(self._text)
        calls = [_call(number, **call) for number, call in enumerate(self._calls)]
        return Reply(text, calls), tokens(self._asked, self._usage, text, calls)


def _whole(asked: Asked, completion: Any, hear: Hear) -> Answer:
    if not getattr(completion, "choices", None):
        raise InvalidReply(f"agent {asked.name!r}: the endpoint's answer has no choices")
    message = completion.choices[0].message
    text = message.content or ""
    calls = [
        _call(number, call.id, call.function.name, call.function.arguments)
        for number, call in enumerate(message.tool_calls or ())
    ]
    check_reply(asked, text, calls)
    hear(text)
    return Reply(text, calls), tokens(asked, completion.usage, text, calls)


def _call(number: int, id: str | None, name: str, arguments: Any) -> AskedFor:  # noqa: A002 (the protocol's word)
    if isinstance(arguments, dict):  # some servers give them as they are
        arguments = json.dumps(arguments)
    return AskedFor(id or f"call_{number}", name, arguments or "{}")


def check_reply(asked: Asked, text: str, calls: list[AskedFor]) -> None:
    """Raise ReplyTooLarge for a whole reply, as `check_size` does."""
    check_size(asked, len(text) + sum(len(call.id) + len(call.name) + len(call.arguments) for call in calls))


def check_size(asked: Asked, size: int) -> None:
    """Raise ReplyTooLarge where a reply has more characters than it may have."""
    if size > asked.most:
        raise ReplyTooLarge(
            f"agent {asked.name!r}: the reply has more than {asked.most} characters, the setting 'reply_bytes'"
        )


def tokens(asked: Asked, usage: Any, text: str, calls: list[AskedFor]) -> tuple[int, int]:
    """Return the tokens in and out, as the endpoint counts them, or else about so many."""
    asked_for = len(asked.instructions) + sum(map(_length, asked.said))
    replied = len(text) + sum(len(call.arguments) for call in calls)
    taken = _counted(usage, "prompt_tokens", "input_tokens")
    given = _counted(usage, "completion_tokens", "output_tokens")
    return about(asked_for) if taken is None else taken, about(replied) if given is None else given


def _counted(usage: Any, *names: str) -> int | None:
    """Return what an endpoint says that it counted; None where that is no count."""
    found = next((each for name in names if (each := getattr(usage, name, None)) is not None), None)
    return found if type(found) is int and 0 <= found <= _MOST_TOKENS else None


def _length(said: Said) -> int:
    return len(said.text) + sum(len(call.arguments) for call in said.calls)


def about(characters: int) -> int:
    """Return about how many tokens so many characters are."""
    return -(-characters // 4)


_CLIENT = ("openai", "openai.resources.chat.completions", "openai.resources.responses")


@asynccontextmanager
async def telling(name: str) -> AsyncIterator[None]:
    """Turn what the client raises into errors that say whether another try may help."""
    for module in _CLIENT:  # they take seconds to load, and each other execution would wait for it
        if module not in sys.modules:
            await asyncio.to_thread(import_module, module)
    import openai

    try:
        yield
    except openai.RateLimitError as error:
        raise RateLimited(f"agent {name!r}: {error.message}", _waits(error)) from error
    except (openai.APIConnectionError, openai.InternalServerError) as error:
        raise Unavailable(f"agent {name!r}: {error.message}", _waits(error)) from error
    except openai.APIStatusError as error:
        raise Refused(f"agent {name!r}: {error}") from error
    except openai.APIError as error:  # told within a stream
        raise Unavailable(f"agent {name!r}: {error.message}") from error
    except (openai.OpenAIError, UnicodeEncodeError) as error:  # headers are ASCII, and so are keys
        raise Refused(f"agent {name!r}: {error}") from error
    except (
        ValueError,
        AttributeError,
        TypeError,
        LookupError,
    ) as error:  # the client builds models of what it cannot read
        raise InvalidReply(f"agent {name!r}: the endpoint's answer cannot be read: {error}") from error


def _waits(error: "APIError") -> float | None:
    response = getattr(error, "response", None)  # a connection that failed has none
    return None if response is None else retry_after.seconds_in(response.headers, datetime.now(UTC))


_clients: WeakKeyDictionary[asyncio.AbstractEventLoop, dict[tuple[str | None, str | None], Any]] = WeakKeyDictionary()


def client_of(endpoint: Endpoint) -> "AsyncOpenAI":
    """Return the client of an endpoint: one for each event loop, for its connections belong to the loop."""
    clients = _clients.setdefault(asyncio.get_running_loop(), {})
    about = endpoint.base_url, endpoint.api_key
    if about not in clients:
        from openai import AsyncOpenAI

        clients[about] = AsyncOpenAI(base_url=endpoint.base_url, api_key=endpoint.api_key or "none", max_retries=0)
    client: AsyncOpenAI = clients[about]
    return client
