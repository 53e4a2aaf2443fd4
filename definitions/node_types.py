"""What is known of the types of nodes' outputs, and so of all that expressions read."""

import ast
from collections.abc import Iterator, Mapping
from typing import Any

from perdure.definitions.builtin_tools import BUILTINS
from perdure.definitions.expressions import Expression
from perdure.definitions.model import Workflow
from perdure.definitions.nodes import (
    AgentNode,
    AggregateNode,
    ApprovalNode,
    ForeachNode,
    LoopNode,
    Node,
    ParallelNode,
    SetNode,
    ToolNode,
    WaitNode,
    WorkflowNode,
)
from perdure.definitions.parts import ChildWorkflow, Tool
from perdure.definitions.places import Body, inner_of
from perdure.definitions.reads import ITEM, tree_of, whole_path
from perdure.definitions.templates import Interpolation, compile_condition, compile_template
from perdure.definitions.value_types import (
    BOOLEAN,
    INTEGER,
    NULL,
    NUMBER,
    STRING,
    Choice,
    Listing,
    Missing,
    Record,
    Type,
    member,
    of_schema,
)
from perdure.definitions.yaml_source import Path
from perdure.errors import ExpressionError

Own = Mapping[str, Type]
"""Types of names that are there at one place only, such as `output` and `loop`."""

_DEEPEST = 40
_NAMES: Own = {}
ERROR = of_schema(
    {"type": "object", "properties": {"type": {"type": "string"}, "message": {"type": "string"}, "data": {}}}
)
_MADE: dict[str, Type] = {"collect": Listing(), "merge": Record({}, open=True), "vote": None}
_CALLS: dict[str, Type] = {"len": INTEGER, "str": STRING, "int": INTEGER, "float": NUMBER, "bool": BOOLEAN}


class Types:
    """The types of one workflow; those of nodes are found when they are asked for."""

    def __init__(self, workflow: Workflow, unsound: frozenset[int] = frozenset()) -> None:
        self.workflow = workflow
        self.unsound = unsound
        self.tools = {name: each.declared for name, each in BUILTINS.items()}
        self.tools |= {tool.name: tool for tool in workflow.tools if isinstance(tool, Tool)}
        self._outputs: dict[tuple[Path, str], Type] = {}
        self._depth = 0

    def schema(self, schema: Any) -> Type:
        """Return the type that a schema says; None where there is none, or one that is no JSON Schema."""
        return of_schema(schema) if id(schema) not in self.unsound else None

    def read(self, body: Body | None, path: tuple[str, ...], own: Own = _NAMES) -> Type | Missing:
        """Return the type of what a path leads to, or what is missing on the way."""
        if path[0] == "nodes" and path[0] not in own:
            if len(path) == 1 or body is None:
                return None
            found: Type | Missing = self._node(body, path[1])
            rest = path[2:]
        else:
            found, rest = self._root(body, path[0], own), path[1:]
        for key in rest:
            if isinstance(found, Missing):
                return found
            found = member(found, key)
        return found

    def _node(self, body: Body, name: str) -> Type:
        around: Body | None = body
        while around is not None and name not in around.nodes:
            around = around.outer
        if around is None:
            return None
        return Record({"output": self.output(around, name), "status": STRING, "input": None})

    def _root(self, body: Body | None, name: str, own: Own) -> Type:
        if name in own:
            return own[name]
        if name == "input":
            return self.schema(self.workflow.input)
        if name == "error":
            return ERROR
        while body is not None and body.owner is not None and body.outer is not None:
            node, _ = body.outer.nodes[body.owner]
            if isinstance(node, ForeachNode) and name in (node.foreach.as_, node.foreach.index):
                return INTEGER if name == node.foreach.index else self._item(body.outer, body.owner, node)
            body = body.outer
        return None

    def _item(self, body: Body, name: str, node: ForeachNode) -> Type:
        listed = self.of_value(body, node.foreach.items, bare=isinstance(node.foreach.items, str))
        item = member(listed, ITEM)
        known = None if isinstance(item, Missing) else item
        return known if node.foreach.batch == 1 else Listing(known)

    def output(self, body: Body, name: str) -> Type:
        """Return the type of a node's output."""
        place = (body.path, name)
        if place in self._outputs or self._depth > _DEEPEST:
            return self._outputs.get(place)
        self._outputs[place] = None  # a node that reads itself, by a circle, says nothing about itself
        self._depth += 1
        try:
            self._outputs[place] = self._output(body, name)
        finally:
            self._depth -= 1
        return self._outputs[place]

    def _output(self, body: Body, name: str) -> Type:
        node, at = body.nodes[name]
        if node.catch:
            return None  # it may be the handler's
        if node.output is not None:
            return self.of_value(body, node.output, {"output": self.result(body, name, node, at)})
        return self.result(body, name, node, at)

    def result(self, body: Body, name: str, node: Node, at: Path) -> Type:  # noqa: C901 (one case per kind)
        """Return the type of what a node's work gives, before its `output`."""
        match node:
            case AgentNode():
                return self.reply(node.agent)
            case ToolNode():
                return self.returned(node.tool)
            case WorkflowNode():
                return self.child(node.workflow)
            case WaitNode():
                return self._waited(node)
            case ApprovalNode(approval=approval):
                return Record({"approved": BOOLEAN, "by": None, "data": self.schema(approval.form)})
            case ParallelNode():
                return Record(dict(self._bodies(body, name, node, at)))
            case ForeachNode():
                return Listing(self._one(body, name, node, at) if node.foreach.on_failure == "stop" else None)
            case LoopNode():
                return self._one(body, name, node, at)
            case AggregateNode(aggregate=part):
                if part.how is not None:
                    return _MADE[part.how]
                return self.reply(part.agent) if part.agent else self.returned(part.tool or "")
            case SetNode():
                return self.of_value(body, node.set)
            case _:
                return None

    def reply(self, agent: str) -> Type:
        """Return the type of an agent's reply."""
        known = self.workflow.agents.get(agent)
        return None if known is None else self.schema(known.output) if known.output is not None else STRING

    def returned(self, tool: str) -> Type:
        """Return the type of what a declared tool returns."""
        return self.schema(self.tools[tool].output) if tool in self.tools else None

    def child(self, child: ChildWorkflow) -> Type:
        """Return the type of a child workflow's output."""
        if child.detach:
            return STRING
        known = self.workflow.workflows.get(child.name)
        if known is None or known.output is None or known.kind != "dag":
            return None
        from perdure.definitions.places import bodies_of

        return Types(known, self.unsound).of_value(next(bodies_of(known)), known.output)

    def _waited(self, node: WaitNode) -> Type:
        wait = node.wait
        if wait.signal is None:
            return NULL
        declared = (self.workflow.signals or {}).get(wait.signal)
        known = self.schema(wait.schema_ if wait.schema_ is not None else declared.schema_ if declared else None)
        return Choice((known, NULL)) if wait.on_timeout == "continue" else known

    def _one(self, body: Body, name: str, node: Node, at: Path) -> Type:
        return next((known for _, known in self._bodies(body, name, node, at)), None)

    def _bodies(self, body: Body, name: str, node: Node, at: Path) -> Iterator[tuple[str, Type]]:
        for key, inner in inner_of(node, at):
            within = body.within(name, inner)
            if inner.output.value is not None:
                yield key, self.of_value(within, inner.output.value)
            else:
                yield key, self.output(within, "do") if inner.called else None

    def of_value(self, body: Body | None, value: Any, own: Own = _NAMES, *, bare: bool = False) -> Type:
        """Return the type of a value with expressions in it."""
        if isinstance(value, dict):
            return Record({key: self.of_value(body, item, own) for key, item in value.items()})
        if isinstance(value, list):
            items = [self.of_value(body, item, own) for item in value[:_DEEPEST]]
            return Listing(None if not items or None in items or len(value) > _DEEPEST else Choice(tuple(items)))
        if not isinstance(value, str):
            return _literal(value)
        try:
            template = compile_condition(value) if bare else compile_template(value)
        except ExpressionError:
            return None  # the expression checks say so
        if isinstance(template, Expression):
            return self.of_expression(body, template, own)
        return STRING if isinstance(template, str | Interpolation) else None

    def of_expression(self, body: Body | None, expression: Expression, own: Own = _NAMES) -> Type:
        """Return the type of an expression's value."""
        if path := whole_path(expression):
            found = self.read(body, path, own)
            return None if isinstance(found, Missing) else found
        match tree_of(expression.text):
            case ast.Compare() | ast.UnaryOp(op=ast.Not()):
                return BOOLEAN
            case ast.Constant(value=value):
                return _literal(value)
            case ast.Call(func=ast.Name(id=name)):
                return _CALLS.get(name)
            case ast.List() | ast.ListComp():
                return Listing()
            case ast.Dict() | ast.DictComp():
                return Record({}, open=True)
            case _:
                return None


def _literal(value: Any) -> Type:
    if value is None:
        return NULL
    by_type: dict[type, Type] = {bool: BOOLEAN, int: INTEGER, float: NUMBER, str: STRING}
    return by_type.get(type(value))
