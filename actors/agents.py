"""Agents: one question to a language model through any OpenAI-compatible endpoint."""

import asyncio
import json
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

import msgspec

from perdure.actors import retry_after
from perdure.definitions.data_words import misfits
from perdure.definitions.parts import Agent
from perdure.errors import PerdureError

if TYPE_CHECKING:
    from openai import APIError, AsyncOpenAI
    from openai.types.chat import ChatCompletionMessageParam


class Endpoint(msgspec.Struct, frozen=True):
    """Where models are reached. Without a base URL it is OpenAI's own; without a key, none is sent that counts."""

    base_url: str | None = None
    api_key: str | None = None
    model: str | None = None


class _Busy(PerdureError):
    """The endpoint may answer later. retry_after: the seconds that it asks to wait."""

    def __init__(self, message: str, retry_after: float | None = None) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class RateLimited(_Busy):
    """The endpoint asks to slow down."""


class Unavailable(_Busy):
    """The endpoint cannot be reached, or is failing."""


class Refused(PerdureError):
    """The endpoint refuses the request: credentials, model name, or content."""


class InvalidReply(PerdureError):
    """The model's reply is not what the agent's output schema asks for."""


async def ask(endpoint: Endpoint, name: str, agent: Agent, question: dict[str, Any]) -> Any:
    """Return the agent's reply: parsed and checked JSON where it has an output schema, otherwise text.

    Raises RateLimited, Unavailable, Refused or InvalidReply; retries are the workflow's affair, not the client's.
    """
    import openai

    options: dict[str, Any] = {} if agent.temperature is None else {"temperature": agent.temperature}
    if agent.output is not None:
        options["response_format"] = {
            "type": "json_schema",
            "json_schema": {"name": name, "schema": agent.output},
        }
    try:
        completion = await _client(endpoint).chat.completions.create(
            model=endpoint.model or agent.model, messages=messages(agent, question), **options
        )
    except openai.RateLimitError as error:
        raise RateLimited(f"agent {name!r}: {error.message}", _retry_after(error)) from error
    except (openai.APIConnectionError, openai.InternalServerError) as error:
        raise Unavailable(f"agent {name!r}: {error.message}", _retry_after(error)) from error
    except (openai.OpenAIError, UnicodeError) as error:  # headers are ASCII, and so are keys
        raise Refused(f"agent {name!r}: {error}") from error
    except ValueError as error:
        raise InvalidReply(f"agent {name!r}: the endpoint's answer cannot be read: {error}") from error
    if not completion.choices:
        raise InvalidReply(f"agent {name!r}: the endpoint's answer has no choices")
    text = completion.choices[0].message.content or ""
    return text if agent.output is None else checked(name, text, agent.output)


def _retry_after(error: "APIError") -> float | None:
    response = getattr(error, "response", None)  # a connection that failed has none
    return None if response is None else retry_after.seconds_in(response.headers, datetime.now(UTC))


def messages(agent: Agent, question: dict[str, Any]) -> "list[ChatCompletionMessageParam]":
    """Return the conversation: the instructions, then `message` as it is and the rest of the input as JSON."""
    rest = {key: value for key, value in question.items() if key != "message"}
    parts = [str(question["message"])] if "message" in question else []
    parts += [json.dumps(rest, ensure_ascii=False)] if rest else []
    return [
        {"role": "system", "content": agent.instructions},
        {"role": "user", "content": "\n\n".join(parts)},
    ]


def checked(name: str, text: str, schema: dict[str, Any]) -> Any:
    """Return the JSON data in a reply; raise InvalidReply when it is none, or not as the schema says."""
    try:
        value = json.loads(text)
    except json.JSONDecodeError as error:
        raise InvalidReply(f"agent {name!r} replied with text that is not JSON ({error}): {text[:200]!r}") from None
    if problems := misfits(schema, value, "reply"):
        raise InvalidReply(f"agent {name!r}: the reply breaks its output schema: {'; '.join(problems)}")
    return value


_clients: WeakKeyDictionary[asyncio.AbstractEventLoop, dict[Endpoint, Any]] = WeakKeyDictionary()


def _client(endpoint: Endpoint) -> "AsyncOpenAI":
    # One for each event loop: its connections belong to the loop that they were opened on.
    clients = _clients.setdefault(asyncio.get_running_loop(), {})
    if endpoint not in clients:
        from openai import AsyncOpenAI

        clients[endpoint] = AsyncOpenAI(base_url=endpoint.base_url, api_key=endpoint.api_key or "none", max_retries=0)
    client: AsyncOpenAI = clients[endpoint]
    return client
