"""How often a cluster's processes look for cyclic garbage: seldom, for reference counts free nearly all of theirs."""

import gc

# Python's own 700 took a fifth of the time of a host with 256 executions at hand.
_NEW_OBJECTS = 50_000


def look_seldom() -> None:
    """Look for garbage at every 50,000 new objects, and never again among those that are there now."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(_NEW_OBJECTS, 20, 10)
