"""The attempts of one execution that wait at limits: what they claim, and whether nothing else of it is at work."""

import asyncio
import logging
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from perdure.actors.claims import spent_of
from perdure.actors.draft import Draft
from perdure.actors.state import NodeState, Started
from perdure.actors.usage import Bill
from perdure.definitions.plan import Plan
from perdure.definitions.plan_nodes import PlanNode
from perdure.errors import ExpressionError

_log = logging.getLogger("perdure.execution")


class AtLimits:
    """Knows which attempts wait; tell: told when all that is at work does, and when not any more."""

    def __init__(self, at_work: Callable[[], int], tell: Callable[[bool], None]) -> None:
        self._at_work = at_work
        self._tell = tell
        self._waiting: dict[asyncio.Task[Any], None] = {}
        self._parked = False
        self._leaving = False

    def park(self, *, on: bool) -> None:
        """Take note that the current attempt waits, or does not any more."""
        task = asyncio.current_task()
        assert task is not None  # noqa: S101 (attempts are tasks)
        if on:
            self._waiting[task] = None
            if self._leaving:
                task.cancel()
        else:
            self._waiting.pop(task, None)
        self.look()

    def look(self) -> None:
        """See whether anything is at work that does not wait."""
        if not self._waiting and not self._parked:
            return
        parked = bool(self._waiting) and len(self._waiting) >= self._at_work()
        if parked != self._parked:
            self._parked = parked
            self._tell(parked)

    def leave(self) -> None:
        """Stop those that wait, which have not begun: the next owner lets them wait."""
        self._leaving = True
        for task in self._waiting:
            task.cancel()

    def forget(self) -> None:
        """Take note that this is over."""
        self._waiting.clear()
        if self._parked:
            self._parked = False
            self._tell(False)


def limited_parts(
    execution: str,
    state: Started,
    plan: Plan,
    path: str,
    planned: PlanNode,
    node: NodeState,
    at_limits: AtLimits,
    bill: Bill,
) -> dict[str, Any]:
    """Return the parts of an attempt's `Work` that are about limits; its priority alone where it claims nothing."""
    own, began = planned.model.priority, state.started.began
    priority = state.started.priority if own is None else own
    if not node.limits:
        return {"priority": priority}

    def parked(on: bool) -> None:
        at_limits.park(on=on)

    def spent(result: Any) -> dict[str, float]:
        try:
            return spent_of(Draft(plan, execution, state, datetime.now(UTC)), path, result, bill.total)
        except ExpressionError as error:
            _log.warning("execution %s, node %s: what it took of a limit is not known: %s", execution, path, error)
            return {}

    return {
        "priority": priority, "claims": node.limits, "parked": parked, "spent": spent,
        "began": began.timestamp() if began is not None else 0.0,
    }  # fmt: skip
