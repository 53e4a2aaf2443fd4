"""The command line's group `subscriptions`: list, delete, and forward to other buses."""

import asyncio
from pathlib import Path
from typing import Annotated, Any

import typer

from perdure.cli_support import AsJson, Stopped, Store, asked, say, settings_of_existing, show_data, until_stopped
from perdure.errors import BadInput

app = typer.Typer(no_args_is_help=True, help="Durable subscriptions to events: how far they are; forward to buses.")

Name = Annotated[str, typer.Argument(help="The subscription's name.", show_default=False)]
Types = Annotated[
    list[str] | None, typer.Option("--type", help="Only events of this type: ExecutionFailed.", show_default=False)
]
Workflows = Annotated[list[str] | None, typer.Option(help="Only of this workflow.", show_default=False)]
From_ = Annotated[str, typer.Option("--from", help="now, beginning, or a position of the log: what is behind it.")]


def first(given: str) -> str:
    """Return what --from says; raise BadInput."""
    if given not in ("now", "beginning") and not given.isdecimal():
        raise BadInput(f"--from {given}: it is now, beginning, or a position of the log")
    return given


@app.command("list")
def list_(store: Store = None, as_json: AsJson = False) -> None:
    """Show the durable subscriptions: their position, how far behind, who subscribed last.

    Example: perdure subscriptions list
    """
    rows = asked(store, lambda client: client.subscriptions())
    headings = {name: name for name in ("name", "position", "lag", "types", "workflows", "subscriber", "moved")}
    show_data(rows, as_json=as_json, show=lambda console: console.show_rows(headings, rows, "no subscriptions"))


@app.command()
def delete(name: Name, store: Store = None) -> None:
    """Forget a durable subscription: who subscribes under its name begins anew.

    Example: perdure subscriptions delete pager
    """
    asked(store, lambda client: client.unsubscribe(name))
    say(f"the subscription {name} is forgotten")


@app.command()
def forward(
    name: Name,
    sink: Annotated[str, typer.Argument(help="Where to: kafka://host:9092/topic, nats://host/subject.")],
    type: Types = None,
    workflow: Workflows = None,
    from_: From_ = "now",
    store: Store = None,
) -> None:
    """Hand events on to another bus, at least once, until it is stopped; it goes on where it was.

    Example: perdure subscriptions forward audit kafka://broker:9092/perdure --from beginning
    """
    begin = first(from_)
    drive(store, lambda client: client.forward(sink, name, types=type or (), workflow=workflow or (), from_=begin))


def drive(store: Path | None, work: Any) -> None:
    """Do what goes on until it is stopped."""
    settings = settings_of_existing(store)

    async def go_on() -> None:
        from perdure.cluster.client import AsyncClient

        client: AsyncClient
        async with await AsyncClient.open(settings, "none") as client:
            await work(client)

    try:
        until_stopped(go_on())
    except (Stopped, asyncio.CancelledError):
        say("stopped; it goes on where it was")
