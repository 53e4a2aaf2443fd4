"""What the command line shows of the past: entries and what they changed, two executions, a Gantt chart."""

import json
from collections.abc import Sequence
from datetime import datetime
from typing import Any

from rich.markup import escape
from rich.table import Table

from perdure.actors.described import Difference
from perdure.cluster.comparison import Comparison, NodeSummary
from perdure.cluster.evaluation import Evaluated
from perdure.console import STYLES, console
from perdure.events.entry import Entry

_LONG = 80  # characters of a value
_KINDS = {
    "execution": ("━", "bold"), "node": ("─", "cyan"), "attempt": ("█", "green"), "queue": ("░", "yellow"),
    "wait": ("▒", "blue"), "child": ("▓", "blue"), "pause": ("░", "yellow"), "state": ("─", "cyan"),
    "body": ("┄", "dim"), "timer": ("·", "dim"),
}  # fmt: skip
_BAD = frozenset({"failed", "cancelled", "terminated"})


def short(value: Any) -> str:
    """Return a value as one short line."""
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= _LONG else f"{text[: _LONG - 1]}…"


def show_step(entry: Entry, since: datetime, changes: Sequence[Difference]) -> None:
    """Show one entry: its number, its time since the start, its events, and what they changed."""
    names = ", ".join(_event_name(event) for event in entry.events) or "(a command that changed nothing)"
    console.print(
        f"[bold]{entry.n:>5}[/]  +{(entry.at - since).total_seconds():.3f} s  {escape(names)}", soft_wrap=True
    )
    show_changes(changes)


def _event_name(event: Any) -> str:
    place = getattr(event, "node", None) or getattr(event, "timer", None) or getattr(event, "body", None)
    return f"{type(event).__name__} {place}" if place else type(event).__name__


def show_changes(changes: Sequence[Difference]) -> None:
    """Show what changed, a line for each place."""
    for place, before, after in changes:
        was = "" if before is None else f"{short(before)} → "
        now = "gone" if after is None else short(after)
        console.print(f"         {place}: {was}{now}", markup=False, soft_wrap=True)


def show_comparison(told: Comparison) -> None:
    """Show two executions beside each other: nodes that differ, and those of the main body, then the whole."""
    one, other = told.one, told.other
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
    for heading in ("", one.execution, other.execution):
        table.add_column(escape(heading), overflow="fold")
    differ = set(told.nodes)
    for path in dict.fromkeys([*one.nodes, *other.nodes]):
        if path in differ or not {"/", "["} & set(path):
            both = [_node(each.nodes.get(path), whole=path in differ) for each in (one, other)]
            table.add_row(escape(path), *both, style="" if path in differ else "dim")
    for name in ("status", "output", "error", "seconds", "tokens", "cost", "digest", "input"):
        mine, theirs = getattr(one, name), getattr(other, name)
        if name in ("status", "seconds", "tokens", "cost") or mine != theirs:
            table.add_row(f"[dim]{name}[/]", escape(short(mine)), escape(short(theirs)))
    console.print(table)
    same = len({*one.nodes, *other.nodes}) - len(told.nodes)
    console.print(f"{same} nodes the same, {len(told.nodes)} differ; the outcomes {'agree' if told.same else 'differ'}")


def _node(node: NodeSummary | None, *, whole: bool) -> str:
    if node is None:
        return "[dim]none[/]"
    what = (node.error or ("" if node.output is None else short(node.output))) if whole else ""
    took = f" {node.seconds:.2f} s" if node.seconds is not None else ""
    paid = f" {node.tokens} tokens" if node.tokens else ""
    paid += f" cost {node.cost:g}" if node.cost else ""
    return f"[{STYLES[node.status]}]{node.status}[/]{' (reused)' if node.reused else ''}{took}{paid}  {escape(what)}"


def show_evaluated(told: Sequence[Evaluated], *, dry: bool) -> None:
    """Show what would become of executions under a changed definition, and how much of it is new."""
    for each in told:
        verdict = {True: "[green]same[/]", False: "[bold red]differs[/]", None: "[yellow]open[/]"}[each.same]
        console.print(f"{escape(each.execution)}  {verdict}  {len(each.reused)} from the record", soft_wrap=True)
        if each.ran:
            console.print(
                f"    {'would call' if dry else 'called'}: {', '.join(each.ran)}", markup=False, soft_wrap=True
            )
        if each.problem:
            console.print(f"    {each.problem}", markup=False, soft_wrap=True)
        if each.same is False and each.was is not None and each.now is not None:
            was, now = (each.was.error or each.was.output), (each.now.error or each.now.output)
            console.print(f"    {each.was.status}: {short(was)}", markup=False, soft_wrap=True)
            console.print(f"    {each.now.status}: {short(now)}", markup=False, soft_wrap=True)
            console.print(f"    nodes that differ: {', '.join(each.nodes)}", markup=False, soft_wrap=True)
    counts = [sum(each.same is verdict for each in told) for verdict in (True, False, None)]
    spent = f"; {sum(each.tokens for each in told)} tokens, cost {sum(each.cost for each in told):g}"
    console.print(f"{counts[0]} the same, {counts[1]} differ, {counts[2]} cannot be said without calls{spent}")


def show_timeline(spans: Sequence[dict[str, Any]], now: datetime, width: int | None = None) -> None:
    """Draw spans of time as a Gantt chart, a row for each; what is open goes up to now."""
    if not spans:
        console.print("nothing has happened yet")
        return
    began = min(span["began_at"] for span in spans)
    until = max(span["ended_at"] or now for span in spans)
    whole = max((until - began).total_seconds(), 1e-3)
    room = max(20, (width or min(console.width, 160)) - 60)
    for span in spans:
        console.print(_row(span, began, whole, room, now), soft_wrap=True, overflow="ignore", no_wrap=True)
    console.print(f"{'':<44}0 s{'':<{max(1, room - 3 - len(f'{whole:.2f} s'))}}{whole:.2f} s", markup=False)


def _row(span: dict[str, Any], began: datetime, whole: float, room: int, now: datetime) -> str:
    mark, style = _KINDS.get(span["kind"], ("─", "cyan"))
    start = (span["began_at"] - began).total_seconds()
    end = ((span["ended_at"] or now) - began).total_seconds()
    left = min(int(start / whole * room), room - 1)
    length = max(1, min(int(end / whole * room), room) - left)
    style = "bold red" if span["outcome"] in _BAD else style
    name = f"{span['kind']:<9} {span['path'] or ''}"
    name += f" #{span['attempt']}" if span["kind"] == "attempt" and (span["attempt"] or 0) > 1 else ""
    open_ = "" if span["ended_at"] else " …"
    told = f"{end - start:.2f} s{open_}" + (f" {span['outcome']}" if span["outcome"] in _BAD else "")
    bar = f"{'':<{left}}[{style}]{mark * length}[/]{'':<{room - left - length}}"
    return f"{escape(name[:42]):<43} {bar} {escape(told)}"
