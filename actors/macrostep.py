"""What a macrostep of a statechart gives, and what it needs to know of the world."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from perdure.events.vocabulary import Error, Microstep


@dataclass(frozen=True, slots=True)
class Asked:
    """A call or an invocation that a step asks for: of the state's entry of this number, with its input."""

    state: str
    entry: int
    name: str
    input: Any
    secrets: list[str]


@dataclass(frozen=True, slots=True)
class Delay:
    """A timer that a step asks for: the state's delay of this number, in seconds from now."""

    state: str
    entry: int
    number: int
    seconds: float


@dataclass(slots=True)
class Macrostep:
    """What happened in a step.

    context, history: what changed of them. ignored: events that no transition took. failed: an error that none took.
    ended: the chart came to a final state at the top, with this output, or the error that it is to fail with.
    """

    steps: list[Microstep] = field(default_factory=list)
    context: dict[str, Any] = field(default_factory=dict)
    history: dict[str, list[str]] = field(default_factory=dict)
    ignored: list[str] = field(default_factory=list)
    calls: list[Asked] = field(default_factory=list)
    invokes: list[Asked] = field(default_factory=list)
    delays: list[Delay] = field(default_factory=list)
    failed: Error | None = None
    ended: bool = False
    output: Any = None
    error: Error | None = None


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What expressions may read beside the chart's own: these names, the time, and a seed that nothing else has."""

    names: Mapping[str, Any]
    at: datetime
    seed: str
