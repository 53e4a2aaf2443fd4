"""The tool `sql` on real databases, SQLite and PostgreSQL: bound values, read-only, so many rows, so long."""

import asyncio
import json
import socket
import sqlite3
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import create_engine, text

from perdure.actors import sql_tool
from perdure.actors.context import Context
from perdure.actors.models import Unavailable
from perdure.actors.outside import Database, Outside, Reach
from perdure.actors.secret_values import Secrets
from perdure.actors.sql_tool import SqlFailed
from perdure.actors.tools import call_async, find
from perdure.definitions.builtin_tools import BUILTINS
from perdure.errors import BadInput, EnvironmentProblem

SQL = BUILTINS["sql"].place
TABLE = "CREATE TABLE orders (id INTEGER PRIMARY KEY, who TEXT, total NUMERIC(10, 2))"
ROWS = "INSERT INTO orders VALUES (1, 'ann', 10.50), (2, 'bob', 20), (3, 'cy', 30)"


@pytest.fixture(scope="module")
def postgres_url(postgres_address: str) -> str:
    """One database for all tests of this file: making one for each takes longer than they do."""
    return f"postgresql+psycopg://{postgres_address}/postgres"


@pytest.fixture(params=["sqlite", "postgresql"])
def database(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """The URL of a database with three orders."""
    url = f"sqlite:///{tmp_path}/shop.db" if request.param == "sqlite" else request.getfixturevalue("postgres_url")
    engine = create_engine(url)
    with engine.begin() as connection:
        connection.execute(text("DROP TABLE IF EXISTS orders"))
        connection.execute(text(TABLE))
        connection.execute(text(ROWS))
    yield url
    with engine.connect() as connection:
        assert connection.execute(text("SELECT count(*) FROM orders WHERE id <= 3")).scalar() == 3, "orders are gone"
    engine.dispose()


async def ask(url: str, query: str, *, allowed: bool = False, secrets: Secrets | None = None, **arguments: Any) -> Any:
    reach = Reach(databases={"shop": Database(url=url, write=allowed)})
    context = Context("x", "n", 1, "x/n", outside=Outside(reach, secrets))
    return await call_async(find(SQL), {"database": "shop", "query": query, **arguments}, context)


async def test_rows_come_back_by_name_and_values_are_bound(database: str) -> None:
    query = "SELECT id, who, total FROM orders WHERE id > :least AND who <> :who ORDER BY id"
    reply = await ask(database, query, params={"least": 1, "who": "x' OR '1'='1"})
    exact = "20.00" if database.startswith("postgresql") else 20
    assert reply["rows"][0] == {"id": 2, "who": "bob", "total": exact}
    assert (len(reply["rows"]), reply["truncated"], reply["changed"]) == (2, False, 0)


async def test_no_more_rows_than_allowed_come_back_and_it_says_so(database: str) -> None:
    reply = await ask(database, "SELECT id FROM orders ORDER BY id -- all of them", max_rows=2)
    assert (reply["rows"], reply["truncated"]) == ([{"id": 1}, {"id": 2}], True)
    assert not (await ask(database, "SELECT id FROM orders;", max_rows=3))["truncated"]


@pytest.mark.parametrize(
    "query",
    [
        "DELETE FROM orders",
        "UPDATE orders SET total = 0",
        "DROP TABLE orders",
        "WITH x AS (SELECT 1) DELETE FROM orders",
        "SELECT 1; DELETE FROM orders",
        "SELECT 1) AS x; COMMIT; DELETE FROM orders; SELECT * FROM (SELECT 1",
        "/* SELECT */ DELETE FROM orders",
        "EXPLAIN ANALYZE DELETE FROM orders",
        "SELECT id INTO copied FROM orders",
    ],
)
async def test_nothing_is_changed_by_a_call_that_reads(database: str, query: str) -> None:
    with pytest.raises((BadInput, SqlFailed)):
        await ask(database, query, allowed=True)


@pytest.mark.parametrize(
    "query",
    [
        "WITH gone AS (DELETE FROM orders RETURNING id) SELECT * FROM gone",
        "SELECT set_config('transaction_read_only', 'off', false)",
        "SELECT nextval('numbers')",
        "EXPLAIN ANALYZE UPDATE orders SET total = 0",
    ],
)
async def test_postgresql_itself_refuses_what_would_change_data(postgres_url: str, query: str) -> None:
    engine = create_engine(postgres_url)
    with engine.begin() as connection:
        connection.execute(text("CREATE TABLE IF NOT EXISTS orders (id INTEGER, total INTEGER)"))
        connection.execute(text("CREATE SEQUENCE IF NOT EXISTS numbers"))
    engine.dispose()
    with pytest.raises(SqlFailed, match=r"read-only|read-write mode|top level"):
        await ask(postgres_url, query)


@pytest.mark.parametrize(
    "query",
    ["ATTACH DATABASE '/tmp/other.db' AS other", "PRAGMA query_only = OFF", "SELECT load_extension('x')"],
)
@pytest.mark.parametrize("write", [False, True])
async def test_sqlite_reaches_no_other_file_even_where_it_may_write(tmp_path: Path, query: str, write: bool) -> None:
    sqlite3.connect(tmp_path / "shop.db").close()
    with pytest.raises((BadInput, SqlFailed)):
        await ask(f"sqlite:///{tmp_path}/shop.db", query, allowed=True, write=write)


async def test_a_call_may_write_where_the_setting_and_the_call_say_so(database: str) -> None:
    insert = "INSERT INTO orders VALUES (:id, 'dee', 1)"
    with pytest.raises(BadInput, match="may only be read"):
        await ask(database, insert, write=True, params={"id": 9})
    reply = await ask(database, insert, allowed=True, write=True, params={"id": 9})
    assert (reply["changed"], reply["rows"]) == (1, [])
    reply = await ask(database, "DELETE FROM orders WHERE id = 9 RETURNING who", allowed=True, write=True)
    assert reply["rows"] == [{"who": "dee"}]
    assert (await ask(database, "SELECT id FROM orders WHERE id = 9"))["rows"] == []


async def test_a_statement_that_fails_changes_nothing_and_says_what_the_database_says(database: str) -> None:
    with pytest.raises(SqlFailed, match="shop"):
        await ask(database, "INSERT INTO orders VALUES (1, 'again', 1)", allowed=True, write=True)
    with pytest.raises(SqlFailed, match="nothing"):
        await ask(database, "SELECT nothing FROM orders")


@pytest.mark.parametrize(
    ("query", "params", "said"),
    [
        ("SELECT :a", {}, "needs params a"),
        ("SELECT 1", {"b": 1}, "has no place for params b"),
        ("SELECT :a", {"a": [1]}, "param 'a' is a list of 1"),
        ("SELECT 1 AS x, 2 AS x", {}, "two columns named x"),
        ("VACUUM", {}, "only read by this call"),
    ],
)
async def test_what_does_not_fit_is_named(database: str, query: str, params: dict[str, Any], said: str) -> None:
    with pytest.raises(BadInput) as caught:
        await ask(database, query, params=params)
    assert said in str(caught.value)


async def test_a_long_statement_is_stopped_where_it_runs(database: str) -> None:
    count = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT count(*) AS c FROM n"
    with pytest.raises(Unavailable, match=r"did not answer within 0\.2 s"):
        async with asyncio.timeout(10):
            await ask(database, count, timeout=0.2)


async def test_values_that_json_has_not_become_text(postgres_url: str) -> None:
    query = (
        "SELECT DATE '2026-03-01' AS d, 'a'::bytea AS b, INTERVAL '1 min' AS i, gen_random_uuid() AS u, NULL AS n, "
        "int4range(1, 5) AS r, ARRAY['\\xff'::bytea] AS bs, ARRAY[1.50, 2] AS ns"
    )
    (row,) = (await ask(postgres_url, query))["rows"]
    assert (row["d"], row["b"], row["i"], row["n"]) == ("2026-03-01", "YQ==", 60, None)
    assert (row["r"], row["bs"], row["ns"]) == ("[1, 5)", ["/w=="], ["1.50", "2"])
    assert len(row["u"]) == 36
    json.dumps(row)


async def test_a_server_that_takes_the_connection_and_says_nothing_is_given_up(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(sql_tool, "_PATIENCE", 0.1)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"postgresql://ann@127.0.0.1:{silent.getsockname()[1]}/none"
        async with asyncio.timeout(1.5):
            with pytest.raises(Unavailable, match=r"did not answer within 0\.2 s"):
                await ask(url, "SELECT 1", timeout=0.2)
    assert not [each for each in caplog.records if each.name == "asyncio"], "an error that nobody took"


async def test_a_file_that_somebody_else_locks_is_waited_for_as_long_as_the_call_may_take(tmp_path: Path) -> None:
    with closing(sqlite3.connect(tmp_path / "a.db")) as other:
        other.executescript(f"{TABLE}; BEGIN EXCLUSIVE")
        async with asyncio.timeout(2):
            with pytest.raises(Unavailable, match=r"is locked|did not answer within 0\.2 s"):
                await ask(f"sqlite:///{tmp_path}/a.db", "SELECT * FROM orders", timeout=0.2)


async def test_what_sqlite_cannot_take_or_read_is_a_typed_error(tmp_path: Path) -> None:
    sqlite3.connect(tmp_path / "a.db").close()
    with pytest.raises(BadInput, match="does not fit its params: Python int too large"):
        await ask(f"sqlite:///{tmp_path}/a.db", "SELECT :n", params={"n": 2**70})
    with pytest.raises(SqlFailed, match="Could not decode to UTF-8"):
        await ask(f"sqlite:///{tmp_path}/a.db", "SELECT CAST(x'ff' AS TEXT) AS x")


async def test_an_unknown_database_is_named_with_a_way_on(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="there is no database 'shpo' in the setting `databases`; did you mean 'shop'"):
        await ask("sqlite:///x.db", "SELECT 1", database="shpo")
    with pytest.raises(Unavailable, match="unable to open"):
        await ask(f"sqlite:///{tmp_path}/none.db", "SELECT 1")
    assert not (tmp_path / "none.db").exists()


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("mysql+pymysql://h/d", "speaks sqlite and postgresql"),
        ("sqlite://", "in memory is empty at every call"),
        ("sqlite:///x.db?mode=rw", "speaks sqlite"),
        ("no url", "none that can be used"),
    ],
)
async def test_a_database_that_cannot_be_kept_read_only_is_not_reached(url: str, said: str) -> None:
    with pytest.raises(EnvironmentProblem) as caught:
        await ask(url, "SELECT 1")
    assert said in str(caught.value)


async def test_a_missing_driver_is_named_with_what_installs_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "psycopg", None)
    with pytest.raises(EnvironmentProblem, match=r"perdure\[postgres\]"):
        await ask("postgresql://h/d", "SELECT 1")


async def test_a_password_comes_from_a_secret_and_is_in_no_error() -> None:
    secrets = Secrets({"PG": "very secret words"}.__getitem__)
    url = "postgresql://ann:${{ secrets.PG }}@127.0.0.1:1/none"
    with pytest.raises(Unavailable) as caught:
        await ask(url, "SELECT 1", secrets=secrets)
    assert "very secret words" not in secrets.redact(str(caught.value))


async def test_many_calls_at_once_do_not_wait_for_each_other_for_ever(database: str) -> None:
    found = await asyncio.gather(*(ask(database, "SELECT count(*) AS n FROM orders") for _ in range(20)))
    assert [each["rows"][0]["n"] for each in found] == [3] * 20


def test_a_connection_of_sqlite_is_closed_after_each_call(tmp_path: Path) -> None:
    with closing(sqlite3.connect(tmp_path / "a.db")) as connection:
        connection.execute(TABLE)
    asyncio.run(ask(f"sqlite:///{tmp_path}/a.db", "SELECT * FROM orders"))
    (tmp_path / "a.db").unlink()
