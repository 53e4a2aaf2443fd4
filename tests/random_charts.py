"""Random statecharts that come to rest: hierarchy, regions, histories, final states, guards, internal events."""

from dataclasses import dataclass, field
from random import Random
from typing import Any

LIMIT = 40
"""The count up to which transitions on internal events and on none are taken; all transitions and entries count."""

EVENTS = ("e.one", "e.two", "f", "f.more.yet")
"""What comes from outside."""

COUNT = {"set": {"n": "${{ context.n + 1 }}"}}

_DESCRIPTORS = ("e.one", "e.two", "e.*", "e", "f", "f.more", "*")
_RAISED = ("i.one", "i.two")


@dataclass
class _Tree:
    """A chart in the making: the kinds and parents of its states by path, in document order."""

    rng: Random
    kinds: dict[str, str] = field(default_factory=dict)
    parents: dict[str, str | None] = field(default_factory=dict)

    def within(self, path: str | None) -> list[str]:
        return [each for each in self.kinds if path is None or each.startswith(f"{path}.")]

    def children(self, path: str | None) -> list[str]:
        return [each for each, parent in self.parents.items() if parent == path and self.kinds[each] != "history"]


def random_chart(rng: Random) -> dict[str, Any]:
    """Return the definition of a chart; every state has a name that no other one has."""
    tree = _Tree(rng)
    for _ in range(rng.randint(2, 3)):
        _grow(tree, None, 1)
    if rng.random() < 0.3:
        _name(tree, None, "final")
    states: dict[str, Any] = {}
    for path, kind in tree.kinds.items():
        parent = tree.parents[path]
        around = states if parent is None else _at(states, parent)["states"]
        around[path.rpartition(".")[2]] = _state(tree, path, kind)
    chart = {"name": "random", "kind": "statechart", "context": {"n": 0, "log": []}, "states": states}
    if rng.random() < 0.4:
        chart["initial"] = _targets(tree, [each for each in tree.within(None) if tree.kinds[each] != "history"])
    return chart


def _name(tree: _Tree, parent: str | None, kind: str) -> str:
    name = f"s{len(tree.kinds)}"
    path = name if parent is None else f"{parent}.{name}"
    tree.kinds[path], tree.parents[path] = kind, parent
    return path


def _grow(tree: _Tree, parent: str | None, depth: int) -> None:
    rng = tree.rng
    kind = rng.choice(["atomic", "compound", "parallel", "compound"]) if depth < 4 else "atomic"
    path = _name(tree, parent, kind)
    if kind == "atomic":
        return
    if rng.random() < 0.4:
        _name(tree, path, "history")
    for _ in range(rng.randint(1 if kind == "compound" else 2, 3 if depth < 2 else 2)):
        _grow(tree, path, depth + 1)
    if kind == "compound" and rng.random() < 0.4:
        _name(tree, path, "final")


def _at(states: dict[str, Any], path: str) -> dict[str, Any]:
    found: dict[str, Any] = {"states": states}
    for name in path.split("."):
        found = found["states"][name]
    return found


def _state(tree: _Tree, path: str, kind: str) -> dict[str, Any]:
    rng = tree.rng
    if kind == "history":
        parent = tree.parents[path]
        deep = rng.random() < 0.5
        fitting = tree.within(parent) if deep else tree.children(parent)
        fitting = [each for each in fitting if tree.kinds[each] != "history"]
        return {"type": "history", "deep": deep, "default": _targets(tree, fitting)}
    state: dict[str, Any] = {"entry": [_log(f"+{path}"), COUNT], "exit": [_log(f"-{path}")]}
    if rng.random() < 0.1:
        state["entry"].append({"raise": rng.choice(_RAISED)})
    if kind == "final":
        return {"type": "final", **state}
    state["on"] = _transitions(tree, path)
    if rng.random() < 0.25:
        state["always"] = [_bounded(tree, path, "always")]
    if kind in ("compound", "parallel"):
        state["states"] = {}
        if rng.random() < 0.5:
            state["on_done"] = [_bounded(tree, path, "done")]
    if kind == "parallel":
        state["type"] = "parallel"
    elif kind == "compound" and rng.random() < 0.4:
        state["initial"] = _targets(tree, tree.within(path))
    return state


def _transitions(tree: _Tree, path: str) -> dict[str, Any]:
    rng, on = tree.rng, dict[str, Any]()
    for _ in range(rng.randint(0, 3)):
        descriptor = rng.choice((*_DESCRIPTORS, *_RAISED))
        ours = descriptor in ("*", *_RAISED)
        way = _bounded(tree, path, descriptor) if ours else _way(tree, path, descriptor)
        on.setdefault(descriptor, []).append(way)
    return on


def _way(tree: _Tree, path: str, on: str) -> dict[str, Any]:
    """Return a transition that writes what it is into the log, and counts."""
    rng = tree.rng
    way: dict[str, Any] = {"do": [COUNT, _log(f"{path} on {on}")]}
    if rng.random() < 0.85:
        fitting = tree.within(path) if rng.random() < 0.3 else tree.within(None)
        way["target"] = _targets(tree, fitting or tree.within(None))
    if rng.random() < 0.25:
        way["internal"] = True
    if rng.random() < 0.15:
        way["do"].append({"raise": rng.choice(_RAISED)})
    if (guard := _guard(tree)) is not None:
        way["if"] = guard
    return way


def _bounded(tree: _Tree, path: str, on: str) -> dict[str, Any]:
    way = _way(tree, path, on)
    limit = f"context.n < {LIMIT}"
    way["if"] = f"{way['if']} and {limit}" if "if" in way else limit
    return way


def _guard(tree: _Tree) -> str | None:
    rng = tree.rng
    state = rng.choice([each for each, kind in tree.kinds.items() if kind != "history"])
    return rng.choice([None, None, None, f"context.n > {rng.randint(0, 5)}", f"In('{state}')", f"not In('{state}')"])


def _targets(tree: _Tree, fitting: list[str]) -> list[str]:
    """Return a legal specification of states: one, or one in each of several regions (SCXML 3.11)."""
    first = tree.rng.choice(fitting)
    found = [first]
    if tree.rng.random() < 0.3:
        for each in tree.rng.sample(fitting, len(fitting)):
            if all(_fit_together(tree, each, other) for other in found):
                found.append(each)
    return found


def _fit_together(tree: _Tree, one: str, other: str) -> bool:
    around, among = (_lineage(tree, each) for each in (one, other))
    shared = next((each for each in around if each in among), None)
    return shared is not None and shared not in (around[0], among[0]) and tree.kinds[shared] == "parallel"


def _lineage(tree: _Tree, path: str) -> list[str]:
    start = tree.parents[path] if tree.kinds[path] == "history" else path
    parts = (start or "").split(".")
    return [".".join(parts[:end]) for end in range(len(parts), 0, -1)]


def _log(word: str) -> dict[str, Any]:
    return {"set": {"log": f"${{{{ context.log + ['{word}'] }}}}"}}
