"""The past of the support example: forks are cheaper, comparisons say by how much, changed agents are evaluated."""

import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

import perdure
from perdure import Settings
from perdure.cli import app
from perdure.cluster.sync_client import Client
from perdure.definitions.agent_parts import Price
from perdure.testing import Model

EXAMPLES = Path(__file__).parent.parent / "examples"
SUPPORT = EXAMPLES / "customer_support.yaml"
REPLIES = str(EXAMPLES / "customer_support.replies.yaml")
Cli = Callable[..., Result]


@pytest.fixture(scope="module")
def model() -> Iterator[Model]:
    with Model.from_file(REPLIES) as model:
        yield model


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory, model: Model) -> Iterator[Client]:
    prices = {"gpt-5-mini": Price(input=1.0, output=8.0)}
    settings = Settings(store=tmp_path_factory.mktemp("support"), openai_base_url=model.base_url, prices=prices)
    with perdure.connect(settings, local=True) as client:
        for number, order in enumerate(("A-1001", "A-1002")):
            client.start(SUPPORT, {"message": "Where is it?", "order": order}, id=f"case-{number}").result(20)
        client.get("case-0").fork(from_="draft", id="cheap").result(20)
        yield client


@pytest.fixture
def cli(client: Client) -> Cli:
    store = str(client._client._settings.store)

    def run(*words: str, code: int = 0) -> Result:
        result = CliRunner().invoke(app, [*words, "--store", store])
        if isinstance(result.exception, Exception):
            raise result.exception
        assert result.exit_code == code, result.output
        return result

    return run


def changed(folder: Path, agent: str, instructions: str) -> str:
    """Return a file with the example, one of whose agents is told something else."""
    text = SUPPORT.read_text().replace("[./tools.py]", json.dumps([str(EXAMPLES / "tools.py")]))
    text = re.sub(
        rf"(  {agent}:\n    model: .*\n    instructions:) >-\n(?:      .*\n)+",
        rf"\1 {json.dumps(instructions)}\n",
        text,
    )
    assert instructions in text
    (folder / "changed.yaml").write_text(text)
    return str(folder / "changed.yaml")


def test_a_comparison_tells_nodes_outputs_tokens_cost_and_time(cli: Cli) -> None:
    told = json.loads(cli("replay", "case-0", "--diff", "cheap", "--json").stdout)
    one, other = told["one"], told["other"]
    assert (told["same"], told["nodes"]) == (True, [])
    assert one["output"] == other["output"]
    assert one["cost"] == pytest.approx(sum(one["nodes"][node]["cost"] for node in ("classify", "draft", "check")))
    assert one["nodes"]["classify"]["cost"] > 0
    assert (other["nodes"]["classify"]["cost"], other["nodes"]["classify"]["seconds"]) == (0, None)
    assert other["cost"] == pytest.approx(one["cost"] - one["nodes"]["classify"]["cost"])
    assert other["tokens"] == one["tokens"] - one["nodes"]["classify"]["tokens"]
    assert 0 < one["nodes"]["draft"]["seconds"] <= one["seconds"]


def test_a_comparison_shows_people_each_node_with_its_time_and_cost(cli: Cli, client: Client) -> None:
    shown = cli("replay", "case-0", "--diff", "cheap").stderr
    (row,) = [line for line in shown.splitlines() if line.startswith("classify")]
    assert " tokens cost 0.000" in row
    assert "succeeded (reused)" in row
    assert "7 nodes the same, 0 differ; the outcomes agree" in shown


def test_only_the_agent_that_is_told_something_else_is_asked_again(cli: Cli, tmp_path: Path) -> None:
    file = changed(tmp_path, "checker", "Check a drafted reply. Be strict.")
    told = json.loads(cli("workflows", "evaluate", file, "--last", "2", "--replies", REPLIES, "--json").stdout)
    assert {each["execution"]: each["ran"] for each in told} == {"cheap": ["check"], "case-1": ["check"]}
    assert {each["same"] for each in told} == {True}
    assert all(each["tokens"] > 0 and each["cost"] == 0 for each in told)  # the scripted model's have no price here


def test_another_verdict_of_an_agent_is_a_difference_with_exit_code_1(cli: Cli, tmp_path: Path) -> None:
    file = changed(tmp_path, "checker", "Check a drafted reply: no promises of any kind.")
    replies = tmp_path / "replies.yaml"
    replies.write_text("- match: no promises\n  reply: {good: false, reason: It promises a date.}\n")
    words = ("workflows", "evaluate", file, "--of", "customer-support", "--replies", str(replies), "--json")
    told = {each["execution"]: each for each in json.loads(cli(*words, code=1).stdout)}
    assert told["case-0"]["ran"] == ["check", "escalate"]
    assert (told["case-0"]["was"]["output"]["action"], told["case-0"]["same"]) == ("replied", False)
    assert {"check", "reply", "escalate"} == set(told["case-0"]["nodes"])
    assert told["case-1"]["now"]["status"] == "succeeded"


def test_a_dry_run_needs_no_model_no_tools_and_asks_nobody(
    cli: Cli, tmp_path: Path, model: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("OPENAI_BASE_URL", raising=False)
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    before, file = len(model.requests), Path(changed(tmp_path, "triage", "Classify."))
    file.write_text(re.sub(r"tools: .*", "tools: []", file.read_text()).replace("lookup_order", "not.here"))
    told = json.loads(cli("workflows", "evaluate", str(file), "--dry", "--json").stdout)
    assert {each["execution"]: (each["ran"], each["same"]) for each in told} == dict.fromkeys(
        ("case-0", "case-1", "cheap"), (["classify"], None)
    )
    assert len(model.requests) == before
