"""The commands about what agents said: `perdure sessions list|show|forget`, `perdure transcript`."""

from shlex import quote
from typing import TYPE_CHECKING, Annotated

import typer

from perdure.cli_support import AsJson, Store, print_json, say, settings_of_existing, until_stopped
from perdure.errors import BadInput

if TYPE_CHECKING:
    from perdure.actors.transcripts import Said
    from perdure.cluster.settings import Settings

app = typer.Typer(help="What agents remember, by session.", no_args_is_help=True)

transcripts = typer.Typer()

Session = Annotated[str, typer.Argument(help="The session.", show_default=False)]


@app.command("list")
def list_(store: Store = None, as_json: AsJson = False) -> None:
    """List the sessions, each with how many records it has.

    Example: perdure sessions list
    """
    found = until_stopped(_list(settings_of_existing(store)))
    if as_json:
        print_json(found)
    elif not found:
        say("no sessions yet; a node of an agent has one by its `session`")
    else:
        for name, records in found.items():
            typer.echo(f"{name}  {records}")


@app.command()
def show(session: Session, store: Store = None, as_json: AsJson = False) -> None:
    """Show what is remembered of a session, oldest first.

    Example: perdure sessions show customer-42
    """
    _print(until_stopped(_show(settings_of_existing(store), session)), as_json=as_json)


@transcripts.command()
def transcript(
    execution: Annotated[str, typer.Argument(help="The execution's id.", show_default=False)],
    node: Annotated[str, typer.Argument(help="The path of an agent's node.", show_default=False)],
    store: Store = None,
    as_json: AsJson = False,
) -> None:
    """Show what was said at an agent's node so far, after a failure too.

    Example: perdure transcript order-42 answer
    """
    said = until_stopped(_said(settings_of_existing(store), execution, node))
    if not said:
        raise BadInput(f"at node {node!r} of {execution} no agent took turns; see perdure show {quote(execution)}")
    _print(said, as_json=as_json)


@app.command()
def forget(session: Session, store: Store = None) -> None:
    """Remove a session for good; what executions have recorded stays until they are purged.

    Example: perdure sessions forget customer-42
    """
    until_stopped(_forget(settings_of_existing(store), session))
    say(f"session {session} is forgotten")


def _print(said: "list[Said]", *, as_json: bool) -> None:
    import msgspec

    from perdure.console_streams import harmless

    if as_json:
        print_json([msgspec.to_builtins(each) for each in said])
        return
    for each in said:
        calls = ", ".join(f"{call.name} {call.arguments}" for call in each.calls)
        lines = [each.text] if each.text or not calls else []
        lines += [f"calls {calls}"] if calls else []
        typer.echo("\n".join(harmless(f"{each.role}: {line}") for line in lines))


async def _list(settings: "Settings") -> dict[str, int]:
    from perdure.cluster.client import AsyncClient

    async with await AsyncClient.open(settings, "none") as client:
        return await client.sessions()


async def _show(settings: "Settings", session: str) -> "list[Said]":
    from perdure.cluster.client import AsyncClient

    async with await AsyncClient.open(settings, "none") as client:
        return await client.session(session)


async def _forget(settings: "Settings", session: str) -> None:
    from perdure.cluster.client import AsyncClient

    async with await AsyncClient.open(settings, "none") as client:
        await client.forget_session(session)


async def _said(settings: "Settings", execution: str, node: str) -> "list[Said]":
    from perdure.cluster.client import AsyncClient

    async with await AsyncClient.open(settings, "none") as client:
        run = client.get(execution)
        await run.state()  # says so where there is none
        return await run.transcript(node)
