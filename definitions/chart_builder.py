"""Statecharts built in Python: states with their transitions, one method for each key of the definition."""

from collections.abc import Mapping
from typing import Any, Self

from perdure.definitions.builder import Built, Named, parts, plain
from perdure.definitions.references import Reference
from perdure.errors import BadInput


class States:
    """States in the making; `path` is that of the state around them."""

    def __init__(self, owner: dict[str, Any], path: str = "") -> None:
        self._owner = owner
        self._path = path

    def state(self, name: str, *, initial: bool = False, **given: Any) -> "StateBuilder":
        """Add a state; further arguments are keys of the definition."""
        states = self._owner.setdefault("states", {})
        if name in states:
            raise BadInput(f"there is a state {name!r} already; give this one another name")
        states[name] = parts(given)
        if initial:
            self._owner["initial"] = name
        return StateBuilder(f"{self._path}{name}", states[name])

    def parallel(self, name: str, *, initial: bool = False, **given: Any) -> "StateBuilder":
        """Add a parallel state: all states within it are active at once."""
        return self.state(name, initial=initial, type="parallel", **given)

    def final(self, name: str, **given: Any) -> "StateBuilder":
        """Add a final state."""
        return self.state(name, type="final", **given)


class StateBuilder(Named, States):
    """A state that was added; its methods add to it and return it, so that they can follow each other."""

    def __init__(self, path: str, state: dict[str, Any]) -> None:
        Named.__init__(self, path)
        States.__init__(self, state, f"{path}.")

    def history(self, name: str, *, default: Any, deep: bool | None = None) -> "StateBuilder":
        """Add a history of this state."""
        return self.state(name, type="history", default=default, deep=deep)

    def on(self, event: str, target: Any = None, **given: Any) -> Self:
        """Add a transition by an event; `if_` is its guard, `do` what is done along it."""
        return self._transition(self._owner.setdefault("on", {}).setdefault(event, []), target, given)

    def after(self, time: Any, target: Any = None, **given: Any) -> Self:
        """Add a transition by the time since the state was entered."""
        listed = self._owner.setdefault("after", {}).setdefault(str(plain(time)), [])
        return self._transition(listed, target, given)

    def always(self, target: Any = None, **given: Any) -> Self:
        """Add a transition that needs no event."""
        return self._transition(self._owner.setdefault("always", []), target, given)

    def on_done(self, target: Any = None, **given: Any) -> Self:
        """Add a transition for when the states within have come to their end."""
        return self._transition(self._owner.setdefault("on_done", []), target, given)

    def entry(self, **action: Any) -> Self:
        """Add an action that is done when the state is entered."""
        return self._append("entry", action)

    def exit(self, **action: Any) -> Self:
        """Add an action that is done when the state is left."""
        return self._append("exit", action)

    def invoke(self, *, on_done: Any = None, on_error: Any = None, **given: Any) -> Self:
        """Add work that goes on while the state is active; `on_done` and `on_error` are targets or transitions."""
        after = {key: [_way(item) for item in _listed(each)] for key, each in
                 (("on_done", on_done), ("on_error", on_error)) if each is not None}  # fmt: skip
        return self._append("invoke", {**given, **after})

    def _append(self, key: str, part: Mapping[str, Any]) -> Self:
        self._owner.setdefault(key, []).append(parts(part))
        return self

    def _transition(self, listed: list[Any], target: Any, given: Mapping[str, Any]) -> Self:
        listed.append(parts({"target": target, **given}))
        return self


def _listed(value: Any) -> list[Any]:
    return list(value) if isinstance(value, list | tuple) else [value]


def _way(value: Any) -> Any:
    return {"target": plain(value, "target")} if isinstance(value, str | Named) else parts(value)


class StatechartBuilder(Built, States):
    """A statechart in the making; `context` and `event` read its data and the event that is handled."""

    def __init__(self, name: str, given: Mapping[str, Any]) -> None:
        Built.__init__(self, {"name": name, "kind": "statechart", **parts(given)})
        States.__init__(self, self._document)
        self.context, self.event = Reference("context"), Reference("event")

    @property
    def chart(self) -> dict[str, Any]:
        """The chart alone, as a DAG's node has it."""
        keys = ("initial", "context", "events", "states")
        return {key: self._document[key] for key in keys if key in self._document}


def statechart(name: str, **given: Any) -> StatechartBuilder:
    """Begin a statechart; further arguments are keys of the definition: `context`, `events`, `agents`, `tools`."""
    return StatechartBuilder(name, given)
