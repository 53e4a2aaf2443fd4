"""The calls that undo a node, or the entry of a state, compiled as nodes."""

from collections.abc import Mapping

from perdure.definitions.nodes import AgentNode, Compensation, Node, ToolNode, WorkflowNode, kind_of
from perdure.definitions.parts import ChildWorkflow
from perdure.definitions.paths import UNDO
from perdure.definitions.plan_nodes import ONE_TRY, PlanNode
from perdure.definitions.secret_references import pointers_in
from perdure.definitions.states import StateCompensation
from perdure.definitions.templates import Template, expressions


def undo_of(call: Compensation | StateCompensation, templates: Mapping[str, Template]) -> PlanNode:
    """Compile the call that undoes something; without `with` its template is None."""
    retry, timeout = call.retry, call.timeout
    model: Node
    if call.agent is not None:
        model = AgentNode(agent=call.agent, retry=retry, timeout=timeout)
    elif call.tool is not None:
        model = ToolNode(tool=call.tool, retry=retry, timeout=timeout)
    else:
        model = WorkflowNode(workflow=call.workflow or ChildWorkflow(name=""), retry=retry, timeout=timeout)
    reads = frozenset(name for each in templates.values() for part in expressions(each) for name in part.nodes)
    return PlanNode(
        name=UNDO, kind=kind_of(model) or "", model=model, needs=(), dependants=(), reads=reads,
        templates=templates, retry=retry or ONE_TRY, catches=(), bodies={},
        secrets=tuple(pointers_in(templates["with"])),
    )  # fmt: skip


def undo_of_child(node: WorkflowNode) -> PlanNode | None:
    """Compile what undoes a node by its child: that is told to; a detached one is not."""
    if node.workflow.detach:
        return None
    model = WorkflowNode(workflow=node.workflow)
    return PlanNode(UNDO, "compensation", model, (), (), frozenset(), {"with": None}, ONE_TRY, (), {})
