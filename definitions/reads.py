"""The dotted paths that an expression reads, and what guards each of them, for the checks before anything runs."""

import ast
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import lru_cache

from perdure.definitions.expressions import Expression

ITEM = "[]"
"""The part of a path that stands for an item of a list."""

_NONE: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Read:
    """One path that is read, as far as its keys are constant.

    `guarded`: it may be missing, for it stands in `default(...)` or goes through `.get(...)`. `tested`: the nodes whose
    result is asked for before it is read, by a conditional expression, `and`, or `or`.
    """

    path: tuple[str, ...]
    guarded: bool = False
    tested: frozenset[str] = _NONE


def paths_in(expression: Expression) -> tuple[Read, ...]:
    """Return what an expression reads, in its order; variables of comprehensions are left out."""
    return _paths(expression.text)


def whole_path(expression: Expression) -> tuple[str, ...] | None:
    """Return the path that an expression is, where it is nothing but a path."""
    tree = tree_of(expression.text)
    chain = _chain(tree) if tree is not None else None
    return chain if chain and isinstance(tree, ast.Name | ast.Attribute | ast.Subscript) else None


@lru_cache(maxsize=10_000)
def _paths(text: str) -> tuple[Read, ...]:
    tree = tree_of(text)
    if tree is None:
        return ()
    bound = {part.id for part in ast.walk(tree) if isinstance(part, ast.Name) and isinstance(part.ctx, ast.Store)}
    return tuple(dict.fromkeys(read for read in _walk(tree, Read(())) if read.path[0] not in bound))


@lru_cache(maxsize=10_000)
def tree_of(text: str) -> ast.expr | None:
    """Return the syntax tree of an expression; None where it cannot be read."""
    try:
        return ast.parse(text.strip(), mode="eval").body
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None  # the expression checks say so


def _walk(node: ast.AST, at: Read) -> Iterator[Read]:
    match node:
        case ast.Name() | ast.Attribute() | ast.Subscript():
            yield from _chain_reads(node, at)
        case ast.Call(func=ast.Attribute(value=value, attr=method), args=arguments, keywords=options):
            yield from _walk(value, replace(at, guarded=True) if method == "get" else at)
            yield from _all([*arguments, *options], at)
        case ast.Call(func=ast.Name(id=name), args=arguments, keywords=options):
            yield from _all([*arguments, *options], replace(at, guarded=True) if name == "default" else at)
        case ast.IfExp(test=test, body=then, orelse=other):
            yield from _walk(test, at)
            yield from _all([then, other], _after([test], at))
        case ast.BoolOp(values=values):
            for index, value in enumerate(values):
                yield from _walk(value, _after(values[:index], at))
        case ast.ListComp(generators=loops) | ast.GeneratorExp(generators=loops) | ast.DictComp(generators=loops):
            parts = [part for part in ast.iter_child_nodes(node) if not isinstance(part, ast.comprehension)]
            yield from _all(loops, at)
            yield from _all(parts, _after([test for loop in loops for test in loop.ifs], at))
        case _:
            yield from _all(list(ast.iter_child_nodes(node)), at)


def _all(nodes: list[ast.AST] | list[ast.expr] | list[ast.comprehension], at: Read) -> Iterator[Read]:
    for node in nodes:
        yield from _walk(node, at)


def _after(tests: list[ast.expr], at: Read) -> Read:
    return replace(at, tested=at.tested | {name for test in tests for name in _tested(test)})


def _tested(test: ast.expr) -> Iterator[str]:
    for read in _walk(test, Read(())):
        if read.path[0] == "nodes" and len(read.path) in (3, 4):  # nodes.x.output, nodes.x.status, nodes.x.output.y
            yield read.path[1]


def _chain_reads(node: ast.expr, at: Read) -> Iterator[Read]:
    chain = _chain(node)
    if chain:
        yield replace(at, path=chain)
    while isinstance(node, ast.Attribute | ast.Subscript):
        if isinstance(node, ast.Subscript):
            yield from _walk(node.slice, at)
        if not chain and _chain(node.value):
            yield from _walk(node.value, at)
            return
        node = node.value
    if not isinstance(node, ast.Name):
        yield from _walk(node, at)


def _chain(node: ast.expr) -> tuple[str, ...] | None:
    """Return the path that a chain of constant keys is, or None."""
    match node:
        case ast.Name(id=name):
            return (name,)
        case ast.Attribute(value=value, attr=key) | ast.Subscript(value=value, slice=ast.Constant(value=str(key))):
            chain = _chain(value)
            return (*chain, key) if chain else None
        case ast.Subscript(value=value, slice=ast.Constant(value=int()) | ast.UnaryOp(operand=ast.Constant())):
            chain = _chain(value)
            return (*chain, ITEM) if chain else None
        case _:
            return None
