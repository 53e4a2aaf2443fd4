"""Rows of executions in one table, held in memory while a batch of events is folded, and written at once."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from operator import itemgetter
from typing import Any

from sqlalchemy import ColumnElement, Connection, Table, bindparam, delete, select

from perdure.events.entry import Happened
from perdure.events.vocabulary import ExecutionStarted
from perdure.projections.store import upsert

_AT_ONCE = 500  # ids in one question
Row = dict[str, Any]
Key = tuple[Any, ...]


class Rows:
    """The rows of some executions, by key; the first part of a key is the execution."""

    def __init__(self, table: Table, key: Sequence[str] = (), only: ColumnElement[bool] | None = None) -> None:
        self._table = table
        self._key = tuple(key) or tuple(column.name for column in table.primary_key)
        self._key_of: Callable[[Row], Key] = itemgetter(*self._key) if len(self._key) > 1 else self._only_key
        self._only = only
        self._rows: dict[str, dict[Key, Row]] = {}
        self._changed: dict[Key, Row | None] = {}
        self._stored: set[Key] = set()

    def load(self, connection: Connection, events: Iterable[Happened]) -> None:
        """Take in the rows that are there, of those executions that did not begin among the events."""
        seen = dict.fromkeys(item.execution for item in events)
        begun = {item.execution for item in events if isinstance(item.event, ExecutionStarted)}
        known = [execution for execution in seen if execution not in begun]
        column = self._table.c[self._key[0]]
        for start in range(0, len(known), _AT_ONCE):
            query = select(self._table).where(column.in_(known[start : start + _AT_ONCE]))
            if self._only is not None:
                query = query.where(self._only)
            for mapping in connection.execute(query).mappings():
                row = dict(mapping)
                key = self._key_of(row)
                self._rows.setdefault(key[0], {})[key] = row
                self._stored.add(key)

    def get(self, *key: Any) -> Row | None:
        """Return a row, or None where there is none."""
        return self._rows.get(key[0], {}).get(key)

    def of(self, execution: str) -> list[Row]:
        """Return the rows of an execution."""
        return list(self._rows.get(execution, {}).values())

    def put(self, **row: Any) -> Row:
        """Set a whole row; return it."""
        key = self._key_of(row)
        self._rows.setdefault(key[0], {})[key] = row
        self._changed[key] = row
        return row

    def change(self, row: Row, **values: Any) -> None:
        """Set some columns of a row, but never of its key."""
        row.update(values)
        self._changed[self._key_of(row)] = row

    def forget(self, row: Row) -> None:
        """Leave a row as it is written, and do not hold it any more."""
        key = self._key_of(row)
        self._rows.get(key[0], {}).pop(key, None)

    def remove(self, *key: Any) -> Row | None:
        """Take a row away; return it, or None where there was none."""
        row = self._rows.get(key[0], {}).pop(key, None)
        if row is not None:
            self._changed[key] = None
        return row

    def clear(self, execution: str) -> None:
        """Take all rows of an execution away."""
        for key in list(self._rows.get(execution, ())):
            self.remove(*key)

    def write(self, connection: Connection) -> None:
        """Write what has changed."""
        gone = [key for key, row in self._changed.items() if row is None and key in self._stored]
        if gone:
            same = (self._table.c[name] == bindparam(f"k_{name}") for name in self._key)
            rows = [{f"k_{name}": value for name, value in zip(self._key, key, strict=True)} for key in gone]
            connection.execute(delete(self._table).where(*same), rows)
        upsert(connection, self._table, [row for row in self._changed.values() if row is not None])

    def _only_key(self, row: Row) -> Key:
        return (row[self._key[0]],)


def numbered(events: Iterable[Happened]) -> Iterator[tuple[Happened, int]]:
    """Yield each event with its place within its entry, from 0."""
    position, place = -1, 0
    for item in events:
        place = place + 1 if item.position == position else 0
        position = item.position
        yield item, place
