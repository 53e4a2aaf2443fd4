"""docs/agents.md and the agents of docs/testing.md: what stands there loads, and runs as it says."""

import re
from pathlib import Path
from typing import Any

from perdure.definitions.loading import load
from perdure.testing import approve, calls, play

DOCS = Path(__file__).parent.parent / "docs"
AGENTS = (DOCS / "agents.md").read_text(encoding="utf-8")


def test_the_first_example_of_the_page_runs_with_an_approval() -> None:
    text = re.findall(r"```yaml\n(name: support.*?)```", AGENTS, re.DOTALL)[0]
    played = play(
        text,
        {"message": "It is broken."},
        agents={"clerk": [calls(lookup_order={"order": "A-1"}), calls(refund={"amount": 500}), "Refunded."]},
        tools={"lookup_order": "lost", "refund": "done", "charge_again": None},
        tell=[approve("answer[1]/refund.approve", by="ann")],
    )
    assert played.output == {"answer": "Refunded."}
    assert played.inputs("refund") == [{"amount": 500, "token": "[secret SHOP_TOKEN]"}]


def test_the_parts_that_the_page_shows_are_parts_of_a_definition() -> None:
    for text in re.findall(r"```yaml\n(endpoints:.*?)```", AGENTS, re.DOTALL):
        load(f"name: w\n{text}nodes: {{n: {{agent: clerk, with: {{message: hi}}}}}}")


def test_the_example_of_the_page_on_testing_passes() -> None:
    page = (DOCS / "testing.md").read_text(encoding="utf-8")
    (block,) = (each for each in re.findall(r"```python\n(.*?)```", page, re.DOTALL) if "calls(lookup" in each)
    names: dict[str, Any] = {}
    exec(compile(block, "docs/testing.md", "exec"), names)
    names["test_a_large_refund_waits_for_a_person"]()


def test_every_error_and_every_setting_of_the_page_is_there() -> None:
    from perdure.cluster.settings import Settings
    from perdure.definitions.agent_parts import Agent, AgentTool, Budget, Endpoint, Memory

    keys = {
        field.alias or name
        for model in (Agent, AgentTool, Budget, Endpoint, Memory)
        for name, field in model.model_fields.items()
    }
    for name in ("approve", "approve_timeout", "handoffs", "fallback", "budget", "summarise", "structured", "repairs"):
        assert name in keys
        assert name in AGENTS
    for name in ("openai_api", "openai_structured", "openai_stream", "reply_bytes", "prices"):
        assert name in Settings.model_fields
        assert name in AGENTS
