"""Ray remote functions as tools: called by import path, on the Ray that the execution runs on."""

import asyncio
import inspect
import sys
from collections.abc import Callable
from typing import Any

from perdure.errors import EnvironmentProblem

OF_FILE = "perdure_tools_"
"""What the names of the modules that are tool files begin with."""


def is_remote(target: Any) -> bool:
    """Say whether something was decorated by `@ray.remote`; Ray is not imported for it."""
    return type(target).__module__ == "ray.remote_function" and type(target).__name__ == "RemoteFunction"


def plain(target: Any) -> Callable[..., Any]:
    """Return the function within, whose signature says what it takes and gives."""
    function: Callable[..., Any] = inspect.unwrap(target._function)
    return function


def calling(target: Any) -> Callable[..., Any]:
    """Return what calls a remote function and awaits its result; a call that is cancelled cancels the task."""
    _let_travel(plain(target).__module__)

    async def call(*args: Any, **kwargs: Any) -> Any:
        import ray
        from ray.exceptions import RayError, RayTaskError

        from perdure.actors.work import WorkerLost

        if not ray.is_initialized():
            raise EnvironmentProblem("a Ray remote function needs Ray, and this execution runs without; see --local")
        reference = target.remote(*args, **kwargs)
        try:
            return await reference
        except asyncio.CancelledError:
            ray.cancel(reference)
            raise
        except RayTaskError as error:
            raise error.cause from None
        except RayError as error:
            raise WorkerLost(f"the Ray task is lost: {error}") from error

    return call


def _let_travel(module: str) -> None:
    """Have the functions of a tool file sent whole: Ray's workers cannot import it by the name that it has here."""
    if module.startswith(OF_FILE):
        from ray import cloudpickle

        cloudpickle.register_pickle_by_value(sys.modules[module])  # type: ignore[no-untyped-call]
