"""Spawning Ray actors: the one place where Ray's types are bent to ours."""

from typing import Any, TypeVar, cast

import ray
from ray.actor import ActorHandle

Kind = TypeVar("Kind")


def spawn(kind: type[Kind], *arguments: Any, **options: Any) -> "ActorHandle[Kind]":
    """Start a Ray actor of a plain class, with Ray's options; it needs no CPU of its own unless they say so."""
    return cast("ActorHandle[Kind]", ray.remote(kind).options(**{"num_cpus": 0, **options}).remote(*arguments))


def cpus() -> int:
    """Return how many CPUs the Ray cluster has; at least 1."""
    return max(1, int(ray.cluster_resources().get("CPU", 1)))  # type: ignore[no-untyped-call]
