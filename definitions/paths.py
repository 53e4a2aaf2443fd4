"""The paths of nodes and bodies: `check[3]/verify`, `race/left/search`, `refund~undo`.

A body is an item or a pass (`check[3]`), a branch (`race/left`), "" for the main one, or one of the end (`finally`).
"""

from functools import lru_cache

UNDO = "~undo"
"""Behind a node's path: the call that compensates it."""

ENDS = ("on_failure", "on_cancel", "finally")
"""The bodies that run at an execution's end."""

Step = tuple[str, str]
"""A node's name, and the key of one of its bodies: an item's number or a branch's name."""


def body_of(node: str) -> str:
    """Return the body that a node stands in."""
    return node.rpartition("/")[0]


def name_of(node: str) -> str:
    """Return a node's name within its body."""
    return node.rpartition("/")[2]


def node_in(body: str, name: str) -> str:
    """Return the path of a node of this name in a body."""
    return f"{body}/{name}" if body else name


def inner_body(node: str, key: str) -> str:
    """Return the body of a node's item, pass (a number) or branch."""
    return f"{node}[{key}]" if key.isdecimal() else f"{node}/{key}"


def owner_of(body: str) -> tuple[str, str]:
    """Return the node that a body belongs to, and its key."""
    if body.endswith("]"):
        node, _, key = body[:-1].rpartition("[")
        return node, key
    node, _, key = body.rpartition("/")
    return node, key


def entry_of(chart: str, state: str, entry: int) -> str:
    """Return the body of one entry of a state, such as `order/chart/paid[1]`, of the chart whose body is `chart`."""
    return inner_body(node_in(chart, state), str(entry))


def chart_of(call: str) -> str:
    """Return the body of the statechart that a call such as `order/chart/paid[1]/notify` belongs to."""
    return body_of(owner_of(body_of(call))[0])


@lru_cache(maxsize=4096)
def steps_to(body: str) -> tuple[str, tuple[Step, ...]]:
    """Return where the way to a body begins ("" or one of the end), and the steps from there.

    Raises KeyError for what is no body's path: a node's, or a number's brackets around a branch's name.
    """
    parts = body.split("/") if body else []
    root = parts.pop(0) if parts and parts[0] in ENDS else ""
    steps: list[Step] = []
    while parts:
        part = parts.pop(0)
        if part.endswith("]"):
            name, _, key = part[:-1].partition("[")
            if not key.isdecimal():
                raise KeyError(body)
            steps.append((name, key))
        elif parts:
            steps.append((part, parts.pop(0)))
        else:
            raise KeyError(body)
    return root, tuple(steps)


def is_within(path: str, outer: str) -> bool:
    """Say whether a node or a body lies within another one; within "" lies everything but what runs at the end."""
    if not outer:
        return path.partition("/")[0] not in ENDS
    return path.startswith((f"{outer}/", f"{outer}["))
