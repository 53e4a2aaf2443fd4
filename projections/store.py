"""The store of the read models: SQLite or PostgreSQL, its connections, its schema."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sqlalchemy import URL, Connection, Engine, create_engine, event, inspect, make_url, text
from sqlalchemy.engine.interfaces import DBAPIConnection
from sqlalchemy.exc import ArgumentError, DBAPIError, NoSuchModuleError

from perdure.errors import BadInput, EnvironmentProblem
from perdure.projections.tables import SCHEMA

_MIGRATIONS = Path(__file__).parent / "migrations"
_LOCK = 7310001  # of PostgreSQL: one migrates, the others wait
_WAIT_SECONDS = 30  # for another process that writes to the same SQLite file
_PASSING_SQLSTATES = ("08", "40", "53", "55", "57", "58")
_DAMAGED = frozenset({11, 26})  # of SQLite: corrupt, not a database
_PASSING_SQLITE = _DAMAGED | {5, 6, 7, 8, 10, 13, 14}  # busy, locked, no memory, read only, I/O, full, cannot open


class Store:
    """A database by its URL, or SQLite's by its file; several threads and processes may use one at once.

    Raises BadInput for a URL that cannot be used.
    """

    def __init__(self, url: str | Path) -> None:
        self._engine = _engine(url)
        self.is_sqlite = self._engine.dialect.name == "sqlite"
        self.name = self._engine.url.render_as_string(hide_password=True)

    @contextmanager
    def reading(self) -> Iterator[Connection]:
        """Give a connection to read with; writers do not wait for it. Raises EnvironmentProblem."""
        with self._told(), self._engine.connect() as connection:
            yield connection

    @contextmanager
    def writing(self) -> Iterator[Connection]:
        """Give a connection whose transaction is committed at the end. Raises EnvironmentProblem."""
        with self._told(), self._engine.connect().execution_options(writes=True) as connection, connection.begin():
            yield connection

    def migrate(self) -> None:
        """Bring the tables to today's form. Raises EnvironmentProblem where a newer release has made them."""
        with self.reading() as connection:
            if _schema(connection) == SCHEMA:
                return
        with self.writing() as connection:
            if not self.is_sqlite:
                connection.execute(text(f"SELECT pg_advisory_xact_lock({_LOCK})"))
            found = _schema(connection)
            if found != SCHEMA:
                self._upgrade(connection, found)

    def close(self) -> None:
        """Close all connections."""
        self._engine.dispose()

    def _upgrade(self, connection: Connection, found: str | None) -> None:
        from alembic import command
        from alembic.config import Config
        from alembic.util import CommandError

        config = Config()
        config.set_main_option("script_location", str(_MIGRATIONS).replace("%", "%%"))
        config.attributes["connection"] = connection
        try:
            command.upgrade(config, "head")
        except CommandError as error:
            raise EnvironmentProblem(
                f"the tables in {self.name} are of another release of perdure ({found}): {error}; use that release, or "
                "another database"
            ) from error

    @contextmanager
    def _told(self) -> Iterator[None]:
        try:
            yield
        except DBAPIError as error:
            if not is_passing(error):
                raise
            raise EnvironmentProblem(
                f"the read models in {self.name} cannot be used: {error.orig}{_mend(error)}"
            ) from error


def is_passing(error: Exception) -> bool:
    """Say whether an error is the database's own affair, and not of what it was asked: it may be over soon."""
    if not isinstance(error, DBAPIError):
        return False
    code = getattr(error.orig, "sqlite_errorcode", None)
    if code is not None:
        return (code & 0xFF) in _PASSING_SQLITE
    state = getattr(error.orig, "sqlstate", None)
    if state is not None:
        return str(state).startswith(_PASSING_SQLSTATES)
    return error.connection_invalidated or type(error.orig).__name__ == "OperationalError"


def _mend(error: DBAPIError) -> str:
    if (getattr(error.orig, "sqlite_errorcode", 0) & 0xFF) not in _DAMAGED:
        return ""
    return "; the file is damaged: delete it, with its -wal and -shm, and all of it is made again from the log"


def upsert(connection: Connection, table: Any, rows: list[dict[str, Any]]) -> None:
    """Insert whole rows, over those that have the same key."""
    if not rows:
        return
    if connection.dialect.name == "sqlite":
        from sqlalchemy.dialects.sqlite import insert
    else:
        from sqlalchemy.dialects.postgresql import insert  # type: ignore[assignment]
    statement = insert(table)
    keys = [column.name for column in table.primary_key]
    others = {column.name: statement.excluded[column.name] for column in table.columns if column.name not in keys}
    if others:
        connection.execute(statement.on_conflict_do_update(index_elements=keys, set_=others), rows)
    else:
        connection.execute(statement.on_conflict_do_nothing(), rows)


def _schema(connection: Connection) -> str | None:
    if not inspect(connection).has_table("perdure_schema"):
        return None
    found: str | None = connection.scalar(text("SELECT version_num FROM perdure_schema"))
    return found


def _engine(url: str | Path) -> Engine:
    if isinstance(url, Path):
        return _sqlite(URL.create("sqlite", database=str(url)))
    try:
        parsed = make_url(url)
    except ArgumentError:
        raise BadInput(
            "the setting projections_url is no URL of a database; write postgresql://user@host/database"
        ) from None
    if parsed.drivername == "postgres" or parsed.get_backend_name() == "postgresql":
        parsed = parsed.set(drivername="postgresql+psycopg")
    if parsed.get_backend_name() not in ("sqlite", "postgresql"):
        raise BadInput(f"projections_url: {parsed.get_backend_name()!r} is neither sqlite nor postgresql")
    try:
        if parsed.get_backend_name() == "sqlite":
            return _sqlite(parsed)
        return create_engine(parsed, pool_size=5, max_overflow=5, pool_pre_ping=True)
    except (ModuleNotFoundError, NoSuchModuleError):
        raise EnvironmentProblem(
            "projections_url is of PostgreSQL, whose driver is not installed: pip install 'perdure[postgres]'"
        ) from None


def _sqlite(url: URL) -> Engine:
    if not url.database or url.database == ":memory:":
        raise BadInput("projections_url: SQLite needs a file, as in sqlite:////var/lib/perdure/projections.sqlite")
    file = Path(url.database)
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise EnvironmentProblem(f"the folder of {file} cannot be made: {error.strerror}") from error
    engine = create_engine(url, connect_args={"timeout": _WAIT_SECONDS})

    @event.listens_for(engine, "connect")
    def _settings(connection: DBAPIConnection, _: object) -> None:
        cursor = connection.cursor()
        cursor.execute("PRAGMA journal_mode=WAL")  # readers do not wait for the writer
        cursor.execute("PRAGMA synchronous=NORMAL")  # a power cut costs the last rows with their position, nothing else
        cursor.execute("PRAGMA cache_size=-512")  # kB, of each connection; the system has the file in its cache anyway
        cursor.close()
        connection.isolation_level = None  # we begin, not the driver

    @event.listens_for(engine, "begin")
    def _begin(connection: Connection) -> None:
        # A writer from the start: one that turns into a writer later can meet "database is locked" at once.
        writes = connection.get_execution_options().get("writes")
        connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")

    return engine
