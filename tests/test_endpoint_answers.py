"""What other servers than OpenAI's answer, good and bad: a reply that can be recorded, or a typed error."""

import copy
import json
import random
from collections.abc import AsyncIterator, Iterator
from typing import Any

import msgspec
import pytest
from paid import reply_and_usage
from web_server import WebServer, web_server

from perdure.actors.models import Asked, Endpoint, Models, Offered, ReplyTooLarge, Unavailable
from perdure.actors.replies import AskedFor, InvalidReply, Reply
from perdure.actors.transcripts import Said
from perdure.definitions.agent_parts import Agent
from perdure.model_answers import answered
from perdure.testing import Reply as Scripted

AGENT = Agent(model="m", instructions="Help.")
ASKED = Asked("helper", "", "Help.", [Said("user", "hello")], tools=[Offered("look", "", {"type": "object"})])
PATHS = {"chat": "/v1/chat/completions", "responses": "/v1/responses"}
JSON, EVENTS = {"content-type": "application/json"}, {"content-type": "text/event-stream"}
ODD: list[Any] = [None, 5, -1, 1.5, "x", "", True, [], {}, [None], [5], {"a": 1}, ["x"], 10**30, "\ud800"]


@pytest.fixture
async def web() -> AsyncIterator[WebServer]:
    async with web_server() as server:
        yield server


async def ask(web: WebServer, api: str = "chat", stream: bool = True, **parts: Any) -> tuple[Reply, dict[str, Any]]:
    models = Models(Endpoint(web.url("/v1"), "k", api=api, stream=stream), **parts)
    return await reply_and_usage(models, {}, AGENT, ASKED)


def chunk(delta: dict[str, Any], **more: Any) -> str:
    choice = {"index": 0, "delta": delta, "finish_reason": None}
    whole = {"id": "1", "object": "chat.completion.chunk", "created": 0, "model": "m", "choices": [choice | more]}
    return f"data: {json.dumps(whole)}\n\n"


def called(identity: str | None, name: str | None, arguments: str, **more: Any) -> str:
    call = {"id": identity, "type": "function", "function": {"name": name, "arguments": arguments}, **more}
    return chunk({"tool_calls": [call]})


@pytest.mark.parametrize("index", [{"index": 0}, {}], ids=["all of them 0", "not at all"])
async def test_calls_that_a_server_does_not_number_stay_apart(web: WebServer, index: dict[str, int]) -> None:
    pieces = [
        called("a", "look", '{"x"', **index), called(None, None, ": 1}", **index),
        called("b", "look", '{"x": 2}', **index), chunk({}, finish_reason="tool_calls"),
    ]  # fmt: skip
    web.answers[PATHS["chat"]] = (200, EVENTS, "".join(pieces).encode())
    reply, _ = await ask(web)
    assert reply.calls == [AskedFor("a", "look", '{"x": 1}'), AskedFor("b", "look", '{"x": 2}')]


async def test_a_call_whose_pieces_have_ids_of_their_own_is_one(web: WebServer) -> None:
    pieces = [called("a", "look", '{"x"', index=0), called("b", None, ": 1}", index=0), chunk({}, finish_reason="stop")]
    web.answers[PATHS["chat"]] = (200, EVENTS, "".join(pieces).encode())
    assert (await ask(web))[0].calls == [AskedFor("a", "look", '{"x": 1}')]


def many(count: int, piece: str) -> bytes:
    return (piece * count).encode()


@pytest.mark.parametrize(
    ("api", "stream", "answer"),
    [
        ("chat", True, called("i" * 2000, "look", "{}", index=0).encode()),
        ("chat", True, many(1001, chunk({"reasoning_content": "hm"}))),
        ("chat", False, b'{"choices": [{"message": {"tool_calls": [{"id": "%s", "function": {"name": "look"}}]}}]}'),
        ("responses", False, b'{"output": [{"type": "function_call", "call_id": "%s", "name": "look"}]}'),
        ("responses", False, b'{"output": [{"type": "function_call", "call_id": "c", "name": "%s"}]}'),
        ("responses", True, many(1001, 'data: {"type": "response.reasoning.delta", "delta": "hm"}\n\n')),
    ],
    ids=["long id", "endless thoughts", "long id, whole", "long call id", "long name", "endless events"],
)
async def test_nothing_of_a_reply_may_be_larger_than_the_whole(
    web: WebServer, api: str, stream: bool, answer: bytes
) -> None:
    answer = answer.replace(b"%s", b"i" * 2000)
    web.answers[PATHS[api]] = (200, EVENTS if stream else JSON, answer)
    with pytest.raises(ReplyTooLarge, match="more than 1000 characters"):
        await ask(web, api, stream, most=1000)


async def test_arguments_that_come_as_an_object_and_a_call_without_an_id_are_taken(web: WebServer) -> None:
    message = {"role": "assistant", "tool_calls": [{"function": {"name": "look", "arguments": {"x": 1}}}]}
    web.answers[PATHS["chat"]] = (200, JSON, json.dumps({"choices": [{"message": message}]}).encode())
    reply, usage = await ask(web, stream=False)
    assert reply.calls == [AskedFor("call_0", "look", '{"x": 1}')]
    assert usage["input"] > 0, "tokens that the endpoint does not count are guessed"


@pytest.mark.parametrize("count", [-5, 1.5, [1], 10**30])
async def test_what_is_no_count_of_tokens_is_not_added_to_a_budget(web: WebServer, count: Any) -> None:
    usage = {"prompt_tokens": count, "completion_tokens": 3, "total_tokens": 4}
    answer = {"choices": [{"message": {"role": "assistant", "content": "Hi."}}], "usage": usage}
    web.answers[PATHS["chat"]] = (200, JSON, json.dumps(answer).encode())
    _, used = await ask(web, stream=False)
    assert used == {"model": "m", "input": 3, "output": 3}, "3 is about what 'Help.' and 'hello' are"


@pytest.mark.parametrize(("api", "stream"), [(api, stream) for api in PATHS for stream in (True, False)])
async def test_whatever_an_endpoint_answers_is_a_reply_that_can_be_recorded_or_a_typed_error(
    web: WebServer, api: str, stream: bool
) -> None:
    rng, replies, errors = random.Random(f"{api} {stream}"), 0, 0
    for _ in range(120):
        web.answers[PATHS[api]] = _bent(rng, api, stream)
        try:
            reply, usage = await ask(web, api, stream)
        except (InvalidReply, Unavailable):
            errors += 1
            continue
        replies += 1
        msgspec.json.encode([msgspec.to_builtins(reply), usage])
        assert all(type(each) is str for call in reply.calls for each in (reply.text, call.id, call.name)), reply
        assert all(type(usage[each]) is int and usage[each] >= 0 for each in ("input", "output")), usage
    assert min(replies, errors) > 10, "what is answered is bent too much, or too little"


def _bent(rng: random.Random, api: str, stream: bool) -> tuple[int, dict[str, str], bytes]:
    """Return a good answer with something odd in one place of it."""
    given = Scripted("Hello there", calls=[{"look": {"x": 1}}, {"look": {"x": 2}}])
    data = answered(PATHS[api], {"stream": stream}, given, "said", 1).data.decode()
    if not stream:
        return 200, JSON, json.dumps(_odd(rng, json.loads(data))).encode()
    events = [each for each in data.split("\n\n") if each]
    place = rng.randrange(len(events))
    head, _, told = events[place].rpartition("data: ")
    if told != "[DONE]":
        events[place] = f"{head}data: {json.dumps(_odd(rng, json.loads(told)))}"
    return 200, EVENTS, ("\n\n".join(events) + "\n\n").encode()


def _odd(rng: random.Random, value: Any) -> Any:
    *path, last = rng.choice([each for each in _paths(value) if each])
    made = inner = copy.deepcopy(value)
    for key in path:
        inner = inner[key]
    if rng.random() < 0.1:
        del inner[last]
    else:
        inner[last] = rng.choice(ODD)
    return made


def _paths(value: Any, at: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    yield at
    for key, each in value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ():
        yield from _paths(each, (*at, key))
