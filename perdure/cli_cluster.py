"""The commands that run a cluster: up, status, scale, down."""

import asyncio
import os
import subprocess
import sys
import time
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, Annotated, Any

import typer

from perdure.cli_support import (
    AsJson,
    Stopped,
    Store,
    print_json,
    say,
    settings_from,
    settings_of_existing,
    until_stopped,
)
from perdure.errors import BadInput, EnvironmentProblem

if TYPE_CHECKING:
    from perdure.cluster.connection import Connection
    from perdure.cluster.settings import Settings

app = typer.Typer()

_Hosts = Annotated[
    int | None,
    typer.Option(min=1, max=64, help="So many hosts; one per 2 CPUs, or as before, where absent.", show_default=False),
]
_LogFormat = Annotated[str | None, typer.Option(help="console or json: how the log is written.", show_default=False)]


@app.command()
def up(
    hosts: _Hosts = None,
    detach: Annotated[bool, typer.Option("--detach", help="Return when it is up, and leave it running.")] = False,
    log_format: _LogFormat = None,
    store: Store = None,
    as_json: AsJson = False,
) -> None:
    """Bring up a cluster that drives all executions of the store, and keep it up until Ctrl-C or perdure down.

    The server and Ray are those of PERDURE_NATS_URL and RAY_ADDRESS, or its own. Example: perdure up --detach
    """
    settings = settings_from({"hosts": hosts, "log_format": log_format, "store": store})
    if detach:
        _detached(settings, [*_options("--hosts", hosts), *_options("--log-format", log_format)], as_json=as_json)
        return
    try:
        until_stopped(_up(settings, as_json=as_json))
    except Stopped:
        say("down; executions that have not ended go on with the next perdure up")


@app.command()
def status(
    queue: Annotated[
        bool, typer.Option("--queue", help="Show who waits for what and why, and who holds it, in its place.")
    ] = False,
    store: Store = None,
    as_json: AsJson = False,
) -> None:
    """Show who serves the store: hosts, executions, what waits in the inbox, the log. Exit code 3: nobody does.

    Example: perdure status --queue
    """
    if queue:
        _show_queues(asyncio.run(_queues(settings_of_existing(store))), as_json=as_json)
        return
    told = asyncio.run(_status(settings_of_existing(store)))
    if as_json:
        print_json(told)
    else:
        from perdure import console

        console.show_cluster(told)
    if not any(host["state"] == "serving" for host in told["hosts"]):
        raise typer.Exit(3)


@app.command()
def scale(
    hosts: Annotated[int, typer.Argument(min=1, max=64, help="How many hosts there are to be.", show_default=False)],
    store: Store = None,
    as_json: AsJson = False,
) -> None:
    """Change the number of hosts; what runs on partitions that move comes to its end first.

    Example: perdure scale 4
    """
    settings = settings_of_existing(store)
    assignment = until_stopped(_scale(settings, hosts))
    if as_json:
        print_json(assignment)
    else:
        say(f"{len(assignment)} hosts: " + ", ".join(f"{name} {len(parts)}" for name, parts in assignment.items()))


@app.command()
def down(
    drain: Annotated[bool, typer.Option("--drain", help="Let running work come to its end first.")] = False,
    drain_timeout: Annotated[
        float | None, typer.Option(min=0, help="Seconds that it may take; 20 where absent.", show_default=False)
    ] = None,
    store: Store = None,
) -> None:
    """Take the cluster down; executions that have not ended go on with the next perdure up.

    Example: perdure down --drain
    """
    settings = settings_of_existing(store)
    seconds = drain_timeout if drain_timeout is not None else settings.drain_timeout
    if not until_stopped(_down(settings, seconds if drain or drain_timeout is not None else 0.0)):
        say("no cluster is up")
        return
    _wait_until_left(settings)
    say("down")


async def _up(settings: "Settings", *, as_json: bool) -> None:
    from perdure.cluster.up import open_cluster, take_down

    async with AsyncExitStack() as closing:
        cluster = await open_cluster(settings, closing)
        await cluster.show_logs(say)
        try:
            await cluster.start()
            told = {"nats": cluster.settings.nats_url, "store": str(cluster.settings.store), "pid": os.getpid()}
            if as_json:
                print_json(told)
                sys.stdout.flush()
                os.dup2(2, 1)  # what Ray prints from now on is none of the answer
            say(f"up: {told['nats']}, store {told['store']}; Ctrl-C or perdure down ends it")
            await cluster.until_down()
        except BaseException:
            await take_down(cluster.connection, settings.drain_timeout)
            raise


async def _status(settings: "Settings") -> dict[str, Any]:
    from perdure.cluster.status import status

    async with AsyncExitStack() as closing:
        connection = await _connected(settings, closing)
        return await status(connection, settings)


def _show_queues(told: dict[str, Any], *, as_json: bool) -> None:
    if as_json:
        print_json(told)
        return
    from perdure import console_queues

    console_queues.show_queues(told)


async def _queues(settings: "Settings") -> dict[str, Any]:
    from perdure.cluster.queue_report import queues

    async with AsyncExitStack() as closing:
        return await queues(await _connected(settings, closing))


async def _scale(settings: "Settings", hosts: int) -> dict[str, list[int]]:
    from perdure.cluster.up import scale

    async with AsyncExitStack() as closing:
        connection = await _connected(settings, closing)
        return await scale(connection, hosts, settings.drain_timeout + settings.ray_start_timeout)


async def _down(settings: "Settings", seconds: float) -> bool:
    from perdure.cluster.up import take_down

    async with AsyncExitStack() as closing:
        return await take_down(await _connected(settings, closing), seconds)


async def _connected(settings: "Settings", closing: AsyncExitStack) -> "Connection":
    from perdure.cluster.opening import open_store

    opened = await open_store(settings, "none", None)
    closing.push_async_callback(opened.closing.aclose)
    return opened.connection


def _detached(settings: "Settings", options: list[str], *, as_json: bool) -> None:
    """Start `perdure up` in a session of its own, and return when its cluster is up."""
    store = settings.store.absolute()
    try:
        store.mkdir(parents=True, exist_ok=True)
        log = (store / "up.log").open("ab")
    except OSError as error:
        raise EnvironmentProblem(f"the store {store} cannot be used: {error.strerror}") from None
    ready = store / "up.json"
    ready.unlink(missing_ok=True)
    command = [sys.executable, "-m", "perdure.cli", "up", "--json", "--store", str(store), *options]
    began = log.tell()
    with log, ready.open("wb") as data:
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=data, stderr=log, start_new_session=True)
    while not (told := ready.read_text()).endswith("}\n"):
        if process.poll() is not None:
            words = (store / "up.log").read_bytes()[began:].decode(errors="replace").strip()
            raise (EnvironmentProblem if process.returncode != BadInput.exit_code else BadInput)(words)
        time.sleep(0.05)
    if as_json:
        typer.echo(told, nl=False)
    say(f"up, as process {process.pid}; its log is {store / 'up.log'}, and perdure down ends it")


def _options(name: str, value: object) -> list[str]:
    return [] if value is None else [name, str(value)]


def _wait_until_left(settings: "Settings") -> None:
    """Wait until the process that brought a cluster up on this store has gone, and with it Ray and the server."""
    from perdure.cluster.up import is_up_here

    while is_up_here(settings):
        time.sleep(0.05)
