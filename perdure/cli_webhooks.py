"""The command line's group `webhooks`: add, list, remove, dead, retry, run."""

from typing import TYPE_CHECKING, Annotated

import typer

from perdure.cli_subscriptions import From_, Types, Workflows, drive, first
from perdure.cli_support import AsJson, Store, asked, say, show_data

if TYPE_CHECKING:
    from perdure.cluster.client import AsyncClient

app = typer.Typer(no_args_is_help=True, help="Webhooks: events posted to your addresses, signed, tried again.")

Name = Annotated[str, typer.Argument(help="The webhook's name.", show_default=False)]


@app.command()
def add(
    name: Name,
    url: Annotated[str, typer.Argument(help="The address to post to.", show_default=False)],
    secret: Annotated[str, typer.Option(help="The name of the secret that signs.", show_default=False)],
    type: Types = None,
    workflow: Workflows = None,
    from_: From_ = "now",
    attempts: Annotated[int, typer.Option(min=1, help="All tries of one delivery.")] = 8,
    timeout: Annotated[float, typer.Option(help="Seconds of one try.")] = 10.0,
    store: Store = None,
) -> None:
    """Declare a webhook; the projection runner of `perdure up` tells it.

    Example: perdure webhooks add pager https://example.org/hook --secret PAGER_KEY --type ExecutionFailed
    """
    begin = first(from_)
    asked(
        store,
        lambda client: client.webhooks.add(
            name, url, secret=secret, types=type or (), workflow=workflow or (), from_=begin, attempts=attempts,
            timeout=timeout,
        ),
    )  # fmt: skip
    say(f"the webhook {name} is declared")


@app.command("list")
def list_(store: Store = None, as_json: AsJson = False) -> None:
    """Show all webhooks, and how many deliveries are pending and dead.

    Example: perdure webhooks list
    """
    rows = asked(store, lambda client: client.webhooks.list())
    headings = {name: name for name in ("name", "url", "types", "workflows", "pending", "dead", "by")}
    show_data(rows, as_json=as_json, show=lambda console: console.show_rows(headings, rows, "no webhooks"))


@app.command()
def remove(name: Name, store: Store = None) -> None:
    """Forget a webhook, with what it has not told yet.

    Example: perdure webhooks remove pager
    """
    asked(store, lambda client: client.webhooks.remove(name))
    say(f"the webhook {name} is forgotten")


@app.command()
def dead(
    name: Annotated[str | None, typer.Argument(help="Of this webhook only.", show_default=False)] = None,
    store: Store = None,
    as_json: AsJson = False,
) -> None:
    """Show what was not taken at the last attempt, and why.

    Example: perdure webhooks dead
    """
    rows = asked(store, lambda client: client.webhooks.dead(name))
    headings = {each: each for each in ("webhook", "position", "type", "execution", "attempts", "error")}
    show_data(rows, as_json=as_json, show=lambda console: console.show_rows(headings, rows, "nothing is dead"))


@app.command()
def retry(name: Name, store: Store = None) -> None:
    """Have the dead deliveries of a webhook tried again.

    Example: perdure webhooks retry pager
    """
    say(f"{asked(store, lambda client: client.webhooks.retry(name))} deliveries are tried again")


@app.command()
def run(store: Store = None) -> None:
    """Tell webhooks until it is stopped, where no cluster is up that does it.

    Example: perdure webhooks run
    """

    async def tell(client: "AsyncClient") -> None:
        await client.webhooks.run()

    drive(store, tell)
