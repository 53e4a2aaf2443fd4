"""What the command line shows people: live progress, one execution, a list of executions. All of it on stderr."""

import json
import sys
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import nullcontext
from datetime import datetime
from typing import Any

from rich.console import Console
from rich.live import Live
from rich.markup import escape
from rich.table import Table

from perdure.actors.evolve import evolve
from perdure.actors.listeners import active_states
from perdure.actors.pools import PoolReport
from perdure.actors.state import INITIAL, ExecutionState, NodeState, Started
from perdure.cluster.listening import Heard
from perdure.cluster.tool_list import ListedTool
from perdure.console_charts import chart_line
from perdure.console_streams import Saying, harmless, hearing
from perdure.definitions.paths import UNDO
from perdure.events.entry import Happened
from perdure.events.vocabulary import (
    ChildRequested,
    Event,
    ExecutionAdmitted,
    ExecutionFailed,
    ExecutionFailing,
    ExecutionForked,
    ExecutionQueued,
    ExecutionStarted,
    LimitClaim,
    NodeAttemptFailed,
    NodeCaught,
    NodeFailed,
    NodeOpened,
    NodePlaced,
    NodeResumed,
    NodeScheduled,
    NodeSucceeded,
    NodeWaiting,
)

STYLES = {
    "active": "bold cyan",
    "running": "cyan",
    "queued": "yellow",
    "paused": "yellow",
    "cancelling": "yellow",
    "compensating": "magenta",
    "waiting": "blue",
    "open": "cyan",
    "retrying": "yellow",
    "stuck": "bold yellow",
    "catching": "yellow",
    "caught": "green",
    "compensated": "magenta",
    "terminated": "bold red",
    "succeeded": "green",
    "failed": "bold red",
    "skipped": "dim",
    "cancelled": "dim",
}

_COUNTS = frozenset({"actors", "busy", "starting", "calls", "queued"})

console = Console(stderr=True, highlight=False, emoji=False, width=None if sys.stderr.isatty() else 200)


class Progress:
    """The nodes of one execution as they stand, and how long each took; fed with its events in order."""

    def __init__(self, execution: str) -> None:
        self.execution = execution
        self.state: ExecutionState = INITIAL
        self.began: dict[str, datetime] = {}
        self.ended: dict[str, datetime] = {}
        self._over: dict[str, NodeState] = {}
        self.started: datetime | None = None
        self.fork: dict[str, Any] = {}
        self.saying = Saying()

    def feed(self, happened: Happened) -> str | None:
        """Take in one event; return the node whose status it changed, if it is one's."""
        event = happened.event
        self.state = evolve(self.state, event)
        if isinstance(event, ExecutionStarted):
            self.started = happened.at
        elif isinstance(event, ExecutionForked):
            self.fork = {"of": event.execution, "after": event.at}
        node: str | None = getattr(event, "node", None)
        if node is None or isinstance(event, ExecutionFailed | ExecutionFailing):
            return None
        if not isinstance(self.state, Started):
            return None
        if self.state.node(node) is None:
            if not isinstance(event, NodeSucceeded) or node not in self.began:
                return None
            # The state does not keep the calls of statecharts that succeeded; the last one is still told of.
            self._over = {node: NodeState("succeeded", event.attempt)}
        if isinstance(event, ChildRequested | NodeScheduled | NodeResumed | NodeWaiting | NodeOpened):
            self.began[node] = happened.at
        elif isinstance(event, NodePlaced):
            self.began[node] = happened.at  # its time in the queue is not its work's
        elif isinstance(event, NodeSucceeded | NodeFailed | NodeAttemptFailed | NodeCaught):
            self.ended[node] = happened.at
        return str(node)

    def line(self, name: str) -> tuple[str, str, str, str, str]:
        """Return what there is to say of a node: name, status, attempt, seconds, remark."""
        assert isinstance(self.state, Started)  # noqa: S101 (a node is named by events after the start)
        node = self.state.node(name) or self._over.get(name) or NodeState("cancelled")
        seconds = ""
        if name in self.began and name in self.ended and node.status not in ("running", "waiting", "open"):
            seconds = f"{(self.ended[name] - self.began[name]).total_seconds():.2f} s"
        error = f"{node.error.type}: {node.error.message}" if node.error else ""
        remark = "reused" if node.reused else node.reason or error or _waits_for(node)
        remark = remark or (self.saying.tail(name) if node.status == "running" else "")
        remark = harmless(remark)
        attempt = f"attempt {node.attempt}" if node.attempt else ""
        if node.waits_for:
            return name, "queued", attempt, "", node.waits_for
        return name, node.status, attempt, seconds, remark

    def table(self) -> Table:
        """Return all nodes so far as a table."""
        table = Table(box=None, show_header=False, padding=(0, 2, 0, 0))
        names = self.state.nodes if isinstance(self.state, Started) else ()
        if isinstance(self.state, Started):
            how = "active" if self.state.outcome is None else "ended here"
            for state in active_states(self.state):
                table.add_row(f"  {state}", f"[{STYLES['active']}]{how}[/]", "", "", "")
        for name, status, attempt, seconds, remark in sorted((self.line(name) for name in names), key=self._order):
            table.add_row(f"  {name}", f"[{STYLES[status]}]{status}[/]", attempt, seconds, escape(remark))
        return table

    def _order(self, row: tuple[str, ...]) -> tuple[float, str]:
        began = self.began.get(row[0]) or self.ended.get(row[0])
        return began.timestamp() if began else float("inf"), row[0]


def _waits_for(node: NodeState) -> str:
    if node.status != "waiting":
        return ""
    if "approval" in node.input:
        details = node.input.get("details")
        shown = "" if details is None else f"  {json.dumps(details, ensure_ascii=False)}"
        return str(node.input.get("title", "")) + shown  # whole: nobody is to approve what is not shown
    if "child" in node.input:
        return f"child {node.input['child']}"
    return ", ".join(f"{what} {value}" for what, value in node.input.items())


async def follow(
    progress: Progress, events: AsyncIterator[Happened], heard: AsyncIterator[Heard] | None = None
) -> None:
    """Show progress live, up to the execution's end: a table on a terminal, a line per change elsewhere.

    heard: what its models say meanwhile.
    """
    live = Live(console=console, refresh_per_second=8) if console.is_terminal else nullcontext()
    with live as display:

        def tell(lines: list[str]) -> None:
            if display is not None:
                display.update(progress.table())
                return
            for line in lines:
                console.print(line, markup=False, soft_wrap=True)

        async with hearing(heard, progress.saying, tell):
            async for happened in events:
                node = progress.feed(happened)
                said = progress.saying.end(node) if node is not None and node in progress.ended else []
                shown = _limit_line(happened.event) or chart_line(happened.event)
                line = shown if node is None else "  ".join(filter(None, progress.line(node)))
                tell([*said, *([line] if line is not None else [])])


def _limit_line(event: Event) -> str | None:
    """Say that an execution waits to be let in, or was."""
    if isinstance(event, ExecutionQueued):
        return f"queued  {_claimed(event.claim)}"
    return f"let in by limit {event.limit!r}" if isinstance(event, ExecutionAdmitted) else None


def _claimed(claim: LimitClaim) -> str:
    return f"limit {claim.limit!r}" + (f" (key {claim.key!r})" if claim.key else "")


def show(progress: Progress) -> None:
    """Show one execution: what it is, how it stands, and its nodes."""
    state = progress.state
    assert isinstance(state, Started)  # noqa: S101 (callers have checked that it exists)
    started = f"{progress.started:%Y-%m-%d %H:%M:%S} UTC" if progress.started else ""
    console.print(
        f"[bold]{escape(progress.execution)}[/]  {state.started.workflow}  "
        f"[{STYLES[state.status]}]{state.status}[/]  {started}"
    )
    if progress.fork:
        console.print("  a fork of {of}, after its entry {after}".format(**progress.fork), markup=False, soft_wrap=True)
    if state.status == "queued" and state.queued is not None:
        console.print(f"  waits for {escape(_claimed(state.queued))}; see perdure status --queue")
    queued = Counter(node.waits_for for node in state.nodes.values() if node.waits_for)
    for waits_for, count in queued.most_common():
        console.print(f"  [yellow]{count} queued[/]: {escape(waits_for)}")
    console.print(progress.table())
    _show_undone(state)
    if isinstance(state.outcome, ExecutionFailed):
        console.print(failure(progress.execution, state.outcome), markup=False, soft_wrap=True)


def _show_undone(state: Started) -> None:
    """Say what was undone, and what not and why."""
    tried = {path.removesuffix(UNDO): node for path, node in state.nodes.items() if path.endswith(UNDO)}
    undone = sorted((node.order, path) for path, node in tried.items() if node.status == "succeeded")
    if undone:
        console.print(f"undone: {', '.join(path for _, path in undone)}", markup=False, soft_wrap=True)
    for path, node in sorted(tried.items()):
        if node.status == "failed" and node.error is not None:
            console.print(f"not undone: {path}: {node.error.type}: {node.error.message}", markup=False, soft_wrap=True)


def failure(execution: str, outcome: ExecutionFailed) -> str:
    """Return the sentence that says where and why an execution failed."""
    place = f" at node '{outcome.node}' (attempt {outcome.attempt})" if outcome.node else ""
    return f"execution {execution} failed{place}: {outcome.error.type}: {outcome.error.message}"


def show_list(rows: list[dict[str, Any]], empty: str) -> None:
    """Show executions, one a line, or the sentence that there are none."""
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
    for heading in ("execution", "workflow", "status", "started (UTC)", "took", "error"):
        table.add_column(heading, no_wrap=True)
    for row in rows:
        took = f"{(row['ended_at'] - row['started_at']).total_seconds():.2f} s" if row["ended_at"] else ""
        place = "" if row["status"] == "compensated" else f"{row['failed_node'] or 'output'}: "
        error = f"{place}{row['error_type']}" if row["error_type"] else ""
        status = f"[{STYLES[row['status']]}]{row['status']}[/]"
        table.add_row(
            escape(row["id"]),
            row["workflow"],
            status,
            f"{row['started_at']:%Y-%m-%d %H:%M:%S}",
            took,
            escape(error),
        )
    console.print(table if rows else empty)


def show_rows(headings: dict[str, str], rows: Sequence[dict[str, Any]], empty: str) -> None:
    """Show rows, one a line, by these columns; or the sentence that there are none."""
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
    for heading in headings.values():
        table.add_column(heading)
    for row in rows:
        table.add_row(*(escape(harmless(_cell(row[name]))) for name in headings))
    console.print(table if rows else empty)


def _cell(value: Any) -> str:
    if isinstance(value, datetime):
        return f"{value:%Y-%m-%d %H:%M:%S}"
    if isinstance(value, float):
        return f"{value:.3g}"
    if isinstance(value, list):
        return ", ".join(map(str, value))
    if isinstance(value, dict):
        return json.dumps(value, ensure_ascii=False)
    return "" if value is None else str(value)


def show_counts(counts: dict[str, int]) -> None:
    """Show how many executions there are in each status."""
    show_rows({"status": "status", "count": "count"},
              [{"status": status, "count": count} for status, count in sorted(counts.items())], "none")  # fmt: skip


def show_pools(reports: Sequence[PoolReport]) -> None:
    """Show pools of node actors, one a line."""
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
    for heading in ("tool", "each takes", "actors", "busy", "starting", "calls", "queued", "for"):
        table.add_column(heading, no_wrap=heading != "tool", justify="right" if heading in _COUNTS else "left")
    for each in reports:
        counts = (each.actors - each.coming, each.busy, each.coming, each.calls, each.queued)
        waits = each.waits.removeprefix("waiting for ")
        table.add_row(escape(each.place), escape(each.needs), *map(str, counts), escape(waits))
    console.print(table if reports else "no node actors now; they come with the first call that needs one")


def show_tools(found: Sequence[ListedTool]) -> None:
    """Show tools, one a line, with what they take."""
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
    for heading in ("tool", "takes", "tags", "from", "what it is for"):
        table.add_column(heading, overflow="fold")
    for each in found:
        named = each.name if each.version == "1" else f"{each.name}@{each.version}"
        about = each.problem or each.description.partition("\n")[0]
        table.add_row(*map(escape, (named, _taken(each.parameters), ", ".join(each.tags), each.place, about)))
    console.print(table if found else "no tools")


def _taken(parameters: dict[str, Any] | None) -> str:
    """Return the names of arguments, those that may be left out with a question mark."""
    known = parameters or {}
    return ", ".join(name if name in known.get("required", ()) else f"{name}?" for name in known.get("properties", {}))


def show_versions(headings: Sequence[str], rows: Sequence[Sequence[str]], empty: str) -> None:
    """Show versions of registered workflows, one a line, or the sentence that there are none."""
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
    for heading in headings:
        table.add_column(heading, no_wrap=True)
    for row in rows:
        table.add_row(*map(escape, row))
    console.print(table if rows else empty)


def show_cluster(told: dict[str, Any]) -> None:
    """Show who serves a store, what waits, and how far the log is."""
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
    for heading in ("host", "state", "active", "partitions", "epoch", "process"):
        table.add_column(heading, no_wrap=True)
    for host in told["hosts"]:
        style = "green" if host["state"] == "serving" else "bold red"
        where = f"{host['pid']} on {host['node']}" if "pid" in host else ""
        served = str(len(host.get("partitions", []))) + (f", {host['leaving']} leave" if host.get("leaving") else "")
        active = f"{host['active']} of {host['capacity']}" if "active" in host else ""
        state = f"[{style}]{host['state']}[/]"
        table.add_row(host["host"], state, active, served, str(host.get("epoch", "")), escape(where))
    console.print(table if told["hosts"] else "no host was ever started here")
    supervisor = told["supervisor"]
    standing_by = f"; {supervisor.get('standing_by', 0)} stand by" if supervisor else ""
    console.print(f"supervisor  {'answers' if supervisor is not None else 'none'}{standing_by}")
    for name in ("executions", "inbox", "log"):
        console.print(f"{name:<10}  " + ", ".join(f"{value} {what}" for what, value in told[name].items()))
    for name, state in told["projections"].items():
        aside = f", {state['quarantined']} in quarantine" if state["quarantined"] else ""
        console.print(f"projection  {name}: {state['lag']} behind{aside}")


def as_json(value: Any) -> str:
    """Return JSON for stdout, times in ISO 8601."""
    return json.dumps(value, ensure_ascii=False, indent=2, default=_iso)


def _iso(value: Any) -> str:
    return value.isoformat() if isinstance(value, datetime) else str(value)
