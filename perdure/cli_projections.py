"""The commands about projections: where they stand, what they could not fold, making them again."""

from typing import Annotated

import typer

from perdure.cli_support import AsJson, Store, asked, say, show_data
from perdure.errors import BadInput

app = typer.Typer(no_args_is_help=True, help="Read models: where they stand, what they could not fold, made again.")


@app.command("list")
def list_(store: Store = None, as_json: AsJson = False) -> None:
    """Show all projections: version, position in the log, how far behind, entries in quarantine.

    Example: perdure projections list
    """
    told = asked(store, lambda client: client.lag())
    rows = [{"name": name, **each} for name, each in told.items()]
    headings = {name: name for name in ("name", "version", "position", "lag", "quarantined")}
    show_data(rows, as_json=as_json, show=lambda console: console.show_rows(headings, rows, "no projections"))


@app.command("catch-up")
def catch_up(store: Store = None) -> None:
    """Bring all projections up to the end of the log, your own too; where a cluster is up, its runner does it.

    Example: perdure projections catch-up
    """
    position = asked(store, lambda client: client.catch_up())
    say(f"all projections are at position {position}")


@app.command()
def rebuild(
    names: Annotated[list[str] | None, typer.Argument(help="Their names.", show_default=False)] = None,
    every: Annotated[bool, typer.Option("--all", help="All of them.")] = False,
    store: Store = None,
) -> None:
    """Make projections again from the whole log; meanwhile they know only what is folded already.

    Example: perdure projections rebuild statistics
    """
    if bool(names) == every:
        raise BadInput("say which projections: their names, or --all; perdure projections list shows them")
    asked(store, lambda client: client.rebuild(names or None))
    say("made again")


@app.command()
def quarantine(store: Store = None, as_json: AsJson = False) -> None:
    """Show the entries of the log that projections could not fold, and why; a rebuild tries them again.

    Example: perdure projections quarantine
    """
    rows = asked(store, lambda client: client.quarantined())
    headings = {name: name for name in ("projection", "position", "execution", "error")}
    show_data(rows, as_json=as_json, show=lambda console: console.show_rows(headings, rows, "quarantine is empty"))
