"""What-if in bulk: the last executions of a workflow again under a changed definition, and what would differ."""

import asyncio
from collections.abc import AsyncIterator

import msgspec

from perdure.actors.inputs import StartExecution
from perdure.actors.listeners import active_states
from perdure.actors.mcp_pool import McpPool
from perdure.actors.outside import Outside
from perdure.actors.state import Started
from perdure.actors.work import call_in_thread, worker
from perdure.cluster.checks import checked, checked_input
from perdure.cluster.comparison import Summary, Times, differing, summarized, summary_of
from perdure.cluster.connection import Connection
from perdure.cluster.history import History
from perdure.cluster.model_wiring import models_of
from perdure.cluster.record import Record, digests_in
from perdure.cluster.secret_sources import secrets_in
from perdure.cluster.settings import Settings
from perdure.cluster.what_if import Runner, WhatIf
from perdure.definitions.loading import Definition
from perdure.definitions.plan import Plan
from perdure.errors import BadInput, CorruptBlob, CorruptEntry, DefinitionError, ExecutionNotFound

_AT_ONCE = 4  # executions


class Evaluated(msgspec.Struct):
    """One execution under a changed definition.

    same: it would end in the same way with the same output; None where a dry run cannot say. was, now: what became of
    it, None where it cannot be read, and what would. reused, ran: nodes answered from the record, and made (in a dry
    run: that would be made). left: what it waits for that the record does not answer. nodes: those that differ. tokens,
    cost: what this took.
    """

    execution: str
    same: bool | None
    was: Summary | None
    now: Summary | None = None
    reused: list[str] = []
    ran: list[str] = []
    left: list[str] = []
    nodes: list[str] = []
    tokens: int = 0
    cost: float = 0.0
    problem: str = ""


class Evaluation:
    """Evaluates a definition. dry: make no call; only say which would be made."""

    def __init__(
        self, connection: Connection, settings: Settings, definition: Definition, *, dry: bool = False
    ) -> None:
        self._connection = connection
        self._settings = settings
        self._definition = definition
        self._dry = dry

    async def each(self, executions: list[str]) -> AsyncIterator[Evaluated]:
        """Yield what would become of each execution, in their order. Raises as `checked`, and LogUnavailable."""
        pool = McpPool()
        try:
            runner = None if self._dry else self._runner(pool)
            room = asyncio.Semaphore(_AT_ONCE)

            async def one(execution: str) -> Evaluated:
                async with room:
                    return await self._one(execution, runner)

            tasks = [asyncio.create_task(one(execution)) for execution in executions]
            try:
                for task in tasks:
                    yield await task
            finally:
                for task in tasks:
                    task.cancel()
                await asyncio.gather(*tasks, return_exceptions=True)
        finally:
            await pool.close()

    def _runner(self, pool: McpPool) -> Runner:
        secrets = secrets_in(self._settings.secrets_dir)
        work = worker(models_of(self._connection, self._settings, secrets), call_in_thread)
        return Runner(work, secrets, Outside(self._settings.reach, secrets, self._connection.nats, pool))

    async def _one(self, execution: str, runner: Runner | None) -> Evaluated:
        """Evaluate one execution; one that cannot be read keeps nobody from the others."""
        try:
            return await self._evaluated(execution, runner)
        except (CorruptEntry, CorruptBlob, ExecutionNotFound, DefinitionError, BadInput) as error:
            return Evaluated(execution, None, None, problem=str(error))

    async def _evaluated(self, execution: str, runner: Runner | None) -> Evaluated:
        history = History(execution, self._connection)
        was = await summary_of(history)
        past = [recorded.entry for recorded in await history]
        plans = {digest: await self._plan(digest) for digest in digests_in(past)}
        try:
            start = self._start(was, execution)
        except BadInput as error:
            return Evaluated(execution, False, was, problem=str(error))
        what_if = WhatIf(self._definition.plan, Record(plans, past), runner, past[0].at)
        return self._told(was, what_if, await what_if.run(start))

    def _start(self, was: Summary, execution: str) -> StartExecution:
        plan, places = self._definition.plan, dict[str, str]()
        if self._dry:  # no tool, model or secret need be here
            value = checked_input(self._definition, was.input)
        else:
            value, places = checked(self._settings, self._definition, was.input, execution, sees_secrets=True)
        return StartExecution("evaluate", execution, plan.name, plan.digest, value, "evaluate", places)

    def _told(self, was: Summary, what_if: WhatIf, state: Started) -> Evaluated:
        now = summarized(was.execution, state, Times())
        same: bool | None = (was.status, was.output, was.error) == (now.status, now.output, now.error)
        problem = ""
        if state.outcome is None:
            same = None if self._dry and what_if.ran else False
            waits = sorted({*what_if.left, *(() if same is None else (*state.waiting, *active_states(state)))})
            problem = f"it does not come to an end: it is at {', '.join(waits)}" if waits else ""
        tokens = sum((use.get("input") or 0) + (use.get("output") or 0) for use in what_if.usage)
        return Evaluated(
            was.execution, same, was, now, what_if.reused, what_if.ran, what_if.left, differing(was.nodes, now.nodes),
            tokens, round(sum(use.get("cost") or 0 for use in what_if.usage), 9), problem,
        )  # fmt: skip

    async def _plan(self, digest: str) -> Plan:
        return await self._connection.registry.plan(digest)
