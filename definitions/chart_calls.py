"""The calls of a statechart's states as nodes, so that they are retried, limited and recorded like any others."""

from typing import Any

from perdure.definitions.chart_plan import ENTERED, PlanChart
from perdure.definitions.nodes import AgentNode, SendNode, SetNode, ToolNode, WorkflowNode
from perdure.definitions.plan_nodes import ONE_TRY, PlanBody, PlanNode
from perdure.definitions.states import Action, Invoke, StateCompensation
from perdure.definitions.templates import Template, compile_template
from perdure.definitions.undo_calls import undo_of, undo_of_child

STATE = "state"
"""The kind of node that stands for a state."""


def compile_states(chart: PlanChart, output: Template = None) -> PlanBody:
    """Return the body whose nodes are the states of a chart; their bodies have the calls of one entry."""
    states = {}
    for path, calls in chart.calls.items():
        inner = PlanBody({name: _call(name, call) for name, call in calls.items()}, None, frozenset(), (), calls=True)
        states[path] = _node(path, STATE, SetNode(set=None), bodies={"do": inner})
    return PlanBody(states, output, frozenset(), (), chart=chart)


def _call(name: str, call: Action | Invoke | StateCompensation | None) -> PlanNode:
    if name == ENTERED:
        undo = _undo(call) if isinstance(call, StateCompensation) else None
        return _node(name, ENTERED, SetNode(set=None), undo=undo)
    assert call is not None  # noqa: S101 (every other name is that of a call)
    limits = {"retry": call.retry, "timeout": call.timeout}
    if call.agent is not None:
        return _node(name, "agent", AgentNode(agent=call.agent, **limits))
    if call.tool is not None:
        return _node(name, "tool", ToolNode(tool=call.tool, **limits))
    if isinstance(call, Action) and call.send is not None:
        return _node(name, "send", SendNode(**limits))
    if isinstance(call, Action) and call.start is not None:
        return _node(name, "workflow", WorkflowNode(workflow=call.start.model_copy(update={"detach": True}), **limits))
    assert isinstance(call, Invoke)  # noqa: S101 (the other kinds have gone)
    assert call.workflow is not None  # noqa: S101
    model = WorkflowNode(workflow=call.workflow, **limits)
    return _node(name, "workflow", model, undo=undo_of_child(model))


def _undo(call: StateCompensation) -> PlanNode:
    child = compile_template(call.workflow.id) if call.workflow is not None else None
    return undo_of(call, {"with": compile_template(call.with_), "workflow/id": child})


def _node(name: str, kind: str, model: Any, **parts: Any) -> PlanNode:
    empty: dict[str, Any] = {
        "needs": (),
        "dependants": (),
        "reads": frozenset(),
        "templates": {},
        "catches": (),
        "bodies": {},
    }
    return PlanNode(name=name, kind=kind, model=model, retry=model.retry or ONE_TRY, **{**empty, **parts})
