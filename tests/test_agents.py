"""Agents: the real `openai` client against a real HTTP server that speaks the chat-completions protocol."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from perdure.actors import agents
from perdure.actors.models import Endpoint, Models, Refused, Unavailable, unheard
from perdure.actors.replies import InvalidReply
from perdure.actors.usage import unpaid
from perdure.definitions.agent_parts import Agent
from perdure.errors import BadInput
from perdure.testing import Model, Reply

WRITER = Agent(model="m-1", instructions="Write.", temperature=0.5)
JUDGE = Agent(
    model="m-1",
    instructions="Judge.",
    output={"type": "object", "required": ["good"], "properties": {"good": {"type": "boolean"}}},
)


async def ask(endpoint: Endpoint, name: str, agent: Agent, question: dict[str, Any]) -> Any:
    return await agents.ask(Models(endpoint), {}, name, agent, question, unheard, unpaid)


@pytest.fixture
def model() -> Iterator[Model]:
    replies = [
        Reply("A poem.", match="Write.*rain"),
        Reply({"good": True}, match="Judge.*fine"),
        Reply({"good": "perhaps"}, match="Judge.*doubtful"),
        Reply("no JSON", match="Judge.*broken"),
    ]
    with Model([Reply(r.reply, f"(?s){r.match}") for r in replies]) as model:
        yield model


async def test_a_text_agent_gets_instructions_and_message_and_gives_text(model: Model) -> None:
    assert await ask(Endpoint(model.base_url), "writer", WRITER, {"message": "rain", "lines": 2}) == "A poem."
    request = model.requests[0]
    assert (request["model"], request["temperature"]) == ("m-1", 0.5)
    assert request["messages"] == [
        {"role": "system", "content": "Write."},
        {"role": "user", "content": 'rain\n\n{"lines": 2}'},
    ]


async def test_an_agent_with_a_schema_gives_checked_data(model: Model) -> None:
    assert await ask(Endpoint(model.base_url), "judge", JUDGE, {"message": "fine"}) == {"good": True}
    assert model.requests[0]["response_format"]["json_schema"]["schema"] == JUDGE.output


@pytest.mark.parametrize(
    ("message", "expected"),
    [("doubtful", r"breaks its output schema: reply\.good"), ("broken", "is not JSON")],
)
async def test_a_reply_that_breaks_the_schema_is_an_error(model: Model, message: str, expected: str) -> None:
    with pytest.raises(InvalidReply, match=expected):
        await ask(Endpoint(model.base_url), "judge", JUDGE, {"message": message})
    assert len(model.requests) == 1, "an attempt is one request: to have it mended is a turn of its own"


async def test_a_refused_request_says_what_the_endpoint_said(model: Model) -> None:
    with pytest.raises(Refused, match="no reply in the script matches"):
        await ask(Endpoint(model.base_url), "writer", WRITER, {"message": "sun"})


async def test_an_endpoint_that_is_not_there_is_unavailable(model: Model) -> None:
    with Model([]) as gone:
        url = gone.base_url
    with pytest.raises(Unavailable):
        await ask(Endpoint(url), "writer", WRITER, {"message": "rain"})


async def test_the_setting_overrides_the_model(model: Model) -> None:
    await ask(Endpoint(model.base_url, model="m-2"), "writer", WRITER, {"message": "rain"})
    assert model.requests[0]["model"] == "m-2"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (None, "cannot be read"),
        ("a: 1\n", "a replies file is a list such as"),
        ("- match: x\n", "replies.yaml:1:3: a reply is a mapping with 'reply'"),
        ("- {reply: x, mach: y}\n", "replies.yaml:1:3"),
        ("- {reply: x, match: '('}\n", "replies.yaml:1:21: 'match' is not a regular expression"),
        ("- {reply: x, match: {agent: a}}\n", "'match' is not a regular expression: a mapping is no text"),
    ],
)
def test_a_replies_file_that_is_none_is_refused_with_its_place(tmp_path: Path, text: str | None, expected: str) -> None:
    path = tmp_path / "replies.yaml"
    if text is not None:
        path.write_text(text)
    with pytest.raises(BadInput, match=expected):
        Model.from_file(path)
