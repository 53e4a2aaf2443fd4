"""The calls that undo a node, or the entry of a state, compiled as nodes."""

from perdure.definitions.nodes import AgentNode, Compensation, Node, ToolNode, WorkflowNode, kind_of
from perdure.definitions.parts import ChildWorkflow
from perdure.definitions.paths import UNDO
from perdure.definitions.plan_nodes import ONE_TRY, PlanNode
from perdure.definitions.secret_references import pointers_in
from perdure.definitions.states import StateCompensation
from perdure.definitions.templates import Template, expressions


def undo_of(call: Compensation | StateCompensation, with_: Template) -> PlanNode:
    """Compile the call that undoes something; without `with` its template is None."""
    retry, timeout = call.retry, call.timeout
    model: Node
    if call.agent is not None:
        model = AgentNode(agent=call.agent, retry=retry, timeout=timeout)
    elif call.tool is not None:
        model = ToolNode(tool=call.tool, retry=retry, timeout=timeout)
    else:
        model = WorkflowNode(workflow=call.workflow or ChildWorkflow(name=""), retry=retry, timeout=timeout)
    reads = frozenset(name for part in expressions(with_) for name in part.nodes)
    return PlanNode(
        name=UNDO, kind=kind_of(model) or "", model=model, needs=(), dependants=(), reads=reads,
        templates={"with": with_}, retry=retry or ONE_TRY, catches=(), bodies={},
        secrets=tuple(pointers_in(with_)),
    )  # fmt: skip
