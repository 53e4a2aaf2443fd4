"""The mutants of a file: its functions with one thing changed in each, for `mutate.py`.

Left out are what is there for the type checker (assertions, annotations), and texts of more than a word (messages).
"""

import ast
import copy
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import CodeType

COMPARED: dict[type[ast.cmpop], type[ast.cmpop]] = {
    ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Gt, ast.Eq: ast.NotEq, ast.NotEq: ast.Eq,
    ast.In: ast.NotIn, ast.NotIn: ast.In, ast.Is: ast.IsNot, ast.IsNot: ast.Is,
}  # fmt: skip
COUNTED: dict[type[ast.operator], type[ast.operator]] = {
    ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.Div, ast.Div: ast.Mult, ast.Pow: ast.Mult, ast.BitOr: ast.BitAnd,
    ast.BitAnd: ast.BitOr, ast.Mod: ast.Mult,
}  # fmt: skip
Function = ast.FunctionDef | ast.AsyncFunctionDef


@dataclass(frozen=True)
class Mutant:
    """A file with one change, `put` for `node`, in the function that begins at this line (of its first decorator)."""

    file: Path
    line: int
    name: str
    tree: ast.Module
    node: ast.AST
    put: ast.AST

    def code(self) -> CodeType:
        """Return the code of the changed file."""
        changed = copy.deepcopy(self.tree, {id(self.node): self.put})
        return compile(ast.fix_missing_locations(changed), str(self.file), "exec")


def mutants_of(file: Path) -> Iterator[Mutant]:
    """Yield all mutants of a file."""
    tree = ast.parse(file.read_text(encoding="utf-8"))
    numbers: Counter[str] = Counter()
    for function in _functions(tree):
        line = min([function.lineno, *(each.lineno for each in function.decorator_list)])
        for node in _inside(function):
            for what, put in _changes(node):
                name = f"{file.name} {function.name}: {what}"
                numbers[name] += 1
                name += f" ({numbers[name]})" if numbers[name] > 1 else ""
                yield Mutant(file, line, name, tree, node, put)


def _functions(tree: ast.AST) -> Iterator[Function]:
    """Yield the outermost functions, and methods."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, Function):
            yield node
        elif isinstance(node, ast.ClassDef):
            yield from _functions(node)


def _inside(function: Function) -> Iterator[ast.AST]:
    todo: list[ast.AST] = list(function.body)
    while todo:
        node = todo.pop(0)
        if isinstance(node, ast.Assert) or (isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)):
            continue
        yield node
        skipped = [node.annotation] if isinstance(node, ast.AnnAssign) else []
        todo += [each for each in ast.iter_child_nodes(node) if each not in skipped]


def _changes(node: ast.AST) -> Iterator[tuple[str, ast.AST]]:
    """Yield what may stand in a node's place, and what to call that."""
    if isinstance(node, ast.stmt):
        yield from _of_statement(node)
    elif isinstance(node, ast.expr):
        yield from _of_expression(node)
    elif isinstance(node, ast.match_case) and node.guard is not None:
        yield f"drop guard {_text(node.guard)}", ast.match_case(node.pattern, None, node.body)
    elif isinstance(node, ast.comprehension) and node.ifs:
        rest = ast.comprehension(node.target, node.iter, [], node.is_async)
        yield f"drop if {_text(node.ifs[0])}", rest


def _of_statement(node: ast.stmt) -> Iterator[tuple[str, ast.AST]]:
    gone = ast.Pass()
    match node:
        case ast.Expr(value=ast.Call()) | ast.AugAssign() | ast.Continue() | ast.Raise():
            yield f"drop {_text(node)}", gone
        case ast.Return(value=None):
            yield "drop return", gone
        case ast.Return(value=value) if value is not None and not _is_none(value):
            yield f"return None for {_text(value)}", ast.Return(ast.Constant(None))
        case ast.If(test=test, body=body, orelse=other):
            yield f"if never {_text(test)}", ast.If(ast.Constant(False), body, other)
            yield f"if always {_text(test)}", ast.If(ast.Constant(True), body, other)
        case ast.While(test=test, body=body):
            yield f"while never {_text(test)}", ast.While(ast.Constant(False), body, [])
        case ast.For(target=target, body=body):
            yield f"no turn of for {_text(target)}", ast.For(target, ast.List([], ast.Load()), body, [])
        case ast.Try(body=body):
            yield "drop except", ast.If(ast.Constant(True), body, [])


def _of_expression(node: ast.expr) -> Iterator[tuple[str, ast.AST]]:  # noqa: C901 (one case per kind)
    match node:
        case ast.Compare(left, [op], right) if type(op) in COMPARED:
            yield f"turn {_text(node)}", ast.Compare(left, [COMPARED[type(op)]()], right)
        case ast.BoolOp(op, values):
            other = ast.Or() if isinstance(op, ast.And) else ast.And()
            yield f"and/or of {_text(node)}", ast.BoolOp(other, values)
            for index, value in enumerate(values):
                rest = [each for at, each in enumerate(values) if at != index]
                yield f"drop {_text(value)} of {_text(node)}", rest[0] if len(rest) == 1 else ast.BoolOp(op, rest)
        case ast.UnaryOp(ast.Not(), operand):
            yield f"drop not of {_text(node)}", operand
        case ast.BinOp(left, op, right) if type(op) in COUNTED:
            yield f"turn {_text(node)}", ast.BinOp(left, COUNTED[type(op)](), right)
        case ast.IfExp(body=body, orelse=other):
            yield f"first of {_text(node)}", body
            yield f"second of {_text(node)}", other
        case ast.Constant(bool() as value):
            yield f"turn {value}", ast.Constant(not value)
        case ast.Constant(int() | float() as value):
            yield f"{value} + 1", ast.Constant(value + 1)
        case ast.Constant(str() as value) if re.fullmatch(r"[\w/~#+.:]*", value):
            yield f"change {value!r}", ast.Constant(value + "XX")
        case ast.Call():
            yield from _of_call(node)


def _of_call(node: ast.Call) -> Iterator[tuple[str, ast.AST]]:
    for keyword in node.keywords:
        rest = [each for each in node.keywords if each is not keyword]
        yield f"drop {keyword.arg} of {_text(node)}", ast.Call(node.func, node.args, rest)
    if isinstance(node.func, ast.Name) and node.func.id == "sorted":
        yield f"do not sort {_text(node.args[0])}", ast.Call(ast.Name("list", ast.Load()), node.args[:1], [])
    for index, argument in enumerate(node.args):
        if not isinstance(argument, ast.Constant | ast.Starred):
            given = [*node.args[:index], ast.Constant(None), *node.args[index + 1 :]]
            yield f"None for {_text(argument)} of {_text(node)}", ast.Call(node.func, given, node.keywords)


def _is_none(value: ast.expr) -> bool:
    return isinstance(value, ast.Constant) and value.value is None


def _text(node: ast.AST) -> str:
    text = " ".join(ast.unparse(node).split())
    return text if len(text) <= 60 else f"{text[:57]}..."
