"""Durable workflows on Ray: what a program needs is importable from here, and loaded when first used."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from perdure.actors.context import Context
    from perdure.actors.tools import tool
    from perdure.cluster.client import AsyncClient, connect_async
    from perdure.cluster.run import AsyncRun
    from perdure.cluster.settings import Settings
    from perdure.cluster.sync_client import Client, Run, connect
    from perdure.definitions.builder import dag
    from perdure.definitions.chart_builder import statechart
    from perdure.definitions.model import Workflow
    from perdure.definitions.own_kinds import node
    from perdure.definitions.references import expression
    from perdure.definitions.yaml_writer import to_yaml
    from perdure.errors import (
        CallCancelled,
        CommandNotAllowed,
        ExecutionExists,
        ExecutionFailed,
        ExecutionNotFound,
        ExecutionStopped,
        LimitReached,
        PerdureError,
        QuotaExceeded,
        RetryLater,
        StateNotReached,
        WaitTimeout,
    )
    from perdure.projections.projection import Projection

__all__ = [
    "AsyncClient",
    "AsyncRun",
    "CallCancelled",
    "Client",
    "CommandNotAllowed",
    "Context",
    "ExecutionExists",
    "ExecutionFailed",
    "ExecutionNotFound",
    "ExecutionStopped",
    "LimitReached",
    "PerdureError",
    "Projection",
    "QuotaExceeded",
    "RetryLater",
    "Run",
    "Settings",
    "StateNotReached",
    "WaitTimeout",
    "Workflow",
    "connect",
    "connect_async",
    "dag",
    "expression",
    "node",
    "statechart",
    "to_yaml",
    "tool",
]

# Loaded lazily: a tool module or a worker that imports `perdure` pays only for what it uses.
_HOMES = {
    "AsyncClient": "perdure.cluster.client",
    "AsyncRun": "perdure.cluster.run",
    "CallCancelled": "perdure.errors",
    "Client": "perdure.cluster.sync_client",
    "CommandNotAllowed": "perdure.errors",
    "Context": "perdure.actors.context",
    "ExecutionExists": "perdure.errors",
    "ExecutionFailed": "perdure.errors",
    "ExecutionNotFound": "perdure.errors",
    "ExecutionStopped": "perdure.errors",
    "LimitReached": "perdure.errors",
    "PerdureError": "perdure.errors",
    "Projection": "perdure.projections.projection",
    "QuotaExceeded": "perdure.errors",
    "RetryLater": "perdure.errors",
    "Run": "perdure.cluster.sync_client",
    "Settings": "perdure.cluster.settings",
    "StateNotReached": "perdure.errors",
    "WaitTimeout": "perdure.errors",
    "Workflow": "perdure.definitions.model",
    "connect": "perdure.cluster.sync_client",
    "connect_async": "perdure.cluster.client",
    "dag": "perdure.definitions.builder",
    "expression": "perdure.definitions.references",
    "node": "perdure.definitions.own_kinds",
    "statechart": "perdure.definitions.chart_builder",
    "to_yaml": "perdure.definitions.yaml_writer",
    "tool": "perdure.actors.tools",
}


def __dir__() -> list[str]:
    return [*globals(), *_HOMES]


def __getattr__(name: str) -> Any:
    """Import a public name from its home the first time it is used."""
    if name not in _HOMES:
        raise AttributeError(f"module 'perdure' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)
