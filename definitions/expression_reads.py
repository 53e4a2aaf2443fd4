"""What an expression reads: found in its syntax tree, for the checks that come before anything runs."""

import ast
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace

from perdure.definitions.evaluation import MAX_DEPTH
from perdure.errors import ExpressionError

ITEM = "[]"
"""The part of a path that stands for an item of a list."""

RESERVED = frozenset(["input", "nodes", "execution", "secrets", "context", "event", "error", "loop", "args"])
"""The roots of all scopes: no variable may have such a name."""


@dataclass(frozen=True, slots=True)
class Read:
    """One path that an expression reads, as far as its keys are constant; `offset` is the place of its root.

    `guarded` says that it stands in `default(...)` or goes through `.get(...)`, so that it may be missing, and
    `conditional` that it is read only in some cases (a branch, the right side of `and` or `or`, within a loop).
    A variable of a comprehension counts as an item of what is looped over: `n.x for n in input.a` reads
    `("input", "a", "[]", "x")`.
    """

    path: tuple[str, ...]
    guarded: bool
    conditional: bool
    offset: int


@dataclass(frozen=True, slots=True)
class _Chain:
    """A chain of keys on one root; it is open while a further constant key still belongs to the path."""

    path: tuple[str, ...]
    open: bool
    guarded: bool
    root: ast.Name

    def then(self, *keys: str) -> "_Chain":
        return replace(self, path=(*self.path, *keys)) if self.open else self


_Chains = Mapping[str, _Chain | None]


@dataclass(frozen=True, slots=True)
class _Place:
    variables: _Chains  # None: a variable of which nothing is known
    guarded: bool = False
    conditional: bool = False


def check_depth(tree: ast.expr) -> None:
    """Raise ExpressionError where an expression is so deep that walking it could use up the stack."""
    level: list[ast.AST] = [tree]
    for _ in range(MAX_DEPTH):
        level = [child for node in level for child in ast.iter_child_nodes(node)]
        if not level:
            return
    raise ExpressionError(f"more than {MAX_DEPTH} parts within one another; compute it in several steps")


def reads_of(tree: ast.expr, text: str) -> tuple[tuple[Read, ...], frozenset[str]]:
    """Return the reads of an expression and the names of its variables.

    Raises ExpressionError where a variable hides a root, or `nodes` is read as a whole.
    """
    reader = _Reader(text)
    reads = tuple(dict.fromkeys(reader.walk(tree, _Place({}))))
    if any(read.path == ("nodes",) for read in reads):
        raise ExpressionError("name the node that is read: nodes.NAME.output, not 'nodes' as a whole")
    return reads, frozenset(reader.bound)


class _Reader:
    def __init__(self, text: str) -> None:
        self.lines = text.splitlines(keepends=True)
        self.bound: set[str] = set()

    def walk(self, node: ast.AST, at: _Place) -> Iterator[Read]:
        later = replace(at, conditional=True)
        match node:
            case ast.Name() | ast.Attribute() | ast.Subscript() | ast.Call(func=ast.Attribute()):
                yield from self._chain_reads(node, at)
            case ast.Call(func=ast.Name(id="default"), args=[path, *others], keywords=options):
                yield from self.walk(path, replace(at, guarded=True))
                yield from self._all([*others, *options], later)
            case ast.Call(args=arguments, keywords=options):
                yield from self._all([*arguments, *options], at)
            case ast.IfExp(test=test, body=then, orelse=other):
                yield from self._all([test], at)
                yield from self._all([then, other], later)
            case ast.BoolOp(values=[first, *others]):
                yield from self._all([first], at)
                yield from self._all(others, later)
            case ast.Compare(left=left, comparators=[right, *others]):
                yield from self._all([left, right], at)
                yield from self._all(others, later)
            case ast.ListComp() | ast.GeneratorExp() | ast.DictComp():
                yield from self._loop(node, at)
            case _:
                yield from self._all(ast.iter_child_nodes(node), at)

    def _all(self, nodes: Iterable[ast.AST], at: _Place) -> Iterator[Read]:
        for node in nodes:
            yield from self.walk(node, at)

    def _chain_reads(self, node: ast.expr, at: _Place) -> Iterator[Read]:
        chain = _chain(node, at.variables)
        if chain is not None:
            yield Read(chain.path, at.guarded or chain.guarded, at.conditional, self._offset(chain.root))
        part = node
        while not isinstance(part, ast.Name):
            match part:
                case ast.Attribute(value=value):
                    part = value
                case ast.Subscript(value=value, slice=index):
                    yield from self.walk(index, at)
                    part = value
                case ast.Call(func=ast.Attribute(value=value), args=arguments, keywords=options):
                    yield from self._all([*arguments, *options], at)
                    part = value
                case _:
                    yield from self.walk(part, at)
                    return

    def _loop(self, node: ast.ListComp | ast.GeneratorExp | ast.DictComp, at: _Place) -> Iterator[Read]:
        for generator in node.generators:
            yield from self.walk(generator.iter, at)
            at = replace(at, variables={**at.variables, **self._variables(generator, at)}, conditional=True)
            yield from self._all(generator.ifs, at)
        yield from self._all([node.key, node.value] if isinstance(node, ast.DictComp) else [node.elt], at)

    def _variables(self, generator: ast.comprehension, at: _Place) -> _Chains:
        names = {part.id for part in ast.walk(generator.target) if isinstance(part, ast.Name)}
        hidden = sorted(names & RESERVED)
        if hidden:
            raise ExpressionError(f"a variable cannot be called {hidden[0]!r}: that is the name of data")
        self.bound |= names
        values = _chain(generator.iter, at.variables)
        known = isinstance(generator.target, ast.Name) and values is not None and values.open
        return {name: values.then(ITEM) if known and values else None for name in names}

    def _offset(self, name: ast.Name) -> int:
        line = name.lineno - 1
        before = self.lines[line].encode("utf-8", "replace")[: name.col_offset]  # columns are bytes of UTF-8
        return sum(map(len, self.lines[:line])) + len(before.decode("utf-8", "replace"))


def _chain(node: ast.expr, variables: _Chains) -> _Chain | None:
    """Return the chain of keys that a part is, or None where it is computed or nothing is known of its variable."""
    match node:
        case ast.Name(id=name):
            return variables[name] if name in variables else _Chain((name,), True, False, node)
        case ast.Attribute(value=value, attr=key) | ast.Subscript(value=value, slice=ast.Constant(value=str(key))):
            chain = _chain(value, variables)
            return chain and chain.then(key)
        case ast.Subscript(value=value, slice=ast.Slice()):
            return _chain(value, variables)
        case ast.Subscript(value=value, slice=index):
            chain = _chain(value, variables)
            return chain and (chain.then(ITEM) if _is_number(index) else replace(chain, open=False))
        case ast.Call(func=ast.Attribute(value=value, attr=method), args=arguments):
            chain = _chain(value, variables)
            if chain and method == "get" and arguments and _is_text(arguments[0]):
                return replace(chain.then(ast.literal_eval(arguments[0])), guarded=True)
            return chain and replace(chain, open=False)
    return None


def _is_number(index: ast.expr) -> bool:
    part = index.operand if isinstance(index, ast.UnaryOp) and isinstance(index.op, ast.USub) else index
    return isinstance(part, ast.Constant) and type(part.value) is int


def _is_text(part: ast.expr) -> bool:
    return isinstance(part, ast.Constant) and isinstance(part.value, str)
