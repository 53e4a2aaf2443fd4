"""The compiled form of nodes and of the bodies that they stand in."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

from perdure.definitions.agent_parts import AgentTool
from perdure.definitions.chart_plan import PlanChart
from perdure.definitions.nodes import (
    AgentNode,
    AggregateNode,
    CustomNode,
    Join,
    ModelNode,
    Node,
    SendNode,
    SessionNode,
    ToolNode,
)
from perdure.definitions.parts import Retry
from perdure.definitions.templates import Template

ONE_TRY = Retry(attempts=1)


def key_of_input(node: Node | SendNode | ModelNode | SessionNode) -> str:
    """Return the key of a node under which its input stands."""
    return node.kind if isinstance(node, CustomNode) else "with"


@dataclass(frozen=True, slots=True)
class PlanCatch:
    """What follows an error: the types that it is for (None: all), and the node or the output."""

    on: frozenset[str] | None
    then: str | None
    output: Template


@dataclass(frozen=True)
class PlanNode:
    """One compiled node.

    needs: the written and the inferred ones, the switch or caught node that leads here included. reads: the nodes that
    its expressions read, in its own body or around it. templates: its compiled fields by their last key. timeout: in
    seconds. bodies: what runs within it. arm_of, handler_of: the switch and the caught node that lead here.
    called: what an agent calls it, and how, where it is a tool of one.
    mixed_needs: the needs in an order that nodes are unlikely to finish in, so that wide joins are answered early.
    secrets: the JSON pointers to the references to secrets in its `with`.
    """

    name: str
    kind: str
    model: Node | SendNode | ModelNode | SessionNode
    needs: tuple[str, ...]
    dependants: tuple[str, ...]
    reads: frozenset[str]
    templates: Mapping[str, Template]
    retry: Retry
    catches: tuple[PlanCatch, ...]
    bodies: Mapping[str, "PlanBody"]
    arm_of: str | None = None
    handler_of: str | None = None
    undo: "PlanNode | None" = None
    secrets: tuple[str, ...] = ()
    mixed_needs: tuple[str, ...] = ()
    called: AgentTool | None = None

    @cached_property
    def waits_for(self) -> tuple[str, ...]:
        """Its needs without the switch or the caught node that leads here: those that its join is about."""
        return tuple(need for need in self.needs if need not in (self.arm_of, self.handler_of))

    @cached_property
    def takes_turns(self) -> bool:
        """Whether it is an agent's work that is done in recorded steps, within it."""
        return "do" in self.bodies and self.bodies["do"].turn

    @cached_property
    def calls(self) -> Literal["agent", "tool", "custom", "send", "model", "session"] | None:
        """What a worker does for it: ask an agent, call a tool, do an own kind's work, send a signal; or nothing."""
        if self.takes_turns:
            return None
        match self.model:
            case AgentNode():
                return "agent"
            case ToolNode():
                return "tool"
            case AggregateNode(aggregate=part):
                return "agent" if part.agent else "tool" if part.tool else None
            case CustomNode():
                return "custom"
            case SendNode():
                return "send"
            case ModelNode():
                return "model"
            case SessionNode():
                return "session"
        return None

    @cached_property
    def target(self) -> str:
        """The name of the agent or tool that it calls, or of its own kind; "" where it calls none."""
        if isinstance(self.model, CustomNode):
            return self.model.kind
        called = self.model.aggregate if isinstance(self.model, AggregateNode) else self.model
        return getattr(called, self.calls, "") if self.calls else ""

    @cached_property
    def given(self) -> str:
        """The key of the template of its input."""
        return key_of_input(self.model)

    @cached_property
    def join(self) -> Join:
        """How its needs must have ended."""
        return self.model.join

    @cached_property
    def timeout(self) -> float | None:
        """Seconds that one attempt may take."""
        return self.model.timeout

    @cached_property
    def heartbeat(self) -> float | None:
        """Seconds of silence after which an attempt counts as lost."""
        return self.model.heartbeat

    @cached_property
    def queue_timeout(self) -> float | None:
        """Seconds that it may wait for capacity."""
        return self.model.queue_timeout

    @cached_property
    def run_on(self) -> Literal["loop", "actor"] | None:
        """Where it is asked to run."""
        return self.model.run_on


@dataclass(frozen=True)
class PlanBody:
    """A compiled body; `nodes` is in topological order, `output_reads` are the nodes that `output` names.

    chart: the statechart whose states the nodes are. calls: whether they are the calls of one of its states.
    turn: whether they are what an agent may do in one turn.
    """

    nodes: Mapping[str, PlanNode]
    output: Template
    output_reads: frozenset[str]
    leaves: tuple[str, ...]
    chart: PlanChart | None = None
    calls: bool = False
    turn: bool = False

    @cached_property
    def roots(self) -> tuple[str, ...]:
        """The nodes that need nothing of this body; statecharts, their states and agents see to theirs themselves."""
        led = self.chart is not None or self.calls or self.turn
        return tuple(name for name, node in self.nodes.items() if not node.needs and not led)

    @cached_property
    def levels(self) -> tuple[tuple[str, ...], ...]:
        """The nodes by the length of the longest way to them: those of a level can run in parallel."""
        level: dict[str, int] = {}
        for name, node in self.nodes.items():
            level[name] = 1 + max((level[need] for need in node.needs), default=-1)
        rows: list[list[str]] = [[] for _ in range(max(level.values()) + 1)] if level else []
        for name, row in level.items():
            rows[row].append(name)
        return tuple(map(tuple, rows))

    @cached_property
    def edges(self) -> tuple[tuple[str, str, Literal["data", "control"]], ...]:
        """From, to, and whether the one behind reads the other's output or only waits for it."""
        return tuple(
            (need, name, "data" if need in node.reads else "control")
            for name, node in self.nodes.items()
            for need in node.needs
        )
