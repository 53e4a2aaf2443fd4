"""The parts of a statechart, after SCXML: states, transitions, actions, invocations."""

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field
from pydantic_core import PydanticCustomError

from perdure.definitions.durations import Duration
from perdure.definitions.parts import Child, Condition, Failing, Name, Names, Part, Retry


class Send(Part):
    """A signal to another execution."""

    to: str = Field(description="The execution's id, with `${{ }}`.")
    event: str = Field(description="The signal's name.")
    data: Any = Field(default=None, description="Its data, with `${{ }}`.")


class Action(Part):
    """One thing that is done on entry, on exit or along a transition."""

    set: dict[Name, Any] | None = Field(default=None, description="Values of `context` to change, with `${{ }}`.")
    raise_: str | None = Field(default=None, alias="raise", description="An event of this chart, seen next.")
    data: Any = Field(default=None, description="The data of the raised event, with `${{ }}`.")
    send: Send | None = Field(default=None, description="A signal to another execution.")
    start: Child | None = Field(default=None, description="A workflow to start; nobody waits for it.")
    agent: str | None = Field(default=None, description="An agent to ask; its failure is `error.action.NAME`.")
    tool: str | None = Field(default=None, description="A tool to call; its failure is `error.action.NAME`.")
    name: Name | None = Field(default=None, description="The call's name; the tool's or agent's where absent.")
    with_: dict[str, Any] = Field(default={}, alias="with", description="The call's input, with `${{ }}`.")
    retry: Retry | None = Field(default=None, description="What happens after a failed attempt of the call.")
    timeout: Duration | None = Field(default=None, gt=0, description="Seconds that one attempt may take.")


ACTIONS = ("set", "raise", "send", "start", "agent", "tool")


def _one_action(value: Any) -> Any:
    found = [key for key in ACTIONS if value.get(key) is not None] if isinstance(value, dict) else ["set"]
    if len(found) != 1:
        keys = f"it has {' and '.join(map(repr, found))}" if found else f"one of {', '.join(map(repr, ACTIONS))}"
        raise PydanticCustomError("one_action", "an action does exactly one thing: {keys}", {"keys": keys})
    return value


def _listed(value: Any) -> Any:
    return [value] if isinstance(value, dict) else value


Actions = Annotated[
    list[Annotated[Action, BeforeValidator(_one_action)]],
    BeforeValidator(_listed, json_schema_input_type=Action | list[Action]),
]
"""Actions in order; one may stand for a list of one."""


class Transition(Part):
    """A way from a state: where to, on what condition, and what is done along it."""

    target: Names = Field(default=[], description="State names, or paths from the top; none: the state is not left.")
    if_: Condition | None = Field(default=None, alias="if", description="A guard; `In('state')` asks for a state.")
    do: Actions = Field(default=[], description="What is done along it.")
    internal: bool = Field(default=False, description="Do not leave the source when the target lies within it.")


def _transitions(value: Any) -> Any:
    parts = value if isinstance(value, list) else [value]
    return [{"target": part} if isinstance(part, str) else part for part in parts]


Transitions = Annotated[
    list[Transition],
    BeforeValidator(_transitions, json_schema_input_type=str | Transition | list[str | Transition]),
]
"""Transitions, of which the first that is enabled is taken; a target may stand for one without guard and actions."""


class Invoke(Part):
    """Work that goes on while its state is active, and is cancelled when it is left."""

    id: Name | None = Field(default=None, description="Its name in events; the state's path where absent.")
    agent: str | None = Field(default=None, description="The name of an agent under `agents`.")
    tool: str | None = Field(default=None, description="A registered name or an import path.")
    workflow: Child | None = Field(default=None, description="A workflow to run as an execution of its own.")
    with_: dict[str, Any] = Field(default={}, alias="with", description="Its input, with `${{ }}`.")
    retry: Retry | None = Field(default=None, description="What happens after a failed attempt; one try where absent.")
    timeout: Duration | None = Field(default=None, gt=0, description="Seconds that one attempt may take.")
    on_done: Transitions = Field(default=[], description="Transitions when it succeeded; `event.data` is its output.")
    on_error: Transitions = Field(default=[], description="Transitions when it failed; `event.error` is its error.")


def _invocation(value: Any) -> Any:
    calls = ("agent", "tool", "workflow")
    if isinstance(value, dict) and len([key for key in calls if value.get(key) is not None]) != 1:
        raise PydanticCustomError("one_call", "give it exactly one of 'agent', 'tool' or 'workflow'")
    return value


Invocations = Annotated[
    list[Annotated[Invoke, BeforeValidator(_invocation)]],
    BeforeValidator(_listed, json_schema_input_type=Invoke | list[Invoke]),
]
"""Invocations; one may stand for a list of one."""


class StateCompensation(Part):
    """The call that undoes a state that was entered, when the execution is aborted."""

    agent: str | None = Field(default=None, description="The name of an agent under `agents`.")
    tool: str | None = Field(default=None, description="A registered name or an import path.")
    workflow: Child | None = Field(default=None, description="A workflow to run as an execution of its own.")
    with_: dict[str, Any] | None = Field(default=None, alias="with", description="Its input, with `${{ }}`.")
    retry: Retry | None = Field(default=None, description="What happens after a failed attempt; one try where absent.")
    timeout: Duration | None = Field(default=None, gt=0, description="Seconds that one attempt may take.")


class State(Part):
    """A state: atomic, compound (it has states), parallel, final, or a history of its parent."""

    type: Literal["parallel", "final", "history"] | None = Field(
        default=None, description="What it is, where it is neither atomic nor compound."
    )
    description: str = Field(default="", description="What it is for.")
    initial: Names | None = Field(default=None, description="Where a compound state begins; its first one if absent.")
    states: dict[Name, "State"] = Field(default={}, description="The states within.")
    entry: Actions = Field(default=[], description="What is done when it is entered.")
    exit: Actions = Field(default=[], description="What is done when it is left.")
    on: dict[str, Transitions] = Field(
        default={},
        description="Transitions by event: names, prefixes such as `order.*`, or `*`, with blanks between them.",
    )
    after: dict[str, Transitions] = Field(
        default={}, description="Transitions by the time since it was entered, such as `30m`, or a `${{ }}` expression."
    )
    always: Transitions = Field(default=[], description="Transitions without an event, tried whenever it is active.")
    on_done: Transitions = Field(default=[], description="Transitions when the states within have come to their end.")
    invoke: Invocations = Field(default=[], description="Work that goes on while it is active.")
    deep: bool = Field(default=False, description="Of a history: remember all levels, not only one.")
    default: Names | None = Field(default=None, description="Of a history: where to go when there is nothing yet.")
    output: Any = Field(default=None, description="Of a final state: the chart's output, with `${{ }}`.")
    fail: Failing | None = Field(
        default=None, description="Of a final state at the top: the error that the execution fails with."
    )
    compensate: Annotated[StateCompensation, BeforeValidator(_invocation)] | None = Field(
        default=None, description="The call that undoes it when the execution is aborted."
    )


class Statechart(Part):
    """States with transitions between them, after SCXML."""

    initial: Names | None = Field(default=None, description="Where it begins; the first state where absent.")
    context: dict[Name, Any] = Field(default={}, description="Its data at the beginning, with `${{ }}`.")
    events: dict[str, dict[str, Any] | None] | None = Field(
        default=None, description="The events it takes, with the JSON Schema of their data; any where absent."
    )
    states: dict[Name, State] = Field(min_length=1, description="The states by name.")


State.model_rebuild()
