"""Node kinds of the user's own: registered in process by `@perdure.node`, or found by entry point."""

import inspect
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import lru_cache
from importlib.metadata import EntryPoint, entry_points
from typing import Any, TypeVar, get_type_hints

from pydantic import BaseModel

from perdure.errors import BadInput, UnknownKind

GROUP = "perdure.nodes"
"""The group of the entry points; the name of each is the kind."""

Target = TypeVar("Target", bound=Callable[..., Any])


@dataclass(frozen=True, slots=True)
class OwnKind:
    """A node kind of the user's own: the model of its config, what it is for, and what makes its `execute`."""

    name: str
    config: type[BaseModel]
    description: str
    execute: Callable[[Any, Any], Awaitable[Any]]


_registered: dict[str, OwnKind] = {}


def node(kind: str) -> Callable[[Target], Target]:
    """Register a class with `config` and `async execute(self, ctx, config)`, or an `async def` of both, as a node kind.

    config: a pydantic model; of a function, the type hint of its second parameter. A class is made anew for each try.
    Raises BadInput where the name is no identifier or means something in a node already, and for what does not fit.
    """
    from perdure.definitions.nodes import KINDS, NODE_KEYS

    if not kind.isidentifier() or not kind.isascii():
        raise BadInput(f"{kind!r} is no name of a node kind: letters, digits and '_', no digit first")
    if kind in NODE_KEYS:
        what = "a node kind of perdure" if kind in KINDS else "a key of every node"
        raise BadInput(f"{kind!r} is {what} already; give yours another name")

    def register(target: Target) -> Target:
        _registered[kind] = _kind_from(kind, target)
        return target

    return register


def _kind_from(kind: str, target: Any) -> OwnKind:
    execute = getattr(target, "execute", None) if isinstance(target, type) else target
    if not inspect.iscoroutinefunction(execute):
        raise BadInput(f"node kind {kind!r} needs `async def execute(self, ctx, config)`, or is an `async def` itself")
    config = target.config if isinstance(target, type) and hasattr(target, "config") else _second_hint(execute, target)
    if not isinstance(config, type) or not issubclass(config, BaseModel):
        raise BadInput(f"node kind {kind!r} needs a pydantic model as its config, not {config!r}")

    def call(context: Any, given: Any) -> Awaitable[Any]:
        made: Awaitable[Any] = (target().execute if isinstance(target, type) else target)(context, given)
        return made

    return OwnKind(kind, config, inspect.cleandoc(target.__doc__ or "").partition("\n\n")[0], call)


def _second_hint(execute: Any, target: Any) -> Any:
    """Return the type hint of the config: the last of `(self, ctx, config)`, or of `(ctx, config)`."""
    names = list(inspect.signature(execute).parameters)
    place = 2 if isinstance(target, type) else 1
    return get_type_hints(execute).get(names[place]) if len(names) > place else None


@lru_cache(maxsize=1)
def _installed() -> dict[str, EntryPoint]:
    """Return the entry points by kind; a name that means something in a node already is left out: that comes first."""
    from perdure.definitions.nodes import NODE_KEYS

    return {each.name: each for each in entry_points(group=GROUP) if each.name not in NODE_KEYS}


def own_kinds() -> list[str]:
    """Return the names of the kinds that are registered or installed; nothing is imported."""
    return sorted({*_registered, *_installed()})


def own_kind(name: str) -> OwnKind:
    """Return a kind by its name, importing it where it is installed and not yet imported.

    Raises UnknownKind where it is neither registered nor installed, and BadInput where its code cannot be used.
    """
    if name not in _registered:
        entry = _installed().get(name)
        if entry is None:
            raise UnknownKind(
                f"there is no node kind {name!r} here; install the package with the entry point {name!r} "
                f"in the group {GROUP!r}, for the workers too"
            )
        try:
            entry.load()
        except (Exception, SystemExit) as error:
            what = f"node kind {name!r}: importing {entry.value!r} failed"
            raise BadInput(f"{what}: {type(error).__name__}: {error}") from error
        if name not in _registered:
            raise BadInput(f"{entry.value!r} is no node kind {name!r}; decorate it with `@perdure.node({name!r})`")
    return _registered[name]
