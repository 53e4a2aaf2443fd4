"""Compiles the parts of expressions but calls and comprehensions: literals, names, reads of data, operators."""

import ast
import re
from collections.abc import Mapping
from functools import partial
from typing import Any

from perdure.definitions.evaluation import MOMENT, Missing, Run, bounded, describe, listed
from perdure.definitions.expression_compiler import Compiler, compiles, not_ours
from perdure.definitions.expression_operators import (
    BINARY,
    COMPARISONS,
    Operator,
    negative,
    positive,
    sliced,
    subscript,
    text_key,
)
from perdure.definitions.hints import did_you_mean
from perdure.definitions.signatures import Code
from perdure.errors import ExpressionError

_SURROGATE = re.compile("[\ud800-\udfff]")
_JSON_WORDS = {"true": "True", "false": "False", "null": "None"}


@compiles(ast.Constant)
def _constant(compiler: Compiler, node: ast.Constant) -> Code:
    value = node.value
    if not (value is None or isinstance(value, str | int | float)):
        raise ExpressionError(f"{value!r} is not a JSON value")
    if isinstance(value, str) and not value.isascii() and _SURROGATE.search(value):
        raise ExpressionError("text that is not valid Unicode")
    bounded(value)
    return lambda run: value


@compiles(ast.Name)
def _name(compiler: Compiler, node: ast.Name) -> Code:
    name = node.id
    if name in compiler.variables:
        slot = compiler.variables[name]
        return lambda run: run.slots[slot]
    if name in _JSON_WORDS:
        raise ExpressionError(f"write {_JSON_WORDS[name]}, not {name}")

    def read(run: Run) -> Any:
        try:
            return run.scope[name]
        except KeyError:
            known = [each for each in run.scope if each != MOMENT]
            reason = f"there is no {name!r} here; there are {listed(known)}{did_you_mean(name, known)}"
        raise ExpressionError(reason)

    return read


@compiles(ast.Attribute)
def _attribute(compiler: Compiler, node: ast.Attribute) -> Code:
    key = node.attr
    if key.startswith("_"):
        raise ExpressionError(f"names do not begin with '_': write [{key!r}]")
    target = compiler.compile(node.value)

    def read(run: Run) -> Any:
        value = target(run)
        if isinstance(value, Mapping):
            try:
                return value[key]
            except KeyError:
                pass
        raise Missing(value, key, node)

    return read


@compiles(ast.Subscript)
def _subscript(compiler: Compiler, node: ast.Subscript) -> Code:
    if isinstance(node.slice, ast.Slice):
        return _slice(compiler, node, node.slice)
    target, index = compiler.compile(node.value), compiler.compile(node.slice)

    def read(run: Run) -> Any:
        value, key = target(run), index(run)
        try:
            if isinstance(value, Mapping):
                if type(key) is not str:
                    raise ExpressionError(f"an object is read by a string, not {describe(key)}")
                return value[key]
            if isinstance(value, list | str):
                return subscript(run, value, key)
        except LookupError:
            pass
        raise Missing(value, key, node)

    return read


def _slice(compiler: Compiler, node: ast.Subscript, bounds: ast.Slice) -> Code:
    target = compiler.compile(node.value)
    parts = [compiler.compile(part) if part else _nothing for part in (bounds.lower, bounds.upper, bounds.step)]
    return lambda run: sliced(run, target(run), (parts[0](run), parts[1](run), parts[2](run)))


def _nothing(run: Run) -> None:
    return None


@compiles(ast.List, ast.Tuple)
def _list(compiler: Compiler, node: ast.List | ast.Tuple) -> Code:
    parts = [compiler.compile(part) for part in node.elts]
    return lambda run: [part(run) for part in parts]


@compiles(ast.Dict)
def _dict(compiler: Compiler, node: ast.Dict) -> Code:
    parts = []
    for key, value in zip(node.keys, node.values, strict=True):
        if key is None:
            raise ExpressionError("'**' is not part of the expression language")
        parts.append((compiler.compile(key), compiler.compile(value)))
    return lambda run: {text_key(key(run)): value(run) for key, value in parts}


@compiles(ast.UnaryOp)
def _unary(compiler: Compiler, node: ast.UnaryOp) -> Code:
    operand = compiler.compile(node.operand)
    if isinstance(node.op, ast.Not):
        return lambda run: not operand(run)
    if isinstance(node.op, ast.Invert):
        raise not_ours(node.op)
    compute = negative if isinstance(node.op, ast.USub) else positive
    return lambda run: compute(run, operand(run))


@compiles(ast.BinOp)
def _binary(compiler: Compiler, node: ast.BinOp) -> Code:
    compute = BINARY.get(type(node.op))
    if compute is None:
        raise not_ours(node.op)
    left, right = compiler.compile(node.left), compiler.compile(node.right)
    return lambda run: compute(run, left(run), right(run))


@compiles(ast.BoolOp)
def _boolean(compiler: Compiler, node: ast.BoolOp) -> Code:
    parts, last = [compiler.compile(part) for part in node.values[:-1]], compiler.compile(node.values[-1])
    stop = isinstance(node.op, ast.Or)

    def decide(run: Run) -> Any:
        for part in parts:
            value = part(run)
            if bool(value) is stop:
                return value
        return last(run)

    return decide


@compiles(ast.Compare)
def _compare(compiler: Compiler, node: ast.Compare) -> Code:
    operands = [node.left, *node.comparators]
    for number, op in enumerate(node.ops):
        if isinstance(op, ast.Is | ast.IsNot) and not any(map(_is_singleton, operands[number : number + 2])):
            raise ExpressionError("'is' goes with None, True or False only; write ==")
    first, *others = [compiler.compile(operand) for operand in operands]
    steps = list(zip((COMPARISONS[type(op)] for op in node.ops), others, strict=True))
    if len(steps) == 1:
        ((compute, second),) = steps
        return lambda run: compute(run, first(run), second(run))
    return partial(_chain, first, steps)


def _chain(first: Code, steps: list[tuple[Operator, Code]], run: Run) -> bool:
    left = first(run)
    for compute, operand in steps:
        right = operand(run)
        if not compute(run, left, right):
            return False
        left = right
    return True


def _is_singleton(node: ast.expr) -> bool:
    return isinstance(node, ast.Constant) and (node.value is None or isinstance(node.value, bool))


@compiles(ast.IfExp)
def _either(compiler: Compiler, node: ast.IfExp) -> Code:
    test, then, other = (compiler.compile(part) for part in (node.test, node.body, node.orelse))
    return lambda run: then(run) if test(run) else other(run)
