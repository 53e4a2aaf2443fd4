"""Compiles calls of the functions and methods of the language; a form that does not fit is an error at once."""

import ast
from functools import partial
from typing import Any

from perdure.definitions.evaluation import Missing, Run, describe
from perdure.definitions.expression_compiler import Compiler, compiles
from perdure.definitions.functions import DEFAULT, FUNCTIONS
from perdure.definitions.hints import did_you_mean
from perdure.definitions.methods import CHANGING, METHODS
from perdure.definitions.patterns import compile_pattern
from perdure.definitions.signatures import Code
from perdure.errors import ExpressionError


@compiles(ast.Call)
def _call(compiler: Compiler, node: ast.Call) -> Code:
    if isinstance(node.func, ast.Name):
        return _function_call(compiler, node, node.func.id)
    if isinstance(node.func, ast.Attribute):
        return _method_call(compiler, node, node.func)
    raise ExpressionError("only functions and methods by name can be called")


def _function_call(compiler: Compiler, node: ast.Call, name: str) -> Code:
    function = FUNCTIONS.get(name)
    if function is None:
        hint = did_you_mean(name, FUNCTIONS) or f"; there are {', '.join(sorted(FUNCTIONS))}"
        raise ExpressionError(f"there is no function {name!r}{hint}")
    codes, options = _arguments(compiler, node)
    if "pattern" in function.signature.parameters:
        _compile_pattern(node, codes, options)
    bound = function.bind(codes, options)
    if bound is None:
        raise ExpressionError(f"{name!r} is called as {function.form}")
    if name == DEFAULT:
        given = function.signature.bind(*codes, **options).arguments
        return partial(_default, given["path"], given["value"])
    return bound


def _compile_pattern(node: ast.Call, codes: list[Code], options: dict[str, Code]) -> None:
    """Compile a pattern that is written out now, so that one that is wrong is an error now."""
    named = {keyword.arg: keyword.value for keyword in node.keywords}
    written = named.get("pattern", node.args[0] if node.args else None)
    if isinstance(written, ast.Constant) and isinstance(written.value, str):
        pattern = compile_pattern(written.value)
        if "pattern" in named:
            options["pattern"] = lambda run: pattern
        else:
            codes[0] = lambda run: pattern


def _default(path: Code, value: Code, run: Run) -> Any:
    try:
        found = path(run)
    except Missing as error:
        if not error.absent:
            raise
        found = None
    return value(run) if found is None else found


def _method_call(compiler: Compiler, node: ast.Call, called: ast.Attribute) -> Code:
    name, methods = called.attr, METHODS.get(called.attr)
    if methods is None:
        if name in CHANGING:
            raise ExpressionError(f"there is no method {name!r}: data is never changed here; compute a new value")
        hint = did_you_mean(name, METHODS) or f"; there are {', '.join(sorted(METHODS))}"
        raise ExpressionError(f"there is no method {name!r}{hint}")
    receiver = compiler.compile(called.value)
    codes, options = _arguments(compiler, node)
    bound = {kind: call for kind, method in methods.items() if (call := method.bind(codes, options))}
    if not bound:
        forms = " or ".join(dict.fromkeys(method.form for method in methods.values()))
        raise ExpressionError(f"{name!r} is called as {forms}")

    def run_it(run: Run) -> Any:
        value = receiver(run)
        call = bound.get(type(value))
        if call is None:
            if value is None:
                raise Missing(value, name, called)
            kind = type(value)
            reason = f"is called as {methods[kind].form}" if kind in methods else f"has no method {name!r}"
            raise ExpressionError(f"{describe(value)} {reason}")
        return call(run, value)

    return run_it


def _arguments(compiler: Compiler, node: ast.Call) -> tuple[list[Code], dict[str, Code]]:
    options = {}
    for keyword in node.keywords:
        if keyword.arg is None:
            raise ExpressionError("'**' is not part of the expression language")
        options[keyword.arg] = compiler.compile(keyword.value)
    return [compiler.compile(argument) for argument in node.args], options
