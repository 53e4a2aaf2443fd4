"""`perdure.testing.Model`: scripts from files, faults, and a real endpoint that is recorded and replayed."""

from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.request import urlopen

import pytest

from perdure.actors import agents
from perdure.actors.models import Endpoint, Models, RateLimited, Refused, ReplyTooLarge, Unavailable, unheard
from perdure.actors.time_limits import Timeout, in_time
from perdure.actors.usage import unpaid
from perdure.definitions.agent_parts import Agent
from perdure.errors import BadInput
from perdure.testing import Model, Reply

AGENT = Agent(model="m-1", instructions="Help.")


async def ask(url: str, message: str, key: str = "k-secret", **parts: Any) -> Any:
    models = Models(Endpoint(url, key, **parts))
    return await agents.ask(models, {}, "helper", AGENT, {"message": message}, unheard, unpaid)


async def test_a_recorded_endpoint_is_replayed_without_it_and_without_its_key(tmp_path: Path) -> None:
    file = tmp_path / "talk.jsonl"
    with Model([Reply("One.", times=1), Reply("Two.")]) as real, Model.record(real.base_url, file) as recording:
        assert [await ask(recording.base_url, "hello") for _ in range(2)] == ["One.", "Two."]
        assert await ask(recording.base_url, "more") == "Two."
    assert "k-secret" not in file.read_text()
    with Model.replay(file) as model:
        assert [await ask(model.base_url, "hello") for _ in range(3)] == ["One.", "Two.", "Two."]
        assert await ask(model.base_url, "more") == "Two."
        with pytest.raises(Refused, match="has no such request; record it anew"):
            await ask(model.base_url, "other")


@pytest.mark.parametrize(
    "parts", [{"api": api, "stream": way} for api in ("chat", "responses") for way in (True, False)]
)
async def test_every_way_of_asking_is_recorded_and_replayed(parts: dict[str, Any], tmp_path: Path) -> None:
    file = tmp_path / "talk.jsonl"
    with Model([Reply("Größe: 🎉")]) as real, Model.record(real.base_url, file) as recording:
        assert await ask(recording.base_url, "hello", **parts) == "Größe: 🎉"
    with Model.replay(file) as model:
        assert await ask(model.base_url, "hello", **parts) == "Größe: 🎉"
        with pytest.raises(Refused, match="has no such request"):
            await ask(model.base_url, "hello", **(parts | {"stream": not parts["stream"]}))


async def test_an_endpoint_that_is_not_there_is_told_while_it_is_recorded(tmp_path: Path) -> None:
    with Model() as gone:
        url = gone.base_url
    with Model.record(url, tmp_path / "x.jsonl") as model, pytest.raises(Unavailable, match="cannot be reached"):
        await ask(model.base_url, "hello")


def test_a_file_that_is_no_recording_is_refused_with_its_line(tmp_path: Path) -> None:
    file = tmp_path / "x.jsonl"
    with pytest.raises(BadInput, match="cannot be read"):
        Model.replay(file)
    file.write_text('{"path": "/x"}\n')
    with pytest.raises(BadInput, match=r"x\.jsonl:1: this is no line of a recording"):
        Model.replay(file)


async def test_a_reply_that_never_comes_is_waited_for_as_long_as_the_caller_likes() -> None:
    with Model([Reply(fault="timeout")]) as model, pytest.raises(Timeout):
        await in_time(ask(model.base_url, "hello"), 0.2)


def test_a_script_in_a_file_may_ask_for_calls_and_fail(tmp_path: Path) -> None:
    file = tmp_path / "replies.yaml"
    file.write_text(
        "- {match: order, turn: 0, calls: [{lookup: {order: A-1}}]}\n"
        "- {reply: Busy, status: 429, headers: {Retry-After: 2}, times: 1}\n- {reply: x}\n"
    )
    Model.from_file(file)._server.server_close()
    file.write_text("- {calls: {lookup: 1}}\n")
    with pytest.raises(BadInput, match="'calls' is a list of mappings such as"):
        Model.from_file(file)


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("{reply: x, turn: first}", "1:20: 'turn': input should be a valid integer"),
        ("{reply: x, status: [429]}", "1:22: 'status': input should be a valid integer"),
        ("{reply: x, fault: slow}", "1:21: 'fault': input should be 'timeout', 'malformed' or 'truncated'"),
        ("{reply: x, usage: [1]}", "1:21: 'usage': "),
        ("{reply: x, headers: {Retry-After: [2]}}", "1:23: 'headers': input should be a valid string"),
    ],
)
def test_what_a_script_has_wrong_is_told_at_its_place(line: str, said: str, tmp_path: Path) -> None:
    (tmp_path / "replies.yaml").write_text(f"- {line}\n")
    with pytest.raises(BadInput) as caught:
        Model.from_file(tmp_path / "replies.yaml")
    assert f"replies.yaml:{said}" in str(caught.value)


def test_a_reply_that_can_never_be_given_is_refused_where_it_is_made() -> None:
    with pytest.raises(BadInput, match="'match' of a scripted reply is not a regular expression"):
        Reply("x", match="(")
    with pytest.raises(BadInput, match="'fault' of a scripted reply is 'slow'; there are timeout, malformed, trunc"):
        Reply("x", fault="slow")  # type: ignore[arg-type]


async def test_a_refusal_is_replayed_with_the_wait_that_it_asked_for(tmp_path: Path) -> None:
    file = tmp_path / "talk.jsonl"
    busy = [Reply("busy", status=429, headers={"Retry-After": "7"}, times=1), Reply("Hi.")]
    with Model(busy) as real, Model.record(real.base_url, file) as recording:
        with pytest.raises(RateLimited):
            await ask(recording.base_url, "hello")
        assert await ask(recording.base_url, "hello") == "Hi."
    with Model.replay(file) as model:
        with pytest.raises(RateLimited) as caught:
            await ask(model.base_url, "hello")
        assert caught.value.retry_after == 7
        assert await ask(model.base_url, "hello") == "Hi."


async def test_a_recording_that_cannot_be_written_and_an_answer_that_breaks_off_are_told(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"none/x\.jsonl: cannot be written: No such file"):
        Model.record("http://127.0.0.1:1/v1", tmp_path / "none/x.jsonl")
    file = tmp_path / "talk.jsonl"
    broken = Model([Reply("x" * 500, fault="truncated")])
    told = pytest.raises(Unavailable, match="cannot be reached: IncompleteRead")
    with broken as real, Model.record(real.base_url, file) as recording, told:
        await ask(recording.base_url, "hello")
    assert file.read_text() == "", "half an answer is none to replay"


@pytest.mark.parametrize("body", [b"no JSON", b"[]", b"{}", b'{"messages": 5}', b'{"messages": [5]}'])
def test_a_request_that_is_none_is_refused(body: bytes) -> None:
    with Model([Reply("x")]) as model:
        with pytest.raises(HTTPError) as caught:
            urlopen(f"{model.base_url}/chat/completions", body, timeout=5)
        assert caught.value.code == 400
        assert b"no request that a model takes" in caught.value.read()


async def test_a_client_that_hangs_up_leaves_no_traceback(capfd: pytest.CaptureFixture[str]) -> None:
    with Model([Reply("x" * 20_000_000)]) as model, pytest.raises(ReplyTooLarge):
        await ask(model.base_url, "hello")
    assert "Traceback" not in capfd.readouterr().err
