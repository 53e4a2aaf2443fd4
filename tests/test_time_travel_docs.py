"""The page of time travel says what is so: its commands, options and names are there."""

import inspect
import re
from pathlib import Path
from typing import Any

import typer.main

from perdure.cli import app
from perdure.cluster.run import AsyncRun
from perdure.cluster.sync_client import History, Run
from perdure.cluster.verification import Problem

PAGE = (Path(__file__).parent.parent / "docs/time_travel.md").read_text(encoding="utf-8")


def options_of(words: list[str]) -> set[str]:
    command: Any = typer.main.get_command(app)
    for word in words:
        if word not in getattr(command, "commands", {}):
            break
        command = command.commands[word]
    names = {name for parameter in command.params for name in (*parameter.opts, *parameter.secondary_opts)}
    return {name for name in names if name.startswith("--")}


def test_every_command_of_the_page_has_the_options_that_it_shows() -> None:
    lines = re.findall(r"^perdure (.*?)(?:\s+#.*)?$", PAGE, re.MULTILINE)
    assert len(lines) >= 15
    for line in lines:
        words = line.split()
        used = {word for word in words if word.startswith("--")}
        assert used <= options_of(words), line


def test_every_option_of_the_commands_is_on_the_page() -> None:
    for command in (["replay"], ["fork"], ["workflows", "evaluate"], ["log", "verify"]):
        for option in options_of(command) - {"--help", "--store", "--projections", "--json"}:
            assert option in PAGE, option


def test_what_the_page_calls_is_there() -> None:
    assert set(inspect.signature(Run.fork).parameters) == set(inspect.signature(AsyncRun.fork).parameters)
    for name in re.findall(r"run\.history\(\)\.(\w+)", PAGE):
        assert hasattr(History, name)
    kinds = re.findall(r"^\| `(\w+)` \|", PAGE, re.MULTILINE)
    assert all(f"{kind}" in (Problem.__doc__ or "") for kind in kinds)
    assert len(kinds) == 5
