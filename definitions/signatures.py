"""How a function or method of the expression language is called: its form, and the kinds of data that it takes."""

import ast
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from inspect import Parameter, Signature
from typing import Any

from perdure.definitions.evaluation import KINDS, Run, describe
from perdure.errors import ExpressionError

Code = Callable[[Run], Any]
"""A compiled part of an expression."""

_Checks = tuple[tuple[int, str, frozenset[type]], ...]


@dataclass(frozen=True, slots=True)
class Function:
    """A function or method: `form` is how it is written, `call` takes the run and then the arguments."""

    form: str
    what: str
    example: str
    result: Any
    call: Callable[..., Any]
    signature: Signature

    @property
    def name(self) -> str:
        """Return the name that it is called by."""
        return self.form.partition("(")[0]

    def bind(self, arguments: Sequence[Code], options: Mapping[str, Code]) -> Callable[..., Any] | None:
        """Return what calls this with a run (and a receiver before the arguments), or None where they do not fit."""
        try:
            bound = self.signature.bind(*arguments, **options)
        except TypeError:
            return None
        given = set(bound.arguments)
        bound.apply_defaults()
        codes: list[Code] = []
        checks = []
        for name, parameter in self.signature.parameters.items():
            value = bound.arguments[name]
            parts = value if parameter.kind is Parameter.VAR_POSITIONAL else [value]
            for part in parts:
                if name in given and parameter.annotation != "any":
                    checks.append((len(codes), parameter.annotation, _types(parameter.annotation)))
                codes.append(part if name in given else partial(_constant, part))
        return partial(_call, self, tuple(codes), tuple(checks))


def function_of(form: str, what: str, example: str, result: Any, call: Callable[..., Any]) -> Function:
    """Return a function whose signature is read from its form, such as `round(number: number, digits: integer = 0)`."""
    definition = ast.parse(f"def {form}: pass").body[0]
    assert isinstance(definition, ast.FunctionDef)  # noqa: S101 (for the type checker)
    written = definition.args
    defaults: list[Any] = [Parameter.empty] * (len(written.args) - len(written.defaults))
    defaults += [ast.literal_eval(default) for default in written.defaults]
    parameters = [
        Parameter(each.arg, Parameter.POSITIONAL_OR_KEYWORD, default=default, annotation=_kinds(each))
        for each, default in zip(written.args, defaults, strict=True)
    ]
    if written.vararg:
        parameters.append(Parameter(written.vararg.arg, Parameter.VAR_POSITIONAL, annotation=_kinds(written.vararg)))
    return Function(form, what, example, result, call, Signature(parameters))


def _kinds(written: ast.arg) -> str:
    assert written.annotation is not None  # noqa: S101 (every form names its kinds)
    return ast.unparse(written.annotation)


def _types(kinds: str) -> frozenset[type]:
    return frozenset[type]().union(*(KINDS[kind] for kind in kinds.split(" | ")))


def _constant(value: Any, run: Run) -> Any:
    return value


def _call(function: Function, codes: tuple[Code, ...], checks: _Checks, run: Run, *receiver: Any) -> Any:
    arguments = [code(run) for code in codes]
    for position, kinds, types in checks:
        if type(arguments[position]) not in types:
            wanted = kinds.replace(" | ", " or ")
            raise ExpressionError(f"{function.form} takes {wanted}, not {describe(arguments[position])}")
    return function.call(run, *receiver, *arguments)
