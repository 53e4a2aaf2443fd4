"""What models took for an attempt: tokens and cost, of all that answered, be an answer of use or not. Pure."""

from collections.abc import Callable
from typing import Any

Usage = dict[str, Any]
"""The `model`, the tokens `input` and `output`, and their `cost` where the model has a price."""

Paid = Callable[[Usage], None]
"""Takes what a model took, as soon as that is known."""


def added(one: Usage | None, other: Usage | None) -> Usage | None:
    """Return what two took together; the model is the later one's."""
    if one is None or other is None:
        return one or other
    both = {"model": other["model"], **{name: one[name] + other[name] for name in ("input", "output")}}
    if "cost" in one or "cost" in other:
        both["cost"] = round(one.get("cost", 0.0) + other.get("cost", 0.0), 9)
    return both


class Bill:
    """What was taken so far; `total` is None where no model was asked."""

    def __init__(self) -> None:
        self.total: Usage | None = None

    def add(self, usage: Usage) -> None:
        """Add what one more reply took."""
        self.total = added(self.total, usage)


def unpaid(_usage: Usage) -> None:
    """Take what nobody counts."""
