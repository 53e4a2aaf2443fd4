"""The node kinds of a DAG, each one a model, and the union that tells them apart by their key."""

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Discriminator, Field, Tag, model_validator
from pydantic_core import PydanticCustomError

from perdure.definitions.durations import Duration
from perdure.definitions.own_kinds import own_kinds
from perdure.definitions.parts import (
    Child,
    Condition,
    DurationOrExpression,
    Failing,
    LimitUses,
    Name,
    Names,
    Part,
    Pool,
    Resources,
    Retry,
    RuntimeEnv,
    SomeNames,
)
from perdure.definitions.states import Statechart

Join = Literal["none_failed", "all_succeeded", "any_succeeded", "all_done"]
"""When a node may run, given how its needs ended."""


class Catch(Part):
    """What follows an error of certain types: another node, or an output."""

    on: Names | None = Field(default=None, description="Error types; all of them where absent.")
    then: str | None = Field(default=None, description="The node that handles it; its output becomes this node's.")
    output: Any = Field(default=None, description="The output instead, where no node handles it; `error` is readable.")


class _Action(Part):
    """One call of an agent, a tool or a workflow, where a whole node would be too much."""

    agent: str | None = Field(default=None, description="The name of an agent under `agents`.")
    tool: str | None = Field(default=None, description="A registered name or an import path.")
    workflow: Child | None = Field(default=None, description="A workflow to run as an execution of its own.")
    with_: dict[str, Any] | None = Field(default=None, alias="with", description="Its input, with `${{ }}`.")


def _one_call(value: Any, *others: str) -> Any:
    keys = ("agent", "tool", "workflow", *others)
    if isinstance(value, dict) and len([key for key in keys if value.get(key) is not None]) != 1:
        named = ", ".join(map(repr, keys[:-1]))
        raise PydanticCustomError("one_call", "give it exactly one of {keys}", {"keys": f"{named} or {keys[-1]!r}"})
    return value


def _one_branch(value: Any) -> Any:
    return _one_call(value, "do")


class Compensation(_Action):
    """The call that undoes a completed node; without `with` it gets the node's `input` and `output`."""

    retry: Retry | None = Field(default=None, description="What happens after a failed attempt; one try where absent.")
    timeout: Duration | None = Field(default=None, gt=0, description="Seconds that one attempt may take.")


class _Node(Part):
    """The modifiers of every node."""

    description: str = Field(default="", description="What it is for.")
    needs: Names = Field(default=[], description="Nodes that settle first; nodes named in expressions are added.")
    if_: Condition | None = Field(
        default=None, alias="if", description="A condition; the node is skipped where it is false."
    )
    join: Join = Field(default="none_failed", description="How its needs must have ended for the node to run.")
    output: Any = Field(default=None, description="The node's output, made from its result; `output` is the result.")
    retry: Retry | None = Field(default=None, description="What happens after a failed attempt; one try where absent.")
    timeout: Duration | None = Field(default=None, gt=0, description="Seconds that one attempt may take.")
    deadline: Duration | None = Field(default=None, gt=0, description="Seconds for the whole node, all its tries.")
    queue_timeout: Duration | None = Field(
        default=None, gt=0, description="Seconds that a call may wait at each limit, and for room in a node actor."
    )
    heartbeat: Duration | None = Field(
        default=None, gt=0, description="Seconds without a heartbeat of its tool after which an attempt counts as lost."
    )
    catch: list[Catch] = Field(default=[], description="What follows an error; the first that matches counts.")
    compensate: Annotated[Compensation, BeforeValidator(_one_call)] | None = Field(
        default=None, description="The call that undoes the node when a later one fails."
    )
    limit: LimitUses | None = Field(default=None, description="Limits that its calls are under.")
    priority: int | None = Field(default=None, ge=0, le=9, description="Higher goes first where capacity is short.")
    resources: Resources | None = Field(default=None, description="What its node actor takes of the cluster.")
    pool: Pool | None = Field(default=None, description="How many node actors do its work.")
    runtime_env: RuntimeEnv | None = Field(default=None, description="What the process of its node actor has.")
    run_on: Literal["loop", "actor"] | None = Field(
        default=None,
        description="Where it runs: the execution's event loop, or a node actor; chosen by kind where absent.",
    )


class _Call(_Node):
    with_: dict[str, Any] = Field(default={}, alias="with", description="Its input, with `${{ }}`.")


class AgentNode(_Call):
    """Asks an agent; its reply is the node's output."""

    agent: str = Field(description="The name of an agent under `agents`.")
    session: str | None = Field(
        default=None, description="What it remembers by, across nodes and executions, with `${{ }}`."
    )


class ToolNode(_Call):
    """Calls a tool; what it returns is the node's output."""

    tool: str = Field(description="A registered name (`lookup_order`) or an import path (`package.module:function`).")


class WorkflowNode(_Call):
    """Runs another workflow as an execution of its own; its output is the node's."""

    workflow: Child = Field(description="The workflow: its name, or a mapping with options.")


class StatechartNode(_Call):
    """Runs a statechart inside this execution; its final state's output is the node's."""

    statechart: Statechart = Field(description="The statechart.")


class Wait(Part):
    """What a wait is for: a duration, a moment, or a signal."""

    duration: DurationOrExpression | None = Field(default=None, description="How long; the output is null.")
    until: str | None = Field(
        default=None, description="A time with its zone (ISO 8601) or a `${{ }}` expression that gives one."
    )
    signal: str | None = Field(default=None, description="The signal's name; its data is the output.")
    schema_: dict[str, Any] | None = Field(
        default=None, alias="schema", description="JSON Schema that the signal's data keeps to."
    )
    timeout: DurationOrExpression | None = Field(default=None, description="How long to wait for the signal.")
    on_timeout: Literal["fail", "continue"] = Field(
        default="fail", description="Without a signal in time: fail with Timeout, or go on with null."
    )


def _wait(value: Any) -> Any:
    return {"duration": value} if isinstance(value, str | int | float) and not isinstance(value, bool) else value


class WaitNode(_Node):
    """Waits, for months if need be, and holds nothing meanwhile."""

    wait: Annotated[Wait, BeforeValidator(_wait, json_schema_input_type=DurationOrExpression | Wait)] = Field(
        description="A duration, or a mapping."
    )


class Approval(Part):
    """A question that a person answers."""

    title: str = Field(description="What is asked, with `${{ }}`.")
    details: Any = Field(default=None, description="What the person needs to see, with `${{ }}`.")
    form: dict[str, Any] | None = Field(default=None, description="JSON Schema of the data that comes with the answer.")
    assignees: list[str] = Field(default=[], description="Who is asked, with `${{ }}`; anybody where empty.")
    timeout: DurationOrExpression | None = Field(default=None, description="How long to wait; for ever where absent.")
    on_timeout: Literal["fail", "approve", "reject"] = Field(
        default="fail", description="What no answer in time means."
    )
    on_reject: Literal["fail", "continue"] = Field(
        default="fail", description="After a rejection: fail with Rejected, or go on with `approved: false`."
    )


class ApprovalNode(_Node):
    """Waits for a person's decision; its output is `{approved, by, data}`."""

    approval: Approval = Field(description="The question.")


class Case(Part):
    """One arm of a switch."""

    when: Condition = Field(description="A condition; the first arm whose condition holds is taken.")
    then: SomeNames = Field(description="The nodes that run then.")


class Switch(Part):
    """Arms in order, and what is taken where none holds."""

    cases: list[Case] = Field(min_length=1, description="The arms.")
    default: Names | None = Field(default=None, description="The nodes that run where no arm holds; else NoMatch.")


class SwitchNode(_Node):
    """Chooses which of the nodes behind it run; its output is the list of their names."""

    switch: Switch = Field(description="The arms.")


class Branch(_Action):
    """One branch of a parallel: nodes under `do`, or a single call."""

    do: "Body | None" = Field(default=None, description="The branch's nodes.")
    output: Any = Field(default=None, description="The branch's result; its last nodes' outputs where absent.")


class Parallel(Part):
    """Branches, and how many of them must succeed."""

    branches: dict[Name, Annotated[Branch, BeforeValidator(_one_branch)]] = Field(
        min_length=1, description="The branches by name."
    )
    join: Literal["all", "any"] | int = Field(
        default="all", description="How many must succeed; the others are then cancelled."
    )


class ParallelNode(_Node):
    """Runs branches side by side; its output is their results by name."""

    parallel: Parallel = Field(description="The branches.")


class Threshold(Part):
    """How many items may fail."""

    threshold: int | str = Field(description="A number of items, or a share such as '20%'.")


class Foreach(Part):
    """The items to go through, and how."""

    items: Condition | list[Any] = Field(description="An expression that gives a list.")
    as_: Name = Field(default="item", alias="as", description="The name of the item within.")
    index: Name = Field(default="index", description="The name of the item's number, from 0.")
    max_parallel: int = Field(default=16, ge=1, le=1000, description="How many items are at work at once.")
    batch: int = Field(default=1, ge=1, description="How many items are given at once, as a list.")
    on_failure: Literal["stop", "continue"] | Threshold = Field(
        default="stop", description="Whether the rest goes on after an item failed; a failed one's result is null."
    )
    output: Any = Field(default=None, description="An item's result; its last nodes' outputs where absent.")


class _Repeating(_Node, _Action):
    do: "Body | None" = Field(default=None, description="The nodes to run for each; or a single call in its place.")


class ForeachNode(_Repeating):
    """Runs its body once per item; its output is the list of results in item order."""

    foreach: Foreach = Field(description="The items.")


class Loop(Part):
    """How long to go on."""

    while_: Condition | None = Field(default=None, alias="while", description="Go on while it holds; tested before.")
    until: Condition | None = Field(default=None, description="Go on until it holds; tested after each pass.")
    max_iterations: int = Field(ge=1, le=1_000_000, description="The bound; beyond it the loop fails LoopExhausted.")
    initial: Any = Field(default=None, description="What `loop.last` is in the first pass, with `${{ }}`.")
    output: Any = Field(default=None, description="A pass's result, the next one's `loop.last`.")


class LoopNode(_Repeating):
    """Runs its body again and again; its output is the last pass's result."""

    loop: Loop = Field(description="How long to go on.")


class Aggregate(Part):
    """Many results made into one."""

    from_: Names | None = Field(default=None, alias="from", description="The nodes whose outputs are taken, in order.")
    items: str | list[Any] | None = Field(default=None, description="An expression that gives the list instead.")
    how: Literal["collect", "merge", "vote"] | None = Field(
        default=None,
        description="`collect`: a list of them; `merge`: one object of all their keys; `vote`: what most of them gave, "
        "as `{winner, votes, of}`.",
    )
    agent: str | None = Field(default=None, description="An agent that makes one of them; it gets `items`.")
    tool: str | None = Field(default=None, description="A tool that makes one of them; it gets `items`.")


class AggregateNode(_Call):
    """Makes one result of many; those of failed and skipped nodes are left out."""

    aggregate: Aggregate = Field(description="What to take, and how.")


class SetNode(_Node):
    """Computes a value from expressions; the value is the node's output."""

    set: Any = Field(description="The value, with `${{ }}`.")


class FailNode(_Node):
    """Fails on purpose."""

    fail: Failing = Field(description="The message, or a mapping.")


class CustomNode(_Node):
    """Does what a node kind of your own does; where that is installed, write its name in the place of `custom`."""

    custom: dict[Name, Any] = Field(min_length=1, max_length=1, description="Its config, by the name of the kind.")

    @model_validator(mode="before")
    @classmethod
    def _written_out(cls, value: Any) -> Any:
        """Write `kind: config` as `custom: {kind: config}`, which loads where the kind is not installed too."""
        if not isinstance(value, dict) or "custom" in value:
            return value
        kinds = kinds_in(value)
        return {key: each for key, each in value.items() if key not in kinds} | {
            "custom": {kind: value[kind] for kind in kinds}
        }

    @property
    def kind(self) -> str:
        """The name of the kind."""
        return next(iter(self.custom))


class SendNode(_Node):
    """Sends a signal to another execution; it stands in no definition: an action of a statechart is compiled to it."""

    send: str = "signal"


class ModelNode(_Node):
    """Asks an agent's model for its next reply; it stands in no definition: agents with tools are compiled to it."""


class SessionNode(_Node):
    """Reads, or adds to, what an agent remembers; it stands in no definition."""

    does: Literal["recall", "remember"]


KINDS: dict[str, type[_Node]] = {
    "agent": AgentNode,
    "tool": ToolNode,
    "workflow": WorkflowNode,
    "statechart": StatechartNode,
    "wait": WaitNode,
    "approval": ApprovalNode,
    "switch": SwitchNode,
    "parallel": ParallelNode,
    "foreach": ForeachNode,
    "loop": LoopNode,
    "aggregate": AggregateNode,
    "set": SetNode,
    "fail": FailNode,
    "custom": CustomNode,
}
"""The node kinds by the key that makes a node one of them."""

_KIND_OF = {model: kind for kind, model in KINDS.items()}

NODE_KEYS = frozenset(field.alias or name for model in KINDS.values() for name, field in model.model_fields.items())
"""Every key that a node of perdure's own kinds may have."""


def written_kinds() -> list[str]:
    """Return the keys that say what a node does, those of installed kinds too."""
    return [*(kind for kind in KINDS if kind != "custom"), *own_kinds()]


def kind_of(value: Any) -> str | None:
    """Return a node's kind by its keys (`foreach` and `loop` may have a call beside them), or None."""
    if isinstance(value, _Node):
        return _KIND_OF[type(value)]
    kinds = kinds_in(value)
    return (kinds[0] if kinds[0] in KINDS else "custom") if len(kinds) == 1 else None


def kinds_in(value: Any) -> list[str]:
    """Return the kinds that a written node claims to be."""
    found = [kind for kind in (*written_kinds(), "custom") if kind in value] if isinstance(value, dict) else []
    repeating = [kind for kind in found if kind in ("foreach", "loop")]
    return repeating if len(repeating) == 1 and set(found) - set(repeating) <= {"agent", "tool", "workflow"} else found


def _tag(value: Any) -> str | None:
    kind = kind_of(value)
    return f"{kind} node" if kind else None  # with a space: no key of a document reads like it


Node = Annotated[
    Annotated[AgentNode, Tag("agent node")]
    | Annotated[ToolNode, Tag("tool node")]
    | Annotated[WorkflowNode, Tag("workflow node")]
    | Annotated[StatechartNode, Tag("statechart node")]
    | Annotated[WaitNode, Tag("wait node")]
    | Annotated[ApprovalNode, Tag("approval node")]
    | Annotated[SwitchNode, Tag("switch node")]
    | Annotated[ParallelNode, Tag("parallel node")]
    | Annotated[ForeachNode, Tag("foreach node")]
    | Annotated[LoopNode, Tag("loop node")]
    | Annotated[AggregateNode, Tag("aggregate node")]
    | Annotated[SetNode, Tag("set node")]
    | Annotated[FailNode, Tag("fail node")]
    | Annotated[CustomNode, Tag("custom node")],
    Discriminator(
        _tag,
        custom_error_type="node_kind",
        custom_error_message="a node does exactly one thing",
    ),
]

Body = dict[Name, Node]
"""Nodes by name."""

for _model in (Branch, Parallel, ParallelNode, _Repeating, ForeachNode, LoopNode):
    _model.model_rebuild()
