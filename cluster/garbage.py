"""How a cluster's processes look for cyclic garbage: never among what was imported, and hosts seldom at all."""

import gc

# Python's own 700 took a fifth of the time of a host with 256 executions at hand, which leave hardly any.
_NEW_OBJECTS = 50_000


def keep_what_is_there() -> None:
    """Look no more among the objects that are there now: else garbage is kept until it outweighs a quarter of them."""
    gc.collect()
    gc.freeze()


def look_seldom() -> None:
    """Look for garbage at every 50,000 new objects, and not among those that are there now."""
    keep_what_is_there()
    gc.set_threshold(_NEW_OBJECTS, 20, 10)
