"""The examples with agents run against any endpoint that speaks one of the protocols, by its URL alone."""

from pathlib import Path
from typing import Any

import pytest

import perdure
from perdure import Settings
from perdure.testing import Model

EXAMPLES = Path(__file__).parent.parent / "examples"
ASKED: dict[str, tuple[Any, Any]] = {
    "research_team": (
        {"question": "How old do oaks get?"},
        {
            "answer": "An oak lives for 300 years and more, and fruits from about its 40th year on.",
            "good": True,
            "votes": 2,
            "verdict": "Two of three are content: an oak lives for 300 years and more.",
        },
    ),
    "customer_support": (
        {"message": "Where is my parcel?", "order": "A-1002"},
        {
            "action": "escalated",
            "ticket": "T-77924",
            "queue": "delivery/normal",
            "reason": "The draft promises a date that the order does not have.",
        },
    ),
}
ENDPOINTS: dict[str, dict[str, Any]] = {
    "chat": {},
    "chat, whole and prompted": {"openai_stream": False, "openai_structured": "prompted"},
    "responses": {"openai_api": "responses"},
    "responses, whole": {"openai_api": "responses", "openai_stream": False},
}


@pytest.mark.parametrize("example", ASKED)
async def test_an_example_runs_against_every_kind_of_endpoint(example: str, tmp_path: Path) -> None:
    given, output = ASKED[example]
    for number, (kind, parts) in enumerate(ENDPOINTS.items()):
        with Model.from_file(EXAMPLES / f"{example}.replies.yaml") as model:
            settings = Settings(store=tmp_path, openai_base_url=model.base_url, openai_api_key="k-1", **parts)
            async with await perdure.connect_async(settings, local=True) as client:
                run = await client.start(EXAMPLES / f"{example}.yaml", given, id=f"{example}-{number}")
                assert await run.result(30) == output, kind


async def test_the_research_team_hands_over_calls_a_helper_and_a_tool_and_votes(tmp_path: Path) -> None:
    with Model.from_file(EXAMPLES / "research_team.replies.yaml") as model:
        settings = Settings(store=tmp_path, openai_base_url=model.base_url)
        async with await perdure.connect_async(settings, local=True) as client:
            run = await client.start(EXAMPLES / "research_team.yaml", ASKED["research_team"][0])
            await run.result(30)
            nodes = (await run.state()).nodes
            spans = {(span["kind"], span["path"]): span for span in await client.timeline(run.id)}
            (team,) = [row for row in await client.statistics("research-team") if row["node"] == "research/model"]
    assert nodes["research[1]/model"].input == {"agent": "naturalist"}
    assert {"research[1]/checker", "research[1]/look_up"} <= nodes.keys()
    assert ("body", "research[1]") in spans  # a turn of an agent
    assert spans["attempt", "research[1]/look_up"]["outcome"] == "succeeded"  # a call of a tool
    assert spans["attempt", "research[1]/model"]["detail"]["usage"]["output"] > 0
    assert all(span["began_at"] <= span["ended_at"] for span in spans.values())
    assert min(team["tokens_in"], team["tokens_out"]) > 0
    assert nodes["vote"].output == {"winner": {"good": True}, "votes": 2, "of": 3}
