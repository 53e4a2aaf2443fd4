"""Past executions made by hand, and what is tried on them."""

from dataclasses import replace
from datetime import timedelta
from typing import Any

from scenario import EXECUTION, NOW, start

from perdure.actors.decisions import decide
from perdure.actors.evolve import fold
from perdure.actors.inputs import (
    Input,
    ReportSuccess,
    SignalExecution,
)
from perdure.actors.outside import Outside
from perdure.actors.secret_values import Secrets
from perdure.actors.work import Work
from perdure.cluster.record import Record
from perdure.cluster.what_if import WhatIf
from perdure.cluster.what_if_calls import Runner
from perdure.definitions.loading import load
from perdure.definitions.plan import Plan
from perdure.events.entry import Entry
from perdure.events.vocabulary import Event
from perdure.scripts import as_reply


def plan_of(nodes: dict[str, Any], **parts: Any) -> Plan:
    return load({"name": "flow", "nodes": nodes, **parts}).plan


class Calls:
    """Really makes calls: each gives its node's name."""

    def __init__(self) -> None:
        self.made: list[tuple[str, Any]] = []
        self.runner = Runner(self, Secrets(), Outside())

    async def __call__(self, work: Work) -> Any:
        self.made.append((work.path, work.input))
        return as_reply("new") if work.node.calls == "model" else "new"


def done(path: str, value: Any = None) -> ReportSuccess:
    return ReportSuccess(path, 1, value)


def moments(plan: Plan, *inputs: tuple[float, Input], value: Any = None) -> list[Entry]:
    """Return what is recorded when inputs come so many seconds after the start."""
    entries, events = list[Entry](), list[Event]()
    for seconds, given in ((0.0, start(plan, value)), *inputs):
        at = NOW + timedelta(seconds=seconds)
        entries.append(
            Entry(f"e{len(entries)}", len(entries) + 1, "", at, decide(plan, EXECUTION, fold(events), given, at)[0])
        )
        events += entries[-1].events
    return entries


async def again(
    plan: Plan, past: list[Entry], changed: Plan | None = None, runner: Runner | None = None
) -> tuple[WhatIf, Any]:
    changed = changed or plan
    what_if = WhatIf(changed, Record({plan.digest: plan}, past), runner, NOW)
    return what_if, await what_if.run(start(changed))


def told(event: str, data: Any = None) -> SignalExecution:
    return SignalExecution(f"told-{event}", EXECUTION, event, data)


def alike(plan: Plan) -> Plan:
    """Return a definition that is another one, but by nothing that matters: calls may be made for it."""
    return replace(plan, digest="alike")
