"""`perdure.testing.Model`: scripts from files, faults, and a real endpoint that is recorded and replayed."""

from pathlib import Path
from typing import Any

import pytest

from perdure.actors import agents
from perdure.actors.models import Endpoint, Models, Refused, Unavailable
from perdure.actors.time_limits import Timeout, in_time
from perdure.definitions.agent_parts import Agent
from perdure.errors import BadInput
from perdure.testing import Model, Reply

AGENT = Agent(model="m-1", instructions="Help.")


async def ask(url: str, message: str, key: str = "k-secret") -> Any:
    models = Models(Endpoint(url, key))
    return (await agents.ask(models, None, "helper", AGENT, {"message": message}, lambda _piece: None)).value


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
        "- {reply: Busy, status: 429, times: 1}\n- {reply: x}\n"
    )
    Model.from_file(file)._server.server_close()
    file.write_text("- {calls: {lookup: 1}}\n")
    with pytest.raises(BadInput, match="'calls' is a list of mappings such as"):
        Model.from_file(file)
