"""Checks every expression of a definition: that it can be read, and that what it names is there."""

import ast
import re
from collections.abc import Iterator
from typing import Any

from perdure.definitions.expressions import Expression
from perdure.definitions.findings import Finding
from perdure.definitions.functions import IN
from perdure.definitions.hints import did_you_mean
from perdure.definitions.model import Workflow
from perdure.definitions.nodes import LoopNode
from perdure.definitions.other_words import key_hint
from perdure.definitions.places import Body, Field, Place, inner_of, places_of
from perdure.definitions.templates import compile_condition, compile_template, expressions
from perdure.definitions.yaml_source import Path
from perdure.errors import ExpressionError

_ELSEWHERE = {
    "secrets": "secrets may be read in 'with' only: they are resolved at the call, and never logged",
    "context": "'context' is there in statecharts",
    "event": "'event' is there in statecharts",
    "error": "'error' is there in 'catch', 'on_failure', 'finally' and 'compensate'",
    "loop": "'loop' is there within a loop",
    "output": "'output', a node's own result, is there in its 'output'",
    "args": "'args' is there in the approval of a tool",
}


_BRACES = re.compile(r"(?<!\$)(?:\{\{|\$\{)\s*(?P<text>(?P<root>\w+)[^{}]*)\}\}?")
"""An expression in the braces of other tools: `{{ }}` or `${ }`."""


def expression_findings(workflow: Workflow) -> Iterator[Finding]:
    """Yield what is wrong in the expressions of a DAG."""
    for place in places_of(workflow):
        yield from _value_findings(place, place.field.path, place.field.value)


def _value_findings(place: Place, at: Path, value: Any) -> Iterator[Finding]:
    if isinstance(value, dict | list):
        for key, item in value.items() if isinstance(value, dict) else enumerate(value):
            yield from _value_findings(place, (*at, key), item)
        return
    if value is None or not (isinstance(value, str) or place.field.bare):
        return
    if not place.field.bare:
        yield from braces_findings(at, value, place.roots)
    try:
        template = compile_condition(value) if place.field.bare else compile_template(value)
    except ExpressionError as error:
        yield Finding(at, str(error))
        return
    for expression in expressions(template):
        yield from _name_findings(place, at, expression)


def _name_findings(place: Place, at: Path, expression: Expression) -> Iterator[Finding]:
    if states_asked(expression):
        yield Finding(at, f"'{expression.text}' asks In() for a state; only a statechart has states to be in")
    for problem in root_problems(expression, place.field, place.roots, place.body):
        yield Finding(at, problem)
    for node in sorted(expression.nodes):
        if not place.body.can_read(node):
            hint = _within(place.body, node) or did_you_mean(node, place.body.readable())
            yield Finding(at, f"'{expression.text}' reads node {node!r}, which does not exist{hint or _nowhere(place)}")
    undoing = place.field.path[-2:] == ("compensate", "with") or place.field.path[-3:-1] == ("compensate", "workflow")
    if place.node in expression.nodes and not undoing:
        yield Finding(at, f"node {place.node!r} reads its own result in '{expression.text}'")
    for name in sorted(expression.nodes):
        if _lies_within(place.body, name):
            yield Finding(at, f"'{expression.text}' reads node {name!r} from within it; it has no result yet")


def _within(body: Body, name: str) -> str:
    """Say in which node of the body the one that is meant lies, if in any."""
    for owner, (node, at) in body.nodes.items():
        if any(name in inner.nodes for _, inner in inner_of(node, at)):
            last = ", or loop.last in the loop's own conditions" if isinstance(node, LoopNode) else ""
            return f" here; it lies within node {owner!r}: read nodes.{owner}.output{last}"
    return ""


def _nowhere(place: Place) -> str:
    names = sorted(place.body.readable() - {place.node})[:10]
    return f"; there are {', '.join(names)}" if names else ""


def _lies_within(body: Body, name: str) -> bool:
    """Return whether the node that a name means in a body is one that the body lies within."""
    while name not in body.nodes and body.outer is not None:
        if body.owner == name:
            return True
        body = body.outer
    return False


def states_asked(expression: Expression) -> list[str | None]:
    """Return the states that an expression asks for by `In('state')`; None for one that is not written out."""
    if f"{IN}(" not in expression.text:
        return []
    calls = [part for part in ast.walk(ast.parse(expression.text, mode="eval")) if isinstance(part, ast.Call)]
    asked = [call for call in calls if isinstance(call.func, ast.Name) and call.func.id == IN]
    constants = [next(iter([*call.args, *(each.value for each in call.keywords)]), None) for call in asked]
    return [each.value if isinstance(each, ast.Constant) else None for each in constants]  # type: ignore[misc]


def root_problems(
    expression: Expression, field: Field, known: frozenset[str], body: Body | None = None
) -> Iterator[str]:
    """Say of each name that an expression begins with and that does not exist there, or not so."""
    for root in sorted(expression.roots - known):
        if root == "secrets" and field.to_workflow:
            yield f"'{expression.text}' would be recorded as another workflow's input; read it in that workflow itself"
        else:
            mend = f"; write nodes.{root}.output" if body is not None and body.can_read(root) else None
            yield _root_problem(root, known, expression.text, mend)
    if "secrets" in expression.roots & known and expression.secret is None:
        yield (
            f"'{expression.text}' computes with a secret, which expressions never see: a secret stands alone, "
            "${{ secrets.NAME }}, perhaps with text around it"
        )


def braces_findings(at: Path, text: str, roots: frozenset[str]) -> Iterator[Finding]:
    """Warn of what is meant as an expression, and is mere text."""
    for braces in _BRACES.finditer(text):
        if braces["root"] in roots:
            mend = "${{ " + braces["text"].strip() + " }}"
            yield Finding(at, f"{braces.group()!r} is text as it stands; an expression is {mend!r}", warning=True)


def _root_problem(root: str, known: frozenset[str], text: str, mend: str | None = None) -> str:
    if root in _ELSEWHERE:
        return f"unknown name {root!r} in '{text}': {_ELSEWHERE[root]}"
    hint = mend or key_hint(root, known) or f"; there are {', '.join(sorted(known))}"
    return f"unknown name {root!r} in '{text}'{hint}"
