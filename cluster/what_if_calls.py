"""The calls that an evaluation really makes: in its own process, under the execution's own name."""

from collections.abc import Awaitable, Callable
from typing import Any

import msgspec

from perdure.actors.inputs import ReportFailure, ReportSuccess
from perdure.actors.outside import Outside
from perdure.actors.secret_values import Secrets
from perdure.actors.state import NodeState, Started
from perdure.actors.transcripts import given_to
from perdure.actors.usage import Bill
from perdure.actors.work import Work, error_of
from perdure.definitions.plan import Plan


class Runner(msgspec.Struct, frozen=True):
    """What really makes a call."""

    work: Callable[[Work], Awaitable[Any]]
    secrets: Secrets
    outside: Outside

    async def made(
        self, plan: Plan, execution: str, started: Started, path: str, state: NodeState
    ) -> ReportSuccess | ReportFailure:
        """Make a call and return what it says."""
        node, places, bill = plan.node(path), started.started.tools, Bill()
        try:
            value = given_to(started, plan, path, state, self.secrets.reveal)
            work = Work(
                execution, path, node, state.attempt, value, plan, places.get(node.target), places=places,
                outside=self.outside, paid=bill.add,
            )  # fmt: skip
            result = await self.work(work)
            return ReportSuccess(path, state.attempt, self.secrets.redact(result), bill.total)
        except Exception as error:  # a tool may raise anything
            return ReportFailure(path, state.attempt, error_of(error, self.secrets.redact), bill.total)
