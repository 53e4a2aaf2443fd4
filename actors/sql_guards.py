"""What keeps a statement within its bounds: read-only by the database itself, one at a time, so many rows, so long."""

import re
import sqlite3
from math import ceil
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from perdure.errors import BadInput, EnvironmentProblem

if TYPE_CHECKING:
    from sqlalchemy import URL, Engine

_READING = {
    sqlite3.SQLITE_SELECT, sqlite3.SQLITE_READ, sqlite3.SQLITE_FUNCTION, sqlite3.SQLITE_RECURSIVE,
    sqlite3.SQLITE_TRANSACTION,
}  # fmt: skip
_NEVER = {sqlite3.SQLITE_ATTACH, sqlite3.SQLITE_DETACH, sqlite3.SQLITE_PRAGMA}
_BEGINS = re.compile(r"(?:\s|--[^\n]*\n|/\*.*?\*/|\()*([a-z]+)", re.IGNORECASE | re.DOTALL)
_ROWS = frozenset({"select", "with", "values", "table"})
_ASKING = frozenset({"explain", "show"})


def check_dialect(name: str, url: "URL") -> None:
    """Raise EnvironmentProblem for a database of which it is not known how to keep it read-only."""
    if url.drivername in ("sqlite", "sqlite+pysqlite") and not url.query:
        return
    if url.drivername not in ("postgresql", "postgresql+psycopg"):
        raise EnvironmentProblem(
            f"database {name!r} is reached by {url.drivername!r}; the tool sql speaks sqlite and postgresql+psycopg"
        )


def opened(url: "URL", *, write: bool) -> "URL":
    """Return the url to open: a file of SQLite that has to be there, and read-only unless it may be written."""
    if url.get_backend_name() != "sqlite":
        return url.set(drivername="postgresql+psycopg")
    if not url.database or url.database == ":memory:":
        raise EnvironmentProblem("a database in memory is empty at every call; name a file: sqlite:///shop.db")
    return url.set(
        database=f"file:{quote(url.database)}", query={"mode": "rw" if write else "ro", "uri": "true"}
    )  # fmt: skip


def patience(url: "URL", timeout: float) -> dict[str, float]:
    """Return what the driver is told of how long it may wait: to connect, or for a lock of SQLite's."""
    return {"timeout": timeout} if url.get_backend_name() == "sqlite" else {"connect_timeout": ceil(timeout)}


def guard(engine: "Engine", *, write: bool, timeout: float) -> None:
    """Set up every connection of an engine so that the database itself refuses what is not allowed."""
    from sqlalchemy import event

    if engine.dialect.name == "sqlite":
        event.listen(engine, "connect", lambda raw, _record: raw.set_authorizer(_authorizer(write=write)))
        return

    def set_up(raw: Any, _record: Any) -> None:
        raw.read_only = not write  # every transaction begins as one
        raw.execute(f"SET statement_timeout = {max(int(timeout * 1000), 1)}")
        raw.commit()

    def one_at_a_time(cursor: Any, statement: str, parameters: Any, _context: Any) -> bool:
        cursor.execute(statement, parameters, prepare=True)  # the server prepares single statements only
        return True

    event.listen(engine, "connect", set_up)
    event.listen(engine, "do_execute", one_at_a_time)
    event.listen(engine, "do_execute_no_params", lambda *args: one_at_a_time(args[0], args[1], None, args[2]))


def limited(name: str, query: str, dialect: str, rows: int, *, write: bool) -> str:
    """Return the query so that the server sends no more rows than are wanted; SQLite makes them as they are read.

    Raises BadInput for a statement that a reader does not make.
    """
    query, word = query.strip().removesuffix(";").rstrip(), first_word(query)
    if not write and word not in _ROWS | _ASKING:
        raise BadInput(f"database {name!r} is only read by this call: it takes {', '.join(sorted(_ROWS | _ASKING))}")
    if dialect == "sqlite" or word not in _ROWS or (write and word == "with"):
        return query
    return f"SELECT * FROM (\n{query}\n) AS perdure_rows LIMIT {rows + 1}"  # noqa: S608 (one prepared statement)


def first_word(query: str) -> str:
    """Return the word that a statement begins with, after comments and brackets; "" where there is none."""
    found = _BEGINS.match(query)
    return found[1].lower() if found else ""


def is_refusal(error: Any) -> bool:
    """Say whether what a driver calls an operational error is about the statement, and would come again."""
    if isinstance(error, sqlite3.Error):
        return getattr(error, "sqlite_errorcode", None) not in (
            sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED, sqlite3.SQLITE_INTERRUPT, sqlite3.SQLITE_CANTOPEN,
        )  # fmt: skip
    return False


def _authorizer(*, write: bool) -> Any:
    def allowed(action: int, first: str | None, second: str | None, *_: Any) -> int:
        if action == sqlite3.SQLITE_FUNCTION and second == "load_extension":
            return sqlite3.SQLITE_DENY
        if action in _NEVER or (not write and action not in _READING):
            return sqlite3.SQLITE_DENY
        return sqlite3.SQLITE_OK

    return allowed
