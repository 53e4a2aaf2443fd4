"""A Ray remote function in a module of its own."""

import ray


@ray.remote
def tripled(number: int) -> int:
    """Triple a number."""
    return 3 * number
