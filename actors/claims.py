"""What calls and executions claim of limits: the values of their expressions, at the time of the decision."""

import json
import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from perdure.definitions.expressions import MOMENT, Moment
from perdure.definitions.limits import PlanLimit, PlanUse
from perdure.definitions.paths import body_of
from perdure.definitions.templates import Template, render
from perdure.errors import ExpressionError
from perdure.events.vocabulary import LimitClaim

if TYPE_CHECKING:
    from perdure.actors.draft import Draft


def claims_of(draft: "Draft", path: str) -> list[LimitClaim]:
    """Return what an attempt at a node claims, in the order in which it is to be asked for. Raises ExpressionError."""
    node = draft.plan.node(path)
    uses = draft.plan.uses_of(node)
    if not uses:
        return []
    scope = draft.names(body_of(path), node.reads, path)
    return [_claim(draft, each, scope, path) for each in uses]


def claim_of_gate(draft: "Draft", gate: PlanLimit) -> LimitClaim:
    """Return what a whole execution claims of a limit. Raises ExpressionError."""
    first = _first_names(draft, gate.group)
    return LimitClaim(gate.group, draft.at, _text(gate.key, first, gate), _text(gate.share, first, gate))


def spent_of(draft: "Draft", path: str, output: Any, usage: Any = None) -> dict[str, float]:
    """Return how much an attempt took of each limit in truth, where the definition says how to tell by its result.

    Raises ExpressionError.
    """
    node, found = draft.plan.node(path), dict[str, float]()
    for use in draft.plan.uses_of(node):
        if use.spent is not None:
            scope = {**draft.names(body_of(path), node.reads, path), "output": output, "usage": usage}
            found[use.limit.group] = _amount(render(use.spent, scope), use.limit, "spent")
    return found


def _claim(draft: "Draft", use: PlanUse, scope: Mapping[str, Any], path: str) -> LimitClaim:
    limit, first = use.limit, _first_names(draft, path)
    key = _text(use.key, first if use.key is limit.key else scope, limit)
    share = _text(use.share, first if use.share is limit.share else scope, limit)
    return LimitClaim(limit.group, draft.at, key, share, _amount(render(use.cost, scope), limit, "cost"))


def _first_names(draft: "Draft", path: str) -> dict[str, Any]:
    """Return what the expressions of a limit itself read: the execution's input, wherever it is used."""
    started = draft.state.started
    return {
        "input": started.input,
        "execution": {"id": draft.execution, "workflow": started.workflow},
        MOMENT: Moment(draft.at, f"{draft.execution}/{path}/limit"),
    }


def _text(template: Template, scope: Mapping[str, Any], limit: PlanLimit) -> str:
    if template is None:
        return ""
    value = render(template, scope)
    if isinstance(value, str):
        return value
    if isinstance(value, bool | int | float):
        return json.dumps(value)
    raise ExpressionError(f"the key of limit {limit.group!r} gave {value!r}; it is text, a number, true or false")


def _amount(value: Any, limit: PlanLimit, what: str) -> float:
    if isinstance(value, int | float) and not isinstance(value, bool) and value >= 0 and math.isfinite(value):
        return float(value)
    raise ExpressionError(f"{what!r} of limit {limit.group!r} gave {value!r}; it is a number, and not below 0")
