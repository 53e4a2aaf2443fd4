"""What an execution acts through, and whom it tells what models say."""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

from perdure.actors.alarms import NEAR, TimerQueue
from perdure.actors.limiting import Limits
from perdure.actors.outgoing import Post
from perdure.actors.outside import Outside
from perdure.actors.secret_values import Secrets
from perdure.actors.work import Worker
from perdure.definitions.plan import Plan
from perdure.definitions.plan_nodes import PlanNode
from perdure.events.log import Log
from perdure.events.snapshots import Snapshots


async def _open() -> None:
    """Let everything pass: there is one owner."""


class Stream(Protocol):
    """Where a model's reply is told as it comes."""

    def hear(self, piece: str) -> None:
        """Take a piece of it."""
        ...

    def tell(self, kind: Literal["call", "result"], data: Any) -> None:
        """Tell what a tool that it calls is given, or what that gave."""
        ...

    def close(self) -> None:
        """Tell the rest, and no more."""
        ...


@dataclass(frozen=True)
class Surroundings:
    """What an execution acts through. near: timers due within so many seconds stay in this process, now.

    apart: says whether a node's work, whose tool is at this place, and that was resumed so often, runs in a process of
    its own. bring: brings the code at these places to this machine. tell: tells who listens how far an attempt is:
    execution, node, attempt, progress. stream: begins to tell them a model's reply: execution, node, attempt. fence:
    awaited before every effect; it raises Deposed where this is no owner any more. quiet: for how many seconds an
    execution that waits for the outside world is kept at hand. shared: this is a process of many executions, and there
    can be one for a single one. outside: what tools reach things with. limits: those that it takes part in. parked:
    told that all that is at work in an execution waits for limits, or not any more.
    """

    log: Log
    plan: Callable[[str], Awaitable[Plan]]
    work: Worker
    timers: TimerQueue
    epoch: int = 0
    near: Callable[[], float] = lambda: NEAR
    snapshots: Snapshots | None = None
    post: Post | None = None
    apart: Callable[[Plan, PlanNode, str | None, int], bool] = lambda _plan, _node, _place, _resumed: False
    bring: Callable[[Mapping[str, str]], Awaitable[None]] | None = None
    tell: Callable[[str, str, int, Any], None] | None = None
    secrets: Secrets = field(default_factory=Secrets)
    outside: Outside = field(default_factory=Outside)
    fence: Callable[[], Awaitable[None]] = _open
    quiet: Callable[[], float] = lambda: 0.0
    shared: bool = False
    stream: Callable[[str, str, int], Stream] | None = None
    limits: Limits | None = None
    parked: Callable[[str, bool], None] = lambda _execution, _parked: None
