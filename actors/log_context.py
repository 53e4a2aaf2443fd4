"""What the log records of a process are about: set where work begins, and inherited by the tasks that it starts."""

from contextvars import ContextVar
from typing import Any

_ABOUT: ContextVar[dict[str, Any]] = ContextVar("perdure_log_context")


def about(**fields: Any) -> None:
    """Say what this task, and those that it starts from now on, are about: execution, node, attempt, partition."""
    _ABOUT.set({**context(), **fields})


def context() -> dict[str, Any]:
    """Return what the current task is about."""
    return _ABOUT.get({})
