"""Compiles comprehensions; each pass is charged with all that it may visit before it is made."""

import ast
from collections.abc import Callable
from functools import partial
from typing import Any

from perdure.definitions.evaluation import Run, describe
from perdure.definitions.expression_compiler import Compiler, compiles
from perdure.definitions.expression_operators import text_key
from perdure.definitions.signatures import Code
from perdure.errors import ExpressionError

Found = Callable[[Run, Any], None]
"""Takes an item of what is looped over, or takes one into the result."""


@compiles(ast.ListComp, ast.GeneratorExp, ast.DictComp)
def _comprehension(compiler: Compiler, node: ast.ListComp | ast.GeneratorExp | ast.DictComp) -> Code:
    outer = dict(compiler.variables)
    loops = [_loop(compiler, generator) for generator in node.generators]
    take, result_of = _element(compiler, node)
    compiler.variables = outer
    parts = [node.key, node.value] if isinstance(node, ast.DictComp) else [node.elt]
    for generator, (values, bind, tests) in zip(reversed(node.generators), reversed(loops), strict=True):
        cost = 1 + sum(map(size, [generator.target, *generator.ifs, *parts]))
        take = partial(_pass, values, bind, tests, cost, take)
        parts = [generator.iter]

    def loop(run: Run) -> Any:
        result = result_of()
        take(run, result)
        return result

    return loop


def size(node: ast.expr) -> int:
    """Return how many parts an expression has."""
    return sum(isinstance(part, ast.expr) for part in ast.walk(node))


def _loop(compiler: Compiler, generator: ast.comprehension) -> tuple[Code, Found, list[Code]]:
    if generator.is_async:
        raise ExpressionError("async is not part of the expression language")
    values = compiler.compile(generator.iter)
    return values, _target(compiler, generator.target), [compiler.compile(test) for test in generator.ifs]


def _element(compiler: Compiler, node: ast.ListComp | ast.GeneratorExp | ast.DictComp) -> tuple[Found, type]:
    if not isinstance(node, ast.DictComp):
        element = compiler.compile(node.elt)
        return lambda run, result: result.append(element(run)), list
    key, value = compiler.compile(node.key), compiler.compile(node.value)

    def put(run: Run, result: Any) -> None:
        result[text_key(key(run))] = value(run)

    return put, dict


def _pass(values: Code, bind: Found, tests: list[Code], cost: int, take: Found, run: Run, result: Any) -> None:
    items = values(run)
    if type(items) not in (list, dict, str):
        raise ExpressionError(f"cannot loop over {describe(items)}")
    for item in items:
        run.spend(cost)
        bind(run, item)
        if all(test(run) for test in tests):
            take(run, result)


def _target(compiler: Compiler, target: ast.expr) -> Found:
    if isinstance(target, ast.Name):
        slot = compiler.bind(target.id)
        return lambda run, item: run.slots.__setitem__(slot, item)
    if not isinstance(target, ast.Tuple | ast.List):
        raise ExpressionError(f"{type(target).__name__} is not part of the expression language")
    parts = [_target(compiler, part) for part in target.elts]

    def unpack(run: Run, item: Any) -> None:
        if type(item) is not list or len(item) != len(parts):
            shown = f"a list of {len(item)}" if type(item) is list else describe(item)
            raise ExpressionError(f"cannot take {shown} apart into {len(parts)} variables")
        for part, value in zip(parts, item, strict=True):
            part(run, value)

    return unpack
