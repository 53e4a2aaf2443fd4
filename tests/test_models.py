"""Models behind a real HTTP server: both protocols, streamed and whole, faults, fallbacks, prices, files."""

from collections.abc import Iterator
from typing import Any

import pytest
from paid import reply_and_usage

from perdure.actors.models import Asked, Endpoint, Models, Offered, RateLimited, Refused, ReplyTooLarge, Unavailable
from perdure.actors.replies import AskedFor, InvalidReply
from perdure.actors.replies import Reply as Said_Reply
from perdure.actors.time_limits import Timeout
from perdure.actors.transcripts import Said
from perdure.definitions import agent_parts
from perdure.definitions.agent_parts import Agent, Price
from perdure.errors import ModelUnavailable
from perdure.testing import Model, Reply

AGENT = Agent(model="m-1", instructions="Help.")
LOOK = Offered("look", "Look it up.", {"type": "object", "properties": {"x": {"type": "integer"}}})
TALK = [
    Said("user", "Where is it?"),
    Said("assistant", "", [AskedFor("c1", "look", '{"x": 1}')]),
    Said("tool", "on its way", call="c1"),
    Said("assistant", "It is on its way."),
    Said("user", "And now?"),
]
WAYS = pytest.mark.parametrize(
    ("api", "stream"), [("chat", True), ("chat", False), ("responses", True), ("responses", False)]
)


def asked(said: list[Said] | None = None, **parts: Any) -> Asked:
    return Asked("helper", "", AGENT.instructions, said or [Said("user", "hello")], **parts)


def models(model: Model, api: str = "chat", stream: bool = True, **parts: Any) -> Models:
    return Models(Endpoint(model.base_url, "k-1", api=api, stream=stream), **parts)


@WAYS
async def test_text_comes_piece_by_piece_and_is_counted_and_priced(api: str, stream: bool) -> None:
    heard: list[str] = []
    with Model([Reply("A long reply, of several pieces, to be heard.", usage=(1000, 500))]) as model:
        prices = {"m-1": Price(input=2, output=8)}
        reply, usage = await reply_and_usage(
            models(model, api, stream, prices=prices), {}, AGENT, asked(), heard.append
        )
    assert reply == Said_Reply("A long reply, of several pieces, to be heard.")
    assert "".join(heard) == reply.text
    assert (len(heard) > 1) is stream
    assert usage == {"model": "m-1", "input": 1000, "output": 500, "cost": 0.006}


@WAYS
async def test_calls_are_asked_for_and_their_results_are_told(api: str, stream: bool) -> None:
    with Model([Reply("Wait.", calls=[{"look": {"x": 1}}, {"look": "no JSON"}])]) as model:
        reply = await models(model, api, stream).ask({}, AGENT, asked(TALK, tools=[LOOK]))
        sent = model.requests[0]
    assert reply.text == "Wait."
    assert [(call.name, call.arguments) for call in reply.calls] == [("look", '{"x": 1}'), ("look", "no JSON")]
    if api == "chat":
        assert [each["role"] for each in sent["messages"]] == [
            "system",
            "user",
            "assistant",
            "tool",
            "assistant",
            "user",
        ]
        assert sent["messages"][3] == {"role": "tool", "tool_call_id": "c1", "content": "on its way"}
        assert sent["tools"][0]["function"]["parameters"] == LOOK.input
    else:
        assert [each.get("type", each.get("role")) for each in sent["input"]] == [
            "user", "function_call", "function_call_output", "message", "user",
        ]  # fmt: skip
        assert sent["input"][3]["content"][0]["type"] == "output_text"  # llama.cpp's server takes nothing shorter
        assert (sent["instructions"], sent["store"], sent["tools"][0]["name"]) == ("Help.", False, "look")


@WAYS
@pytest.mark.parametrize(
    ("reply", "error"),
    [
        (Reply("slow down", status=429, headers={"Retry-After": "7"}), RateLimited),
        (Reply("broken", status=503), Unavailable),
        (Reply("no such model", status=404), Refused),
        (Reply("x" * 200, fault="truncated"), Unavailable),
        (Reply("x", fault="malformed"), InvalidReply),
        (Reply("x" * 2000), ReplyTooLarge),
        (Reply(calls=[{"look": {"x": "y" * 2000}}]), ReplyTooLarge),
    ],
    ids=["429", "503", "404", "truncated", "malformed", "large", "large call"],
)
async def test_what_goes_wrong_is_a_typed_error(api: str, stream: bool, reply: Reply, error: type[Exception]) -> None:
    with Model([reply]) as model, pytest.raises(error) as caught:
        await models(model, api, stream, most=1000).ask({}, AGENT, asked(tools=[LOOK]))
    assert type(caught.value) is error
    assert getattr(caught.value, "retry_after", None) == (7 if error is RateLimited else None)


@WAYS
async def test_a_schema_goes_to_the_endpoint_or_into_the_instructions(api: str, stream: bool) -> None:
    schema = {"type": "object", "properties": {"n": {"type": "integer"}}}
    with Model([Reply({"n": 1})]) as model:
        for structured in ("native", "prompted"):
            at = Endpoint(model.base_url, None, None, api, structured, stream)
            await Models(at).ask({}, AGENT, asked(schema=schema))
        native, prompted = model.requests
    assert ("response_format" in native or "text" in native) is True
    assert "response_format" not in prompted
    assert "text" not in prompted
    assert '"integer"' in str(prompted.get("instructions") or prompted["messages"][0]["content"])


@pytest.fixture
def both() -> Iterator[tuple[Model, Model]]:
    with Model([Reply("busy", status=429, headers={"Retry-After": "9"})]) as first, Model([Reply("Hi.")]) as second:
        yield first, second


async def test_models_that_do_not_answer_are_stood_in_for_in_order(both: tuple[Model, Model]) -> None:
    first, second = both
    own = {"other": agent_parts.Endpoint(base_url=second.base_url, key="${{ secrets.OTHER }}")}
    agent = Agent.model_validate(
        {"model": "a", "instructions": "i", "fallback": ["b", {"model": "c", "endpoint": "other"}]}
    )
    reply, usage = await reply_and_usage(models(first, key=lambda name: f"key of {name}"), own, agent, asked())
    assert (reply.text, usage["model"]) == ("Hi.", "c")
    assert [each["model"] for each in first.requests] == ["a", "b"]
    assert [each["model"] for each in second.requests] == ["c"]


async def test_when_no_model_answers_the_wait_that_is_asked_for_is_told(both: tuple[Model, Model]) -> None:
    agent = Agent.model_validate({"model": "a", "instructions": "i", "fallback": ["b"]})
    with pytest.raises(RateLimited) as caught:
        await models(both[0]).ask({}, agent, asked())
    assert caught.value.retry_after == 9


@WAYS
async def test_a_model_that_hangs_is_given_up_after_the_agents_timeout_and_stood_in_for(api: str, stream: bool) -> None:
    with Model([Reply("late", fault="timeout")]) as first, Model([Reply("Hi.")]) as second:
        own = {"other": agent_parts.Endpoint(base_url=second.base_url)}
        agent = {"model": "a", "instructions": "i", "timeout": "200ms"}
        falls_back = Agent.model_validate({**agent, "fallback": [{"model": "c", "endpoint": "other"}]})
        reply, usage = await reply_and_usage(models(first, api, stream), own, falls_back, asked())
        assert (reply.text, usage["model"]) == ("Hi.", "c")
        with pytest.raises(Timeout, match=r"agent 'helper': model 'a': it took longer than 0\.2 s"):
            await models(first, api, stream).ask({}, Agent.model_validate(agent), asked())
        both_hang = Agent.model_validate({**agent, "fallback": ["b"]})
        with pytest.raises(Timeout, match=r"model 'a': .*; .*model 'b'"):
            await models(first, api, stream).ask({}, both_hang, asked())
    assert [each["model"] for each in first.requests] == ["a", "a", "a", "b"]


async def test_an_endpoint_that_nobody_declared_is_named() -> None:
    agent = Agent(model="a", instructions="i", endpoint="mine")
    with pytest.raises(ModelUnavailable, match="no endpoint 'mine'"):
        await Models().ask({}, agent, asked())


@pytest.mark.parametrize("api", ["chat", "responses"])
async def test_images_and_files_go_as_parts_of_the_message(api: str) -> None:
    async def file(given: Any) -> str:
        return f"data:{given['media_type']};base64,AAAA"

    files = [
        {"file": "d1", "media_type": "image/png"},
        {"file": "d2", "media_type": "application/pdf", "name": "a.pdf"},
    ]
    with Model([Reply("Seen.")]) as model:
        await models(model, api, file=file).ask({}, AGENT, asked([Said("user", "Look.", files=files)]))
        sent = model.requests[0]
    content = (sent.get("messages") or sent["input"])[-1]["content"]
    kinds = {"chat": ["text", "image_url", "file"], "responses": ["input_text", "input_image", "input_file"]}
    assert [part["type"] for part in content] == kinds[api]
    assert "data:application/pdf;base64,AAAA" in str(content)


async def test_options_of_an_agent_go_into_the_request_as_they_are() -> None:
    with Model([Reply("Hi.")]) as model:
        await models(model).ask({}, AGENT, replace_options(asked()))
        assert model.requests[0]["top_p"] == 0.5


def replace_options(given: Asked) -> Asked:
    return Asked(given.name, given.model, given.instructions, given.said, options={"top_p": 0.5})
