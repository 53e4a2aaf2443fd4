"""What the commands share: settings and input from the command line, stopping on signals, stdout for data only."""

import asyncio
import json
import os
import signal
import sys
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from perdure.errors import BadInput, EnvironmentProblem

if TYPE_CHECKING:
    from perdure.cluster.client import AsyncClient
    from perdure.cluster.settings import Settings


Store = Annotated[
    Path | None,
    typer.Option(help="Folder of the store; PERDURE_STORE, or .perdure where absent.", show_default=False),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print data as JSON on stdout.")]


def settings_of_existing(store: Path | None) -> "Settings":
    """Build the settings of a store that must be there already: looking makes none."""
    settings = settings_from({"store": store})
    if not settings.nats_url and not settings.store.exists():
        raise BadInput(
            f"there is no store at {settings.store.absolute()}; start an execution with perdure run, or name its store "
            "with --store"
        )
    return settings


def settings_from(given: dict[str, Any]) -> "Settings":
    """Build the settings from options; a value that does not fit is bad input, wherever it came from."""
    from pydantic import ValidationError

    from perdure.cluster.settings import Settings

    try:
        return Settings(**{key: value for key, value in given.items() if value is not None})
    except ValidationError as error:
        problems = "; ".join(
            f"{'.'.join(map(str, item['loc']))}: {item['msg']}"
            + (f" (got {item['input']!r})" if item["loc"][0] != "endpoints" else "")  # it may hold a key
            for item in error.errors()
        )
        raise BadInput(
            f"a setting cannot be used: {problems}; options and PERDURE_* variables are listed in docs/settings.md"
        ) from None


def data_from(given: str | None, what: str) -> Any:
    """Return the data of an argument: JSON, or @FILE that holds it; raise BadInput that names what it is of."""
    if given is None:
        return None
    text, name = given, what
    if given.startswith("@"):
        name = given[1:]
        try:
            text = Path(name).read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            why = getattr(error, "strerror", None) or "not text in UTF-8"
            raise BadInput(f"{what} {given}: the file cannot be read: {why}") from None
    return _json(text, name)


def input_from(given: str | None, pairs: list[str]) -> Any:
    """Return the input from --input and --set; raise BadInput where it is not JSON."""
    value = data_from(given, "--input")
    for pair in pairs:
        key, equals, text = pair.partition("=")
        if not equals or not key:
            raise BadInput(f"--set {pair}: write key=value")
        value = {} if value is None else value
        if not isinstance(value, dict):
            raise BadInput(f"--set {pair}: the input is not an object, so no key of it can be set")
        value[key] = json_or_text(text)
    return value


def attributes_from(pairs: list[str], option: str) -> dict[str, Any]:
    """Return search attributes from name=value; a value is a number or a boolean where it is one as JSON, else text."""
    found = {}
    for pair in pairs:
        name, equals, text = pair.partition("=")
        if not equals or not name:
            raise BadInput(f"{option} {pair}: write name=value")
        value = json_or_text(text)
        found[name] = value if isinstance(value, str | int | float | bool) else text
    return found


def asked(store: Path | None, question: "Callable[[AsyncClient], Awaitable[Any]]") -> Any:
    """Ask a store's client something, where nothing need run."""
    settings = settings_of_existing(store)

    async def ask() -> Any:
        from perdure.cluster.client import AsyncClient

        async with await AsyncClient.open(settings, "none") as client:
            return await question(client)

    return asyncio.run(ask())


def show_data(data: Any, *, as_json: bool, show: "Callable[[Any], None]") -> None:
    """Print data as JSON, or have the console show it to people."""
    from perdure import console

    if as_json:
        typer.echo(console.as_json(data))
    else:
        show(console)


def _json(text: str, name: str) -> Any:
    def refuse(constant: str) -> Any:
        raise BadInput(f"{name}: {constant} is not JSON; write a number, or null")

    try:
        return json.loads(text, parse_constant=refuse)
    except json.JSONDecodeError as error:
        hint = "; text stands in double quotes" if error.msg == "Expecting value" else ""
        raise BadInput(f"{name}: not JSON: {error.msg} at line {error.lineno}, column {error.colno}{hint}") from None
    except (RecursionError, ValueError) as error:
        raise BadInput(f"{name}: not JSON that can be read: {error}") from None


def json_or_text(text: str) -> Any:
    """Return the data that text is as JSON; else the text."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError):  # numbers of thousands of digits are refused by the former
        return text


class Stopped(Exception):
    """The user, or the system, asked the command to stop."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.exit_code = 128 + number


def until_stopped(work: Coroutine[Any, Any, Any]) -> Any:
    """Run to the end, or until SIGINT or SIGTERM; then clean up and raise Stopped."""
    received: list[int] = []

    async def run() -> Any:
        task = asyncio.ensure_future(work)

        def stop(number: int) -> None:
            received.append(number)
            task.cancel()

        for number in (signal.SIGINT, signal.SIGTERM):
            asyncio.get_running_loop().add_signal_handler(number, stop, number)
        return await task

    try:
        return asyncio.run(run())
    except asyncio.CancelledError:
        raise Stopped(received[0] if received else signal.SIGINT) from None


@contextmanager
def only_data_on_stdout() -> Iterator[None]:
    """Let what tools and Ray print go to stderr meanwhile, so that stdout holds the data alone."""
    kept = os.dup(1)
    os.dup2(2, 1)
    try:
        yield
    finally:
        sys.stdout.flush()
        os.dup2(kept, 1)
        os.close(kept)


def print_json(value: Any) -> None:
    """Print data on stdout; raise EnvironmentProblem where it cannot be written."""
    try:
        typer.echo(json.dumps(value, ensure_ascii=False, indent=2))
        sys.stdout.flush()
    except OSError as error:
        raise EnvironmentProblem(f"the output cannot be written: {error.strerror}") from None


def say(text: str) -> None:
    """Say something to people, on stderr."""
    typer.echo(text, err=True)
