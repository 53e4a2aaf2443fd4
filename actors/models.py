"""The models that agents ask: where each is reached, what it costs, and the ones that stand in for it."""

import logging
from collections.abc import Awaitable, Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import msgspec

from perdure.actors.memories import SessionLog
from perdure.actors.replies import AskedFor, InvalidReply, Reply
from perdure.actors.time_limits import Timeout, in_time
from perdure.actors.transcripts import Said
from perdure.actors.usage import Paid, Usage, unpaid
from perdure.definitions import agent_parts
from perdure.definitions.agent_parts import Agent
from perdure.definitions.json_values import clean_text
from perdure.errors import ModelUnavailable, PerdureError, SecretMissing


class Endpoint(msgspec.Struct, frozen=True):
    """Where models are reached. Without a base URL it is OpenAI's own; without a key, none is sent that counts.

    model: stands in for the one that an agent names.
    """

    base_url: str | None = None
    api_key: str | None = None
    model: str | None = None
    api: str = "chat"
    structured: str = "native"
    stream: bool = True


OPENAI = Endpoint()
_log = logging.getLogger("perdure.models")
_MOST_CALLS = 1000  # of one reply; each is answered in the next question, be it made or not


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
    """The endpoint refuses the request: credentials, model name, or content. of_schema: it takes no schemas."""

    def __init__(self, message: str, *, of_schema: bool = False) -> None:
        super().__init__(message)
        self.of_schema = of_schema


class ReplyTooLarge(InvalidReply):
    """A model's reply is larger than the setting `reply_bytes` allows; it was broken off there."""


class Offered(msgspec.Struct, frozen=True):
    """A tool as a model sees it."""

    name: str
    description: str
    input: dict[str, Any]


class Asked(msgspec.Struct, frozen=True):
    """One request to a model: all that goes into it, whichever API it is put by.

    name: the agent's. mends: the reply before broke the schema. most: bytes that the reply may have.
    """

    name: str
    model: str
    instructions: str
    said: list[Said]
    tools: list[Offered] = []
    schema: dict[str, Any] | None = None
    temperature: float | None = None
    options: dict[str, Any] = {}
    stream: bool = True
    mends: bool = False
    most: int = 1_000_000


Hear = Callable[[str], None]
"""Takes a piece of a reply's text as it comes."""


Took = Callable[[int, int], None]
"""Takes the tokens that an answer took and gave, be it of use or not."""


def unheard(_piece: str) -> None:
    """Take a piece that nobody listens to."""


def _as_it_is(value: Any) -> Any:
    return value


def _no_key(name: str) -> str:
    raise SecretMissing(f"there is no secret {name!r}: no secrets are given here")


async def _no_file(file: Mapping[str, Any]) -> str:
    if "url" in file:
        return str(file["url"])
    raise ModelUnavailable("files by reference need a store, and there is none here")


@dataclass(frozen=True)
class Models:
    """All that is needed to ask models: endpoints, keys, prices, what is remembered, and who listens.

    named: the endpoints of the settings. key: gives the value of a secret. file: gives the URL, or data URL, of a file.
    most: bytes of one reply. redact: takes secrets out of what is remembered.
    """

    default: Endpoint = OPENAI
    named: Mapping[str, agent_parts.Endpoint] = field(default_factory=dict)
    prices: Mapping[str, agent_parts.Price] = field(default_factory=dict)
    key: Callable[[str], str] = _no_key
    file: Callable[[Mapping[str, Any]], Awaitable[str]] = _no_file
    sessions: SessionLog | None = None
    redact: Callable[[Any], Any] = _as_it_is
    most: int = 1_000_000

    async def ask(
        self,
        own: Mapping[str, agent_parts.Endpoint],
        agent: Agent,
        asked: Asked,
        hear: Hear = unheard,
        paid: Paid = unpaid,
    ) -> Reply:
        """Return the reply of the first model that answers.

        own: the endpoints of the workflow. Each may take as long as the agent's `timeout`. paid: told what each took
        that answered, be it in vain.
        Raises RateLimited, Unavailable, Timeout, Refused, ReplyTooLarge or InvalidReply.
        """
        failed: list[PerdureError] = []
        heard = False

        def take(piece: str) -> None:
            nonlocal heard
            heard = True
            hear(_text(piece))

        for endpoint, model in self._candidates(own, agent):
            request = msgspec.structs.replace(asked, model=model, most=self.most)
            try:
                asking = self._put(endpoint, request, take, partial(self._pay, paid, model))
                reply = await in_time(asking, agent.timeout)
            except (_Busy, Timeout, Refused) as error:
                late = isinstance(error, Timeout)
                failed.append(Timeout(f"agent {asked.name!r}: model {model!r}: {error}") if late else error)
                if heard:
                    take("\n")  # another reply follows
            else:
                return _clean(asked.name, reply)
        raise _worst(failed)

    async def _put(self, endpoint: Endpoint, asked: Asked, hear: Hear, took: Took) -> Reply:
        """Put a request to an endpoint; one that takes no schema, contrary to what is said of it, is asked in words."""
        from perdure.actors import chat, responses

        put = responses.put if endpoint.api == "responses" else chat.put
        try:
            return await put(endpoint, _for(endpoint, asked), self.file, hear, took)
        except Refused as error:
            if not error.of_schema or asked.schema is None or endpoint.structured != "native":
                raise
            _log.warning("%s; it is asked in words, and at once where its `structured` is `prompted`", error)
        prompted = msgspec.structs.replace(endpoint, structured="prompted")
        return await put(prompted, _for(prompted, asked), self.file, hear, took)

    def _candidates(self, own: Mapping[str, agent_parts.Endpoint], agent: Agent) -> Iterator[tuple[Endpoint, str]]:
        wanted = [
            (agent.endpoint, agent.model),
            *((each.endpoint or agent.endpoint, each.model) for each in agent.fallback),
        ]
        found = ((self._endpoint(own, name), self.default.model or model) for name, model in wanted)
        yield from dict.fromkeys(found)

    def _endpoint(self, own: Mapping[str, agent_parts.Endpoint], name: str | None) -> Endpoint:
        if name is None:
            return self.default
        given = own.get(name) or self.named.get(name)
        if given is None:
            raise ModelUnavailable(f"there is no endpoint {name!r}: name it under 'endpoints', or in that setting")
        key = self.key(given.secret) if given.secret is not None else None
        return Endpoint(given.base_url, key, None, given.api, given.structured, given.stream)

    def _pay(self, paid: Paid, model: str, taken: int, given: int) -> None:
        usage: Usage = {"model": model, "input": taken, "output": given}
        if (price := self.prices.get(model)) is not None:
            usage["cost"] = round((taken * price.input + given * price.output) / 1e6, 9)
        paid(usage)


def check_calls(name: str, many: int) -> None:
    """Raise ReplyTooLarge where a reply of an agent asks for more calls than it may."""
    if many > _MOST_CALLS:
        raise ReplyTooLarge(f"agent {name!r}: the reply asks for more than {_MOST_CALLS} calls")


def _clean(name: str, reply: Reply) -> Reply:
    """Return a reply without what no UTF-8 can hold; raise InvalidReply where something else stands for its text."""
    try:
        reply = msgspec.convert(msgspec.to_builtins(reply), Reply)
    except (msgspec.ValidationError, TypeError, RecursionError) as error:
        raise InvalidReply(f"agent {name!r}: the endpoint's answer cannot be read: {error}") from None
    check_calls(name, len(reply.calls))
    calls = [AskedFor(_text(each.id), _text(each.name), _text(each.arguments)) for each in reply.calls]
    return Reply(_text(reply.text), calls)


def _text(text: str) -> str:
    return clean_text(text, len(text))


def _for(endpoint: Endpoint, asked: Asked) -> Asked:
    """Return the request as an endpoint takes it: one that knows no schemas is asked for JSON in words.

    So is one whose reply broke its schema: there are servers that take a schema and do not look at it.
    """
    asked = msgspec.structs.replace(asked, stream=asked.stream and endpoint.stream)
    native = endpoint.structured == "native"
    if asked.schema is None or (native and not asked.mends):
        return asked
    schema = msgspec.json.encode(asked.schema).decode()
    told = f"{asked.instructions}\n\nReply with nothing but JSON that fits this JSON Schema:\n{schema}"
    return msgspec.structs.replace(asked, instructions=told, schema=asked.schema if native else None)


def _worst(failed: list[PerdureError]) -> PerdureError:
    """Return the error of a request that no model answered: one after which another try may help, if there is one."""
    again = sorted((error for error in failed if not isinstance(error, Refused)), key=lambda e: isinstance(e, Timeout))
    if len(failed) == 1 or not again:
        return failed[0]
    told = "; ".join(map(str, failed))
    if not isinstance(again[0], _Busy):
        return Timeout(told)
    soonest = min(getattr(error, "retry_after", None) or 0.0 for error in again) or None
    return type(again[0])(told, soonest)
