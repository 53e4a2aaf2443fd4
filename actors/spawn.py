"""Spawning Ray actors: the one place where Ray's types are bent to ours."""

from collections.abc import Callable
from functools import cache
from typing import Any, TypeVar, cast

import ray
from ray.actor import ActorHandle

Kind = TypeVar("Kind")
# Once of each: every call makes a new class, 17 kB that only a full collection frees.
_remote = cast("Callable[[type], Any]", cache(ray.remote))


def spawn(kind: type[Kind], *arguments: Any, **options: Any) -> "ActorHandle[Kind]":
    """Start a Ray actor of a plain class, with Ray's options; it needs no CPU of its own unless they say so."""
    # Ray keeps the last 100,000 calls that it is told of in memory; what was called, our log tells.
    usual = {"num_cpus": 0, "enable_task_events": False}
    return cast("ActorHandle[Kind]", _remote(kind).options(**{**usual, **options}).remote(*arguments))


def cpus() -> int:
    """Return how many CPUs the Ray cluster has; at least 1."""
    return max(1, int(ray.cluster_resources().get("CPU", 1)))  # type: ignore[no-untyped-call]
