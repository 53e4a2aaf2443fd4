"""The filter expression of queries, as in `status == "failed" and total > 100`: Python's syntax, made into SQL."""

import ast
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import ColumnElement, Connection, UnaryExpression, and_, false, func, not_, or_, select
from sqlalchemy.sql.operators import custom_op

from perdure.errors import BadInput
from perdure.projections.tables import attributes, current, executions, tags

MAX_LENGTH = 2000
MAX_WHOLE = (1 << 31) - 1  # of a column of whole numbers
_DEEPEST = 50
Began = ColumnElement[int]

COLUMNS: dict[str, ColumnElement[Any]] = {
    "id": executions.c.id,
    "workflow": executions.c.workflow,
    "digest": executions.c.digest,
    "status": executions.c.status,
    "priority": executions.c.priority,
    "parent": executions.c.parent,
    "forked_from": executions.c.forked_from,
    "started": executions.c.started_at,
    "ended": executions.c.ended_at,
    "changed": executions.c.changed_at,
    "node": executions.c.failed_node,
    "error": executions.c.error_type,
    "message": executions.c.error_message,
}
"""What names mean that are no attributes; an attribute of the same name is `search.status`."""

_TIMES = ("started", "ended", "changed")
_COMPARED: dict[type[ast.cmpop], Callable[[Any, Any], Any]] = {
    ast.Eq: lambda left, right: left.is_(None) if right is None else left == right,
    ast.NotEq: lambda left, right: left.is_not(None) if right is None else left.is_distinct_from(right),
    ast.Lt: lambda left, right: left < right,
    ast.LtE: lambda left, right: left <= right,
    ast.Gt: lambda left, right: left > right,
    ast.GtE: lambda left, right: left >= right,
}
_TURNED: dict[type[ast.cmpop], type[ast.cmpop]] = {
    ast.Lt: ast.Gt,
    ast.LtE: ast.GtE,
    ast.Gt: ast.Lt,
    ast.GtE: ast.LtE,
}


def condition(text: str, began: Began = executions.c.began) -> ColumnElement[bool]:
    """Return the SQL of a filter expression; raise BadInput that says what cannot be used. began: see `walked`."""
    if len(text) > MAX_LENGTH:
        raise BadInput(f"the filter has {len(text)} characters; {MAX_LENGTH} are the most")
    try:
        tree = ast.parse(text.strip(), mode="eval")
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        where = f" at character {error.offset}" if isinstance(error, SyntaxError) and error.offset else ""
        raise _wrong(
            text, f"it cannot be read{where}; it is written like: status == 'failed' and total > 100"
        ) from None
    return _Reader(text, began).condition(tree.body, 0)


def walked(connection: Connection, column: ColumnElement[Any]) -> Began:
    """Return the key as conditions compare it in a list that is ordered by a column.

    Where that is another one, SQLite is to walk the index of that column, and not to look up and sort all that has some
    attribute: a plus keeps it from the latter.
    """
    if column is executions.c.began or connection.dialect.name != "sqlite":
        return executions.c.began
    return UnaryExpression(executions.c.began, operator=custom_op("+"))


def attribute_is(name: Any, value: Any, began: Began = executions.c.began) -> ColumnElement[bool]:
    """Return the condition that an attribute has a value; raise BadInput where it cannot have it."""
    if not is_text(name) or not (value is None or isinstance(value, int | float) or is_text(value)):
        raise BadInput(f"where: {name!r}: {value!r}: attributes have names, and are text, numbers or booleans")
    return _attribute(began, name, ast.Eq(), value)


class _Reader:
    def __init__(self, text: str, began: Began) -> None:
        self._text = text
        self._began = began

    def condition(self, node: ast.expr, deep: int) -> ColumnElement[bool]:
        if deep > _DEEPEST:
            raise self._wrong("it is nested too deeply")
        match node:
            case ast.BoolOp(op=ast.And(), values=values):
                return self._all(values, deep)
            case ast.BoolOp(values=values):
                return or_(*(self.condition(each, deep + 1) for each in values))
            case ast.UnaryOp(op=ast.Not(), operand=operand):
                return _not(self.condition(operand, deep + 1))
            case ast.Compare(ops=[op], comparators=[right], left=left):
                return self._compared(left, op, right)
            case ast.Compare(ops=ops, comparators=[*rights], left=left):
                pairs = zip([left, *rights], ops, rights, strict=False)
                return self._all([ast.Compare(one, [op], [other]) for one, op, other in pairs], deep)
            case ast.Call(
                func=ast.Attribute(value=value, attr="startswith"), args=[ast.Constant(value=str()) as start]
            ):
                return self._starts(value, self._value(start))
            case ast.Name() | ast.Attribute():
                return self._compared(node, ast.Eq(), ast.Constant(value=True))
        raise self._wrong(f"{ast.unparse(node)!r} is no condition")

    def _all(self, nodes: list[ast.expr], deep: int) -> ColumnElement[bool]:
        """Join conditions by `and`; a range of one attribute is looked up at once, not once for each of its ends."""
        found, ranges = [], dict[tuple[str, str], list[ColumnElement[bool]]]()
        for node in nodes:
            match node:
                case ast.Compare(ops=[ast.Lt() | ast.LtE() | ast.Gt() | ast.GtE()], comparators=[right], left=left):
                    name, op, value = self._sides(left, node.ops[0], right)
                    if name not in COLUMNS and value is not None:
                        column, value = _column_of(value)
                        compared = _COMPARED[type(op)](column, value)
                        ranges.setdefault((name.removeprefix("search."), str(column.key)), []).append(compared)
                        continue
            found.append(self.condition(node, deep + 1))
        return and_(*found, *(_having(self._began, name, *compared) for (name, _), compared in ranges.items()))

    def _compared(self, left: ast.expr, op: ast.cmpop, right: ast.expr) -> ColumnElement[bool]:
        if isinstance(op, ast.In | ast.NotIn):
            found = self._among(left, right)
            return _not(found) if isinstance(op, ast.NotIn) else found
        return self._one(*self._sides(left, op, right))

    def _sides(self, left: ast.expr, op: ast.cmpop, right: ast.expr) -> tuple[str, ast.cmpop, Any]:
        """Return name, operator and value of a comparison, whichever side they stand on."""
        if type(op) not in _COMPARED:
            raise self._wrong("it compares with ==, !=, <, <=, >, >=, in and not in")
        if isinstance(left, ast.Constant | ast.UnaryOp):
            left, right, op = right, left, _TURNED.get(type(op), type(op))()
        return self._name(left), op, self._value(right)

    def _one(self, name: str, op: ast.cmpop, value: Any) -> ColumnElement[bool]:
        if value is None and not isinstance(op, ast.Eq | ast.NotEq):
            raise self._wrong("None is compared with == and != only")
        if name in COLUMNS:
            return _COMPARED[type(op)](COLUMNS[name], self._fitting(name, value))  # type: ignore[no-any-return]
        if name in ("tags", "at"):
            raise self._wrong(f"write: 'word' in {name}")
        return _attribute(self._began, name.removeprefix("search."), op, value)

    def _among(self, left: ast.expr, right: ast.expr) -> ColumnElement[bool]:
        if isinstance(right, ast.Name) and right.id in ("tags", "at"):
            value = self._value(left)
            if not isinstance(value, str):
                raise self._wrong(f"what is in {right.id} is text")
            return (tagged if right.id == "tags" else is_at)(value, self._began)
        if not isinstance(right, ast.List | ast.Tuple | ast.Set):
            raise self._wrong("'in' is followed by a list of values, by tags, or by at")
        name, values = self._name(left), [self._value(each) for each in right.elts]
        if name in COLUMNS or name in ("tags", "at"):
            return or_(false(), *(self._one(name, ast.Eq(), each) for each in values))
        return _any_of(self._began, name.removeprefix("search."), values)

    def _starts(self, node: ast.expr, start: str) -> ColumnElement[bool]:
        """Compare with what begins so as a range, which an index answers."""
        name = self._name(node)
        after = start[:-1] + chr(ord(start[-1]) + 1) if start and ord(start[-1]) < 0xD7FF else None
        if name in _TIMES or name == "priority":
            raise self._wrong(f"{name} is no text")
        column = COLUMNS.get(name)
        if column is not None:
            begins = column.startswith(start, autoescape=True)
            return and_(column >= start, column < after, begins) if after else begins
        where = and_(
            attributes.c.name == name.removeprefix("search."), attributes.c.text.startswith(start, autoescape=True)
        )
        return self._began.in_(select(attributes.c.began).where(where))

    def _name(self, node: ast.expr) -> str:
        match node:
            case ast.Name(id=name):
                return name
            case ast.Attribute(value=ast.Name(id="search"), attr=name):
                return f"search.{name}"
        raise self._wrong(f"{ast.unparse(node)!r} is no name of a column or an attribute")

    def _value(self, node: ast.expr) -> Any:
        match node:
            case ast.Constant(value=str() as value) if not is_text(value):
                raise self._wrong(f"{value!r} is no text")
            case ast.Constant(value=str() | int() | float() | None as value):
                return value
            case ast.UnaryOp(op=ast.USub(), operand=ast.Constant(value=int() | float() as value)):
                return -value
            case ast.Name(id="true" | "false" | "null" as word):
                return {"true": True, "false": False, "null": None}[word]
        raise self._wrong(f"{ast.unparse(node)!r} is no value; text stands in quotes")

    def _fitting(self, name: str, value: Any) -> Any:
        """Return a value as the column has it."""
        if value is None:
            return None
        if name in _TIMES:
            return moment(value, name)
        wanted = int if name == "priority" else str
        if not isinstance(value, wanted) or isinstance(value, bool):
            raise self._wrong(f"{name} is compared with {'a whole number' if wanted is int else 'text'}, not {value!r}")
        if isinstance(value, int) and not -MAX_WHOLE <= value <= MAX_WHOLE:
            raise self._wrong(f"{value} is no priority")
        return value

    def _wrong(self, why: str) -> BadInput:
        return _wrong(self._text, why)


def moment(value: Any, name: str) -> datetime:
    """Return a time of a query: a datetime, or ISO 8601 text; without a zone the text is UTC. Raises BadInput."""
    try:
        at = value if isinstance(value, datetime) else datetime.fromisoformat(value)
    except (TypeError, ValueError):
        raise BadInput(f"{name}: {value!r} is no time; write it as 2026-01-31T12:00:00+00:00") from None
    if at.tzinfo is None:
        if isinstance(value, datetime):
            raise BadInput(f"{name}: {value} has no time zone; give it one, as in datetime(..., tzinfo=UTC)")
        return datetime.fromisoformat(f"{at.isoformat()}+00:00")
    try:
        return at.astimezone(UTC)
    except OverflowError:
        raise BadInput(f"{name}: {value} is no time in UTC") from None


def is_text(value: Any) -> bool:
    """Say whether a value is text that can be stored; what a terminal gives may be bytes that are none."""
    try:
        return isinstance(value, str) and bool(value.encode() or True)
    except UnicodeEncodeError:
        return False


def tagged(tag: str, began: Began = executions.c.began) -> ColumnElement[bool]:
    """Return the condition that an execution has a tag."""
    return began.in_(select(tags.c.began).where(tags.c.tag == tag))


def is_at(node: str, began: Began = executions.c.began) -> ColumnElement[bool]:
    """Return the condition that an execution is at a node, or in a state: `check/verify` is any `check[3]/verify`."""
    column = current.c.path if "[" in node else current.c.node
    return began.in_(select(current.c.began).where(column == node))


def _attribute(began: Began, name: str, op: ast.cmpop, value: Any) -> ColumnElement[bool]:
    """Return the condition on an attribute: values of another type are unequal, and neither less nor more."""
    if value is None:
        return not_(_having(began, name)) if isinstance(op, ast.Eq) else _having(began, name)
    if isinstance(op, ast.NotEq):
        return not_(_attribute(began, name, ast.Eq(), value))
    column, value = _column_of(value)
    return _having(began, name, _COMPARED[type(op)](column, value))


def _any_of(began: Began, name: str, values: Iterable[Any]) -> ColumnElement[bool]:
    """Return the condition that an attribute has one of several values, which are looked up at once."""
    found: list[ColumnElement[bool]] = [false()]
    typed: dict[str, tuple[ColumnElement[Any], list[Any]]] = {}
    for each in values:
        if each is None:
            found.append(not_(_having(began, name)))
            continue
        column, value = _column_of(each)
        typed.setdefault(str(column.key), (column, []))[1].append(value)
    return or_(*found, *(_having(began, name, column.in_(same)) for column, same in typed.values()))


def _having(began: Began, name: str, *compared: ColumnElement[bool]) -> ColumnElement[bool]:
    """Return the condition that an execution has an attribute for which all this holds."""
    return began.in_(select(attributes.c.began).where(attributes.c.name == name, *compared))


def _not(found: ColumnElement[bool]) -> ColumnElement[bool]:
    """Return the opposite; what has no value has not that one either."""
    return not_(func.coalesce(found, false()))


def _column_of(value: Any) -> tuple[ColumnElement[Any], Any]:
    if isinstance(value, bool):
        return attributes.c.truth, value
    if isinstance(value, int | float):
        try:
            return attributes.c.number, float(value)
        except OverflowError:
            raise BadInput(f"no attribute is a number of {len(str(value))} digits") from None
    return attributes.c.text, value


def _wrong(text: str, why: str) -> BadInput:
    shown = text if len(text) <= 80 else f"{text[:77]}..."
    return BadInput(f"the filter {shown!r}: {why}")
