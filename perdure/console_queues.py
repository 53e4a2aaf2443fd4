"""Who waits for what and why, as people read it in a terminal."""

from datetime import UTC, datetime
from typing import Any

from rich.markup import escape
from rich.table import Table

from perdure.console import console

_LINES = 20  # of those who wait for one value of a key


def show_queues(told: dict[str, Any]) -> None:
    """Show who holds each limit and who waits for it, the pools of node actors, and the starts that wait."""
    for limit in told["limits"]:
        _show_limit(limit)
    for pool in told["pools"]:
        why = f", {pool['waits']}" if pool["waits"] else ""
        busy = f"{pool['busy']} of {pool['actors']} node actors busy"
        console.print(f"[bold]pool {escape(pool['place'])}[/]  {busy}, {pool['queued']} calls wait{escape(why)}")
    if told["starts"]:
        by = ", ".join(f"{count} of priority {priority}" for priority, count in told["starts"].items())
        console.print(f"[bold]starts[/]  that no host has taken yet: {by}")
    if not (told["limits"] or told["pools"] or told["starts"]):
        console.print("nobody waits, and nobody holds anything")


def _show_limit(limit: dict[str, Any]) -> None:
    decided = "" if limit["decided"] else "  [dim](nobody decides about it now: as its log says)[/]"
    console.print(f"[bold]{escape(limit['limit'])}[/]  {_given(limit['gives'])}{decided}")
    table = Table(box=None, padding=(0, 2, 0, 2), header_style="dim")
    for heading in ("key", "", "who", "priority", "share", "since", "why"):
        table.add_column(heading, no_wrap=True)
    for key in limit["keys"]:
        left = f"{key['left']:g} left" if "left" in key else ""
        if left and not (key["held"] or key["waiting"]):
            table.add_row(escape(key["key"]), "", left)
        for each in key["held"]:
            table.add_row(
                *_row(key, "holds", each, f"superseded by {each['superseded_by']}" if "superseded_by" in each else left)
            )
        for each in key["waiting"][:_LINES]:
            table.add_row(*_row(key, "waits", each, key.get("why", "")))
        if key["waits"] > _LINES:
            table.add_row(escape(key["key"]), "", f"and {key['waits'] - _LINES} more wait")
    console.print(table)
    if limit["of_keys"] > len(limit["keys"]):
        console.print(f"  and {limit['of_keys'] - len(limit['keys'])} more values of the key")


def _given(given: dict[str, Any]) -> str:
    parts = [f"{given['concurrency']} at once"] if "concurrency" in given else []
    if "rate" in given:
        parts.append(f"{given['rate']:g} per {given['per']:g} s, {given['burst']:g} at once")
    return ", ".join([*parts, given["at_limit"].replace("_", " "), f"said by {given['of']}"]) if given else ""


def _row(key: dict[str, Any], what: str, each: dict[str, Any], why: str) -> list[str]:
    who = f"{each['execution']} {each['node']}" if "node" in each else each["execution"]
    seconds = (datetime.now(UTC) - datetime.fromisoformat(each["since"])).total_seconds()
    since = f"{seconds:.0f} s" if seconds < 120 else f"{seconds / 60:.0f} min"
    return [escape(part) for part in (key["key"], what, who, str(each["priority"]), each.get("share", ""), since, why)]
