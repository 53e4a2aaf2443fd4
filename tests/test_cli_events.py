"""The commands batch, subscriptions and webhooks: previews, questions, records, and clear words for bad input."""

import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.main import get_command
from typer.testing import CliRunner, Result

import perdure
from perdure import Settings
from perdure.cli import app
from perdure.cluster.sync_client import Client
from perdure.errors import BadInput

Cli = Callable[..., Result]
FLOW: dict[str, Any] = {"name": "order", "nodes": {"wait": {"wait": {"signal": "go"}}}}
DOCS = Path(__file__).parent.parent / "docs"


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Client]:
    store = tmp_path_factory.mktemp("events") / "store"
    with perdure.connect(Settings(store=store), local=True) as client:
        yield client


@pytest.fixture
def cli(client: Client) -> Cli:
    store = str(client._client._settings.store)

    def run(*words: str, code: int = 0) -> Result:
        result = CliRunner().invoke(app, [*words, "--store", store])
        if isinstance(result.exception, Exception):
            raise result.exception
        assert result.exit_code == code
        return result

    return run


def test_a_batch_is_previewed_asked_for_done_and_shown(cli: Cli, client: Client) -> None:
    runs = [client.start(FLOW, id=f"b-{number}") for number in range(3)]
    looked = cli("batch", "cancel", "--workflow", "order", "--dry-run", "--json")
    assert json.loads(looked.stdout)["matched"] == 3
    assert "cancel: 3 executions: b-0, b-1, b-2" in looked.stderr
    with pytest.raises(BadInput, match="nobody can be asked whether to cancel 3 executions; say --yes"):
        cli("batch", "cancel", "--workflow", "order")
    cli("batch", "signal", "other", "--filter", "id == 'b-0'", "--yes")
    done = cli("batch", "cancel", "--workflow", "order", "--reason", "test", "--by", "ann", "--yes", "--rate", "1000")
    found = re.search(r"batch (\w+) is finished: 3 done", done.stderr)
    assert found
    assert {run.status() for run in runs} == {"cancelled"}
    shown = json.loads(cli("batch", "show", found[1]).stdout)
    assert (shown["by"], shown["reason"], shown["query"]["workflow"]) == ("ann", "test", ["order"])
    assert [row["action"] for row in json.loads(cli("batch", "list", "--json").stdout)] == ["cancel", "signal"]
    assert found[1] in cli("batch", "list").stderr
    with pytest.raises(BadInput, match="is finished already"):
        cli("batch", "go-on", found[1])
    with pytest.raises(BadInput, match="is finished already"):
        cli("batch", "stop", found[1])
    assert "purge: 3 executions" in cli("batch", "purge", "--workflow", "order", "--dry-run").stderr


def test_a_batch_of_everything_wants_to_be_meant(cli: Cli) -> None:
    with pytest.raises(BadInput, match="this would be all executions"):
        cli("batch", "retry")
    assert "retry: 0 executions" in cli("batch", "retry", "--all").stderr
    with pytest.raises(BadInput, match="there is no batch 'x'"):
        cli("batch", "show", "x")


def test_a_batch_takes_the_filters_of_the_list(cli: Cli, client: Client) -> None:
    def options(*words: str) -> set[str]:
        command: Any = get_command(app)
        for word in words:
            command = command.commands[word]
        return {name for each in command.params for name in each.opts}

    filters = options("list") - {"--order", "--limit", "--cursor", "--count", "--stale"}
    for action in ("cancel", "terminate", "pause", "resume", "retry", "purge"):
        assert filters <= options("batch", action)
    assert filters - {"--error", "--ended-after", "--ended-before"} <= options("batch", "signal")
    run = client.start(FLOW, id="source", priority=3)
    run.fork(id="fork")
    for words in (["--forked-from", "source"], ["--filter", "forked_from == 'source'"]):
        assert "cancel: 1 executions: fork" in cli("batch", "cancel", *words, "--dry-run").stderr
    assert "cancel: 0 executions" in cli("batch", "cancel", "--parent", "source", "--dry-run").stderr
    assert "signal: 2 executions" in cli("batch", "signal", "go", "--priority", "3", "--dry-run").stderr
    cli("batch", "terminate", "--priority", "3", "--yes")


def test_subscriptions_are_listed_and_deleted(cli: Cli, client: Client) -> None:
    client.subscribe(["ExecutionFailed"], durable="pager").close()
    (row,) = json.loads(cli("subscriptions", "list", "--json").stdout)
    assert (row["name"], row["types"]) == ("pager", ["ExecutionFailed"])
    assert "pager" in cli("subscriptions", "list").stderr
    cli("subscriptions", "delete", "pager")
    assert "no subscriptions" in cli("subscriptions", "list").stderr
    with pytest.raises(BadInput, match="--from then: it is now, beginning, or a position"):
        cli("subscriptions", "forward", "x", "nats://localhost/x", "--from", "then")


def test_webhooks_are_declared_listed_and_removed(cli: Cli) -> None:
    cli(
        "webhooks",
        "add",
        "pager",
        "https://example.org/x",
        "--secret",
        "KEY",
        "--type",
        "ExecutionFailed",
        "--from",
        "0",
    )
    (row,) = json.loads(cli("webhooks", "list", "--json").stdout)
    assert (row["name"], row["secret"], row["since"], row["types"]) == ("pager", "KEY", 0, ["ExecutionFailed"])
    assert "example.org" in cli("webhooks", "list").stderr
    assert "nothing is dead" in cli("webhooks", "dead").stderr
    assert "0 deliveries" in cli("webhooks", "retry", "pager").stderr
    cli("webhooks", "remove", "pager")
    assert "no webhooks" in cli("webhooks", "list").stderr


@pytest.mark.parametrize("page", ["subscriptions.md", "batch.md"])
def test_every_command_and_option_of_the_pages_is_there(page: str) -> None:
    lines = re.findall(r"^perdure (.*?)(?:  +#.*)?$", (DOCS / page).read_text(encoding="utf-8"), re.MULTILINE)
    assert len(lines) > 5
    root = get_command(app)
    for line in lines:
        group, name, *words = line.split()
        command = root.commands[group].commands[name]  # type: ignore[attr-defined]
        known = {option for parameter in command.params for option in parameter.opts}
        assert {word for word in words if word.startswith("--")} <= known, line
