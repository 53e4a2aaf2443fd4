"""Limits on a real server: shared by three hosts, whoever decides about them, and whoever of them dies."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from typing import Any
from uuid import uuid4

import pytest
from hosts_lab import GATES, MOST_AT_ONCE, RAN, Lab, begun, open_gate, until

from perdure.cluster.connection import Connection
from perdure.cluster.inbox import Lanes
from perdure.cluster.limit_log import LimitLogs
from perdure.cluster.nats_server import NatsServer
from perdure.cluster.ownership import Ownership
from perdure.cluster.queue_report import limit_report
from perdure.cluster.run import AsyncRun
from perdure.cluster.serving import Serving
from perdure.events.vocabulary import NodeResumed


class Labs:
    """Three lanes and a host for each, which have nothing in common but the server."""

    def __init__(self, server: NatsServer, connection: Connection) -> None:
        self.connection = connection
        self.labs = [Lab(server, connection) for _ in range(3)]
        self.name = f"l{uuid4().hex[:10]}"
        self.stacks: list[AsyncExitStack] = []
        self.serving: list[Serving] = []

    async def serve(self, **settings: Any) -> None:
        for lab in self.labs:
            await self.serve_one(lab, **settings)

    async def serve_one(self, lab: Lab, **settings: Any) -> None:
        stack = AsyncExitStack()
        how = {"limit_lease": 1.0, **settings}
        self.serving.append(await stack.enter_async_context(lab.host(f"{lab.lane}-{len(self.stacks)}", **how)))
        self.stacks.append(stack)

    async def kill(self, number: int) -> None:
        """Lose a host as when its process is killed."""
        await self.stacks[number].aclose()

    def workflow(self, limit: dict[str, Any], *, use: Any = None, **parts: Any) -> dict[str, Any]:
        node = {
            "tool": "hosts_lab:counted",
            "with": {"key": "${{ input.key }}", "of": self.name},
            "limit": use or self.name,
            "retry": {"attempts": 1},
        }
        return {"name": self.name, "limits": {self.name: limit}, "nodes": {"a": {**node, **parts}}}

    async def start(self, workflow: dict[str, Any], number: int, **how: Any) -> AsyncRun:
        """Start an execution on one of the lanes in turn; its gate and its id have the same name."""
        priority = how.pop("priority", 5)
        execution = how.pop("id", f"{self.name}-{number}")
        return await self.labs[number % 3].start(execution, workflow, {"key": execution, **how}, priority=priority)

    async def ran(self, count: int) -> list[str]:
        """Wait until so many tools have begun; return their keys."""
        await until(lambda: _is(len(self.begun()) >= count))
        return self.begun()

    def begun(self) -> list[str]:
        return [key for key in RAN if key.startswith(f"{self.name}-") and RAN[key]]


async def _is(what: bool) -> bool:
    return what


async def events_of(run: AsyncRun, *kinds: type) -> list[Any]:
    return [
        each.event for recorded in await run.history() for each in recorded.unpack() if isinstance(each.event, kinds)
    ]


@pytest.fixture
async def labs(server: NatsServer, connection: Connection) -> AsyncIterator[Labs]:
    labs = Labs(server, connection)
    yield labs
    for stack in labs.stacks:
        await stack.aclose()
    for lab in labs.labs:
        await Ownership(connection.nats, connection.registry, lab.lane).move(Lanes((lab.lane,)))
        for subject in (f"perdure.cmd.{lab.lane}.*", f"perdure.start.*.{lab.lane}.*"):
            await connection.nats.jetstream().purge_stream("PERDURE_INBOX", subject=subject)


async def test_three_hosts_share_one_limit_on_nodes(labs: Labs) -> None:
    await labs.serve()
    workflow = labs.workflow({"concurrency": 2})
    runs = [await labs.start(workflow, number) for number in range(9)]
    for count in range(2, 10):
        keys = await labs.ran(count)
        open_gate(next(key for key in keys if not GATES[key].is_set()))
    for key in labs.begun():
        open_gate(key)
    assert [await run.result(10) for run in runs] == [{"a": run.id} for run in runs]
    assert MOST_AT_ONCE[labs.name] == 2


async def test_a_limit_outlives_the_process_that_decides_about_it_and_what_that_held_lapses(labs: Labs) -> None:
    await labs.serve()
    workflow = labs.workflow({"concurrency": 1})
    first = await labs.start(workflow, 0)  # its host is the first to ask: it decides
    await labs.ran(1)
    others = [await labs.start(workflow, number) for number in (1, 2)]
    await asyncio.gather(*map(begun, others))
    await labs.kill(0)
    await labs.ran(2)
    assert MOST_AT_ONCE[labs.name] == 1  # the killed host's tool was stopped with it
    for run in others:
        open_gate(run.id)
    assert [await run.result(10) for run in others] == [{"a": run.id} for run in others]
    await labs.serve_one(labs.labs[0], limit_lease=1.0)
    open_gate(first.id)
    assert await first.result(10) == {"a": first.id}
    assert len(await events_of(first, NodeResumed)) == 1


async def test_a_resumed_attempt_takes_up_its_own_lease(labs: Labs) -> None:
    await labs.serve(limit_lease=60.0)
    workflow = labs.workflow({"concurrency": 1})
    deciding = await labs.start(workflow, 1)  # so that the second host decides, and lives on
    await labs.ran(1)
    open_gate(deciding.id)
    await deciding.result(10)
    run = await labs.start(workflow, 0)
    await labs.ran(2)
    await labs.kill(0)
    await labs.serve_one(labs.labs[0], limit_lease=60.0)  # far sooner than its lease lapses
    open_gate(run.id)
    assert await run.result(10) == {"a": run.id}


async def test_whoever_waits_longest_is_next_though_the_one_who_decides_has_died(labs: Labs) -> None:
    await labs.serve()
    workflow = labs.workflow({"concurrency": 1})
    held = await labs.start(workflow, 1)
    await labs.ran(1)
    older = await labs.start(workflow, 2)
    await until(lambda: _waits(labs, 1))
    newer = [await labs.start(workflow, number) for number in (3, 5, 6)]
    urgent = await labs.start(workflow, 8, priority=9)
    await until(lambda: _waits(labs, 5))
    assert [lab.openers[0].limits.decides(labs.name) for lab in labs.labs] == [False, True, False]
    await labs.labs[1].openers[0].limits.close()  # it decides nothing more, and its own attempts are not renewed
    open_gate(held.id)
    await labs.ran(2)
    assert labs.begun()[-1] == urgent.id
    open_gate(urgent.id)
    await labs.ran(3)
    assert labs.begun()[-1] == older.id
    for run in (older, *newer):
        open_gate(run.id)
    await asyncio.gather(*(run.result(10) for run in (older, *newer)))


async def _waits(labs: Labs, count: int) -> bool:
    told = await limit_report(labs.connection, LimitLogs(labs.connection.nats, 5.0, 1), labs.name)
    return bool(told["decided"]) and sum(key["waits"] for key in told["keys"]) == count
