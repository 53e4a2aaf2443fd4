"""The states of a statechart by their paths, and what the names in transitions lead to."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property

from perdure.definitions.states import State, Statechart, Transition
from perdure.definitions.yaml_source import Path


@dataclass(frozen=True)
class ChartState:
    """A state with its place: `path` is its dotted name from the top, `at` its path within the chart's document."""

    path: str
    state: State
    parent: str | None
    at: Path

    @property
    def kind(self) -> str:
        """Return `atomic`, `compound`, `parallel`, `final` or `history`."""
        return self.state.type or ("compound" if self.state.states else "atomic")


@dataclass(frozen=True)
class Chart:
    """A statechart with its states in document order."""

    model: Statechart

    @cached_property
    def states(self) -> Mapping[str, ChartState]:
        """All states by their path, parents before children."""
        return {each.path: each for each in _walk(self.model.states, None, ("states",))}

    @cached_property
    def _by_name(self) -> Mapping[str, list[str]]:
        names: dict[str, list[str]] = {}
        for path in self.states:
            names.setdefault(path.rpartition(".")[2], []).append(path)
        return names

    def resolve(self, target: str) -> list[str]:
        """Return the paths that a target may mean: its path, or every state of that name (sound: exactly one)."""
        return [target] if target in self.states else list(self._by_name.get(target, []))

    def children(self, path: str) -> list[str]:
        """Return the paths of a state's own states, history among them."""
        return [f"{path}.{name}" for name in self.states[path].state.states]

    def first_of(self, path: str | None) -> list[str]:
        """Return where a state that is entered begins (None: the chart): its `initial`, or its first state."""
        state = self.states[path].state if path is not None else self.model
        if state.initial is None:
            names = [name for name, each in state.states.items() if each.type != "history"]
            return [f"{path}.{first}" if path is not None else first for first in names[:1]]
        within = [self.resolve(f"{path}.{name}") if path is not None else [] for name in state.initial]
        return [(own or self.resolve(name))[0] for own, name in zip(within, state.initial, strict=True)]

    def names(self) -> set[str]:
        """Return all that a target may be called."""
        return {*self.states, *self._by_name}


def _walk(states: Mapping[str, State], parent: str | None, at: Path) -> Iterator[ChartState]:
    for name, state in states.items():
        path = f"{parent}.{name}" if parent else name
        yield ChartState(path, state, parent, (*at, name))
        yield from _walk(state.states, path, (*at, name, "states"))


def transitions_of(each: ChartState) -> Iterator[tuple[Path, Transition]]:
    """Yield every transition of a state with its place: by event, by time, by itself, at the end of what is within."""
    state, at = each.state, each.at
    for key, table in (("on", state.on), ("after", state.after)):
        for event, listed in table.items():
            yield from (((*at, key, event, index), one) for index, one in enumerate(listed))
    for key, listed in (("always", state.always), ("on_done", state.on_done)):
        yield from (((*at, key, index), one) for index, one in enumerate(listed))
    for number, invoke in enumerate(state.invoke):
        for key, listed in (("on_done", invoke.on_done), ("on_error", invoke.on_error)):
            yield from (((*at, "invoke", number, key, index), one) for index, one in enumerate(listed))
