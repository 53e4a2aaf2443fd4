"""The tool `sql`: one statement for a database that the settings name; read-only, values bound, rows counted."""

import asyncio
import base64
import threading
from collections.abc import Callable
from datetime import date, datetime, time, timedelta
from typing import TYPE_CHECKING, Any

from perdure.actors import sql_guards
from perdure.actors.context import Context
from perdure.actors.models import Unavailable
from perdure.actors.outside import Outside
from perdure.actors.tool_schema import shown
from perdure.definitions.builtin_tools import SqlCall, SqlReply
from perdure.definitions.hints import did_you_mean
from perdure.errors import BadInput, EnvironmentProblem, PerdureError

if TYPE_CHECKING:
    from sqlalchemy import Connection, CursorResult, Engine

_PATIENCE = 5.0  # seconds until a statement has ended that was stopped


class SqlFailed(PerdureError):
    """The database refuses a statement, or it failed there."""


async def sql(call: SqlCall, context: Context) -> SqlReply:
    """Ask a database by SQL: one statement, its values bound by name, in a transaction of its own.

    Raises BadInput, SqlFailed, Unavailable where the database does not answer, or EnvironmentProblem.
    """
    engine = await asyncio.to_thread(_engine, call, context.outside)  # the driver is loaded for it
    asking = _Asking(call, engine)
    work = asyncio.get_running_loop().run_in_executor(None, asking.run)
    try:
        async with asyncio.timeout(call.timeout):
            return await asyncio.shield(work)
    except TimeoutError:
        raise Unavailable(f"database {call.database!r} did not answer within {call.timeout:g} s") from None
    finally:
        if not work.done():  # it ends soon after, but where the network is gone: then its thread is left behind
            stopped = asyncio.gather(asyncio.to_thread(asking.stop), work, return_exceptions=True)
            await asyncio.wait([stopped], timeout=_PATIENCE)


def _engine(call: SqlCall, outside: Outside) -> "Engine":
    """Return the engine of a database; its connections are made for one statement each, and closed."""
    from sqlalchemy import create_engine
    from sqlalchemy.engine import make_url
    from sqlalchemy.exc import ArgumentError, NoSuchModuleError
    from sqlalchemy.pool import NullPool

    known = outside.reach.databases
    if call.database not in known:
        hint = did_you_mean(call.database, known) or f"; there is {', '.join(sorted(known)) or 'none'}"
        raise BadInput(f"there is no database {call.database!r} in the setting `databases`{hint}")
    given = known[call.database]
    if call.write and not given.write:
        raise BadInput(f"database {call.database!r} may only be read: its setting has no `write: true`")
    try:
        url = make_url(outside.reveal(given.url))
        if url.password:
            outside.secrets.hide(str(url.password), f"password of {call.database}")
        sql_guards.check_dialect(call.database, url)
        opened = sql_guards.opened(url, write=call.write)
        engine = create_engine(opened, poolclass=NullPool, connect_args=sql_guards.patience(opened, call.timeout))
    except (ArgumentError, NoSuchModuleError):
        raise EnvironmentProblem(
            f"the url of database {call.database!r} in the setting is none that can be used"
        ) from None
    except ModuleNotFoundError as error:
        raise EnvironmentProblem(
            f"database {call.database!r} needs the module {error.name!r}: pip install 'perdure[postgres]'"
        ) from None
    sql_guards.guard(engine, write=call.write, timeout=call.timeout)
    return engine


class _Asking:
    """One statement under way, in a thread, that can be stopped from another one."""

    def __init__(self, call: SqlCall, engine: "Engine") -> None:
        self._call, self._engine = call, engine
        self._lock = threading.Lock()
        self._stop: Callable[[], None] | None = None
        self._stopped = False

    def run(self) -> SqlReply:
        """Make the statement and commit it; raise what the tool raises."""
        from sqlalchemy.exc import DBAPIError, OperationalError, SQLAlchemyError, StatementError

        name = self._call.database
        try:
            with self._engine.connect() as connection, connection.begin():
                self._can_be_stopped(connection)
                return self._answered(connection)
        except OperationalError as error:
            if sql_guards.is_refusal(error.orig):
                raise SqlFailed(f"database {name!r}: {error.orig}") from None
            raise Unavailable(f"database {name!r}: {error.orig}") from None
        except DBAPIError as error:
            raise SqlFailed(f"database {name!r}: {error.orig}") from None
        except StatementError as error:
            raise BadInput(f"the statement for database {name!r} does not fit its params: {error.orig}") from None
        except SQLAlchemyError as error:
            raise SqlFailed(f"database {name!r}: {error}") from None
        except OverflowError as error:
            raise BadInput(f"the statement for database {name!r} does not fit its params: {error}") from None
        finally:
            with self._lock:
                self._stop = None

    def stop(self) -> None:
        """Stop the statement where it is."""
        with self._lock:
            self._stopped = True
            if self._stop is not None:
                self._stop()

    def _can_be_stopped(self, connection: "Connection") -> None:
        raw = connection.connection.driver_connection
        assert raw is not None  # noqa: S101 (it is open)
        with self._lock:
            self._stop = raw.interrupt if connection.dialect.name == "sqlite" else raw.cancel
            if self._stopped:
                raise Unavailable(f"database {self._call.database!r}: the call was stopped before it began")

    def _answered(self, connection: "Connection") -> SqlReply:
        from sqlalchemy import text

        call = self._call
        query = sql_guards.limited(call.database, call.query, connection.dialect.name, call.max_rows, write=call.write)
        statement = text(query)
        wanted = set(statement.compile().params)
        if missing := wanted - call.params.keys():
            raise BadInput(f"the query needs params {', '.join(sorted(missing))}, which are not given")
        if unknown := call.params.keys() - wanted:
            raise BadInput(f"the query has no place for params {', '.join(sorted(unknown))}; write :name")
        result = connection.execute(statement, {name: _bindable(name, value) for name, value in call.params.items()})
        return self._reply(result)

    def _reply(self, result: "CursorResult[Any]") -> SqlReply:
        if not result.returns_rows:
            return SqlReply(rows=[], truncated=False, changed=max(result.rowcount, 0))
        keys = list(result.keys())
        if twice := {key for key in keys if keys.count(key) > 1}:
            raise BadInput(f"the query gives two columns named {', '.join(sorted(twice))}; name them apart with AS")
        found = result.fetchmany(self._call.max_rows + 1)
        rows = [dict(zip(keys, map(_plain, row), strict=True)) for row in found[: self._call.max_rows]]
        changed = 0 if sql_guards.first_word(self._call.query) == "select" else max(result.rowcount, 0)
        return SqlReply(rows=rows, truncated=len(found) > self._call.max_rows, changed=changed)


def _bindable(name: str, value: Any) -> Any:
    if isinstance(value, dict | list):
        raise BadInput(f"param {name!r} is {shown(value)}; a bound value is text, a number, true, false or null")
    return value


def _plain(value: Any) -> Any:
    """Return a value of a row as JSON data: exact decimals, times and whatever JSON does not have as text."""
    if value is None or isinstance(value, str | int | float | dict):
        return value
    if isinstance(value, list | tuple):
        return [_plain(each) for each in value]
    if isinstance(value, datetime | date | time):
        return value.isoformat()
    if isinstance(value, timedelta):
        return value.total_seconds()
    if isinstance(value, bytes | bytearray | memoryview):
        return base64.b64encode(bytes(value)).decode()
    return str(value)
