"""Servers that speak OpenAI's protocol each in a way of their own, byte by byte."""

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from paid import reply_and_usage

from perdure.actors.models import Asked, Endpoint, Models, Offered, RateLimited, Refused, Unavailable
from perdure.actors.replies import AskedFor, InvalidReply, Reply
from perdure.actors.transcripts import Said
from perdure.definitions.agent_parts import Agent, Price
from perdure.definitions.agent_parts import Endpoint as Declared

AGENT = Agent(model="m", instructions="Help.")
LOOK = Offered("look", "", {"type": "object"})
SEEN: list[dict[str, str]] = []


@contextmanager
def server(body: str, status: int = 200, takes_no: str = "") -> Iterator[str]:
    """Answer every request with the same bytes, but refuse one that has what it does not take."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            SEEN.append({name.lower(): value for name, value in self.headers.items()})
            refused = takes_no in asked
            self.send_response(400 if refused else status)
            self.send_header(
                "Content-Type", "text/event-stream" if body.startswith(("data", ":")) else "application/json"
            )
            self.end_headers()
            told = json.dumps({"error": {"message": f"{takes_no}: json_schema is not supported"}})
            self.wfile.write((told if refused else body).encode())

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    running = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{running.server_port}/v1"
    finally:
        running.shutdown()
        running.server_close()


def chunks(*deltas: dict[str, Any], end: str = "stop") -> str:
    made: list[dict[str, Any]] = [
        {"choices": [{"index": 0, "delta": delta, "finish_reason": None}]} for delta in deltas
    ]
    made.append({"choices": [{"index": 0, "delta": {}, "finish_reason": end}]})
    return "".join(f"data: {json.dumps(each)}\n\n" for each in made) + "data: [DONE]\n\n"


def call(**parts: Any) -> dict[str, Any]:
    return {"tool_calls": [{"type": "function", **parts}]}


async def said(body: str, status: int = 200, *, stream: bool = True, api: str = "chat") -> Reply:
    with server(body, status) as url:
        asked = Asked("helper", "", "Help.", [Said("user", "hi")], tools=[LOOK])
        reply, usage = await reply_and_usage(Models(Endpoint(url, "k-1", stream=stream, api=api)), {}, AGENT, asked)
    assert usage["input"] > 0
    return reply


def piece(arguments: str, **parts: Any) -> dict[str, Any]:
    return call(**parts, function={"arguments": arguments, **({"name": "look"} if "id" in parts else {})})


LOOKED = [AskedFor("a", "look", '{"x": 1}'), AskedFor("b", "look", '{"x": 2}')]
PARALLEL = {
    "each has its number": [
        piece('{"x"', index=0, id="a"), piece(": 1}", index=0), piece("", index=1, id="b"), piece('{"x": 2}', index=1),
    ],
    "each has the number 0": [piece('{"x": 1}', index=0, id="a"), piece('{"x": 2}', index=0, id="b")],
    "none has a number": [piece('{"x": 1}', id="a"), piece('{"x": 2}', id="b")],
    "the pieces repeat the id": [
        piece('{"x"', index=0, id="a"),
        call(index=0, id="a", function={"arguments": ": 1}"}),
        piece('{"x": 2}', index=1, id="b"),
    ],
}  # fmt: skip


@pytest.mark.parametrize("how", PARALLEL)
async def test_calls_side_by_side_are_told_apart_however_a_server_numbers_them(how: str) -> None:
    assert (await said(chunks(*PARALLEL[how], end="tool_calls"))).calls == LOOKED


ODD = {
    "reasoning beside the text": chunks({"reasoning_content": "Hm."}, {"content": "Hi"}, {"content": "."}),
    "comments to keep the connection": ": ping\n\n" + chunks({"content": "Hi."}),
    "a chunk without choices": 'data: {"id": "x"}\n\n' + chunks({"content": "Hi."}),
    "null content first": chunks({"role": "assistant", "content": None}, {"content": "Hi."}),
    "usage in every chunk": chunks({"content": "Hi."}).replace(
        '{"choices"', '{"usage": {"prompt_tokens": 3}, "choices"'
    ),
}


@pytest.mark.parametrize("how", ODD)
async def test_a_stream_is_understood_with_what_else_servers_put_into_it(how: str) -> None:
    assert await said(ODD[how]) == Reply("Hi.")


def whole(**message: Any) -> str:
    return json.dumps({"choices": [{"index": 0, "message": {"role": "assistant", **message}, "finish_reason": "stop"}]})


def response(**part: Any) -> str:
    message = {"id": "m", "type": "message", "role": "assistant", "status": "completed", "content": [part]}
    return json.dumps({"id": "r", "object": "response", "output": [message]})


@pytest.mark.parametrize(
    ("body", "stream", "api"),
    [
        (chunks({"refusal": "I will "}, {"refusal": "not."}), True, "chat"),
        (whole(content=None, refusal="I will not."), False, "chat"),
        (response(type="refusal", refusal="I will not."), False, "responses"),
    ],
    ids=["streamed", "whole", "responses"],
)
async def test_a_model_that_refuses_is_an_error_that_says_so(body: str, stream: bool, api: str) -> None:
    with pytest.raises(Refused, match="the model refuses: I will not"):
        await said(body, stream=stream, api=api)


@pytest.mark.parametrize(
    ("status", "error"), [(408, Unavailable), (409, Unavailable), (425, Unavailable), (403, Refused)]
)
async def test_a_status_that_is_about_the_moment_may_be_tried_again(status: int, error: type[Exception]) -> None:
    with pytest.raises(error) as caught:
        await said('{"error": {"message": "no"}}', status)
    assert type(caught.value) is error


async def test_each_endpoint_gets_its_own_key_and_none_that_of_another(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "k-environment")
    SEEN.clear()
    with server(chunks({"content": "Hi."})) as url:
        own = {name: Declared(base_url=url, key=f"${{{{ secrets.{name} }}}}") for name in ("ONE", "TWO")}
        own["OPEN"] = Declared(base_url=url)
        for name in own:
            agent = Agent(model="m", instructions="i", endpoint=name)
            asked = Asked("helper", "", "Help.", [Said("user", "hi")])
            await Models(Endpoint(url, "k-default"), key=lambda secret: f"k-{secret}").ask(own, agent, asked)
    assert [each["authorization"] for each in SEEN] == ["Bearer k-ONE", "Bearer k-TWO", "Bearer none"]


async def test_an_endpoint_without_a_url_is_openais_own_whatever_the_environment_says(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from perdure.actors.openai_client import client_of

    monkeypatch.setenv("OPENAI_BASE_URL", "http://127.0.0.1:1/v1")
    assert str(client_of(Endpoint(None, "k-other")).base_url) == "https://api.openai.com/v1/"


@pytest.mark.parametrize(
    "usage",
    [
        {"prompt_tokens": "12", "completion_tokens": "3"}, {"prompt_tokens": -5, "completion_tokens": 1.5},
        {"prompt_tokens": 10**30, "completion_tokens": {}}, {"prompt_tokens": True}, "many", [], None,
    ],
    ids=str,
)  # fmt: skip
async def test_a_count_of_tokens_that_is_none_is_guessed(usage: Any) -> None:
    body = json.dumps({**json.loads(whole(content="Hello")), "usage": usage})
    with server(body) as url:
        asked = Asked("helper", "", "Help.", [Said("user", "hi")])
        at = Models(Endpoint(url, stream=False), prices={"m": Price(input=1, output=1)})
        _, used = await reply_and_usage(at, {}, AGENT, asked)
    assert used == {"model": "m", "input": 2, "output": 2, "cost": 0.000004}


async def test_arguments_and_text_that_come_as_data_are_understood() -> None:
    called = [{"id": 5, "type": "function", "function": {"name": "look", "arguments": {"x": 1}}}]
    parts = [{"type": "thinking", "thinking": []}, {"type": "text", "text": "Hi."}]
    assert await said(whole(content=parts, tool_calls=called), stream=False) == Reply(
        "Hi.", [AskedFor("call_0", "look", '{"x": 1}')]
    )


DEEP = "[" * 100_000 + "]" * 100_000


@pytest.mark.parametrize(
    ("body", "stream", "api"),
    [
        (DEEP, False, "chat"), (f"data: {DEEP}\n\n", True, "chat"), (whole(content=5), False, "chat"),
        (whole(tool_calls=[{"id": "x", "function": {"name": None, "arguments": "{}"}}]), False, "chat"),
        (chunks(call(index=0, id="a", function={"name": "look", "arguments": {"x": 1}})), True, "chat"),
        ("<html>", False, "chat"), ("null", False, "chat"), ("", False, "responses"),
        (json.dumps({"output": [5, None]}), False, "responses"),
    ],
)  # fmt: skip
async def test_an_answer_that_is_no_reply_is_a_typed_error(body: str, stream: bool, api: str) -> None:
    with pytest.raises(InvalidReply, match="agent 'helper': the endpoint's answer"):
        await said(body, stream=stream, api=api)


@pytest.mark.parametrize(
    ("code", "error"),
    [("rate_limit_exceeded", RateLimited), ("server_error", Unavailable), ("invalid_prompt", Refused)],
)
async def test_a_response_that_failed_says_whether_another_try_may_help(code: str, error: type[Exception]) -> None:
    told = {"status": "failed", "output": [], "error": {"code": code, "message": "no"}}
    event = {"type": "response.failed", "response": told}
    for body, stream in ((json.dumps(told), False), (f"data: {json.dumps(event)}\n\n", True)):
        with pytest.raises(error, match="agent 'helper': no") as caught:
            await said(body, stream=stream, api="responses")
        assert type(caught.value) is error


async def test_a_reply_that_a_filter_withholds_is_no_empty_reply() -> None:
    with pytest.raises(Refused, match="content filter"):
        await said(chunks({"content": ""}, end="content_filter"))


async def test_a_server_that_does_not_stream_is_told_how_to_be_asked() -> None:
    with pytest.raises(Unavailable, match="say `stream: false`"):
        await said(whole(content="Hi."))


@pytest.mark.parametrize(
    ("api", "takes_no", "body"),
    [("chat", "response_format", whole(content='{"n": 1}')),
     ("responses", "text", response(type="output_text", text='{"n": 1}'))],
)  # fmt: skip
async def test_a_server_that_takes_no_schema_is_asked_in_words(
    api: str, takes_no: str, body: str, caplog: pytest.LogCaptureFixture
) -> None:
    SEEN.clear()
    schema = {"type": "object", "properties": {"n": {"type": "integer"}}}
    asked = Asked("helper", "", "Help.", [Said("user", "hi")], schema=schema)
    with server(body, takes_no=takes_no) as url:
        reply = await Models(Endpoint(url, stream=False, api=api)).ask({}, AGENT, asked)
        assert reply.text == '{"n": 1}'
        assert len(SEEN) == 2
        assert "at once where its `structured` is `prompted`" in caplog.text
        odd = Agent(model="m", instructions="i", options={takes_no: {"type": "odd"}})
        asked = Asked("helper", "", "Help.", [Said("user", "hi")], schema=schema, options=odd.options)
        with pytest.raises(Refused, match="not supported"):
            await Models(Endpoint(url, stream=False, api=api)).ask({}, odd, asked)
