"""The read models, on both databases: rows and position move together, and can be made again from the log."""

import asyncio
import contextlib
import re
from collections.abc import AsyncIterator, Iterator, Sequence
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from histories import BOOM, NOON, append, at, fill, start
from sqlalchemy import Column, Connection, Integer, MetaData, String, Table, select, text, update
from sqlalchemy.exc import DBAPIError

from perdure.errors import BadInput, EnvironmentProblem
from perdure.events.entry import Happened, Recorded
from perdure.events.memory_log import MemoryLog
from perdure.events.vocabulary import (
    BodyStarted,
    BodySucceeded,
    ExecutionAdmitted,
    ExecutionCancelled,
    ExecutionCancelling,
    ExecutionCompensated,
    ExecutionCompensating,
    ExecutionFailed,
    ExecutionPaused,
    ExecutionPurged,
    ExecutionQueued,
    ExecutionResumed,
    ExecutionRetried,
    ExecutionStarted,
    ExecutionSucceeded,
    ExecutionTerminated,
    LimitClaim,
    MacrostepTaken,
    Microstep,
    NodeAttemptFailed,
    NodeCharged,
    NodeFailed,
    NodeOpened,
    NodeScheduled,
    NodeStuck,
    NodeSucceeded,
    NodeWaiting,
    Parent,
    TimerArmed,
)
from perdure.projections import inboxes, queries
from perdure.projections import tracking as tracking_of
from perdure.projections.loading import own_projections
from perdure.projections.projection import Projection
from perdure.projections.queries import Query
from perdure.projections.runner import Projections, built_in
from perdure.projections.statistics import counted
from perdure.projections.store import _MIGRATIONS
from perdure.projections.tables import SCHEMA, executions, metadata, tracking

CLAIM = LimitClaim("few", NOON)


@pytest.fixture(params=["sqlite", "postgresql"])
def database(request: pytest.FixtureRequest, tmp_path: Path) -> str | Path:
    if request.param == "sqlite":
        return tmp_path / "folder" / "projections.sqlite"
    return str(request.getfixturevalue("postgres_url"))


@pytest.fixture
def projections(database: str | Path) -> Iterator[Projections]:
    projections = Projections(database)
    yield projections
    projections.close()


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "projections.sqlite"


async def listed(projections: Projections, **query: Any) -> list[dict[str, Any]]:
    return await projections.read(partial(queries.page, query=Query(**query)))


async def one(projections: Projections, log: MemoryLog, **query: Any) -> dict[str, Any]:
    await projections.catch_up(log)
    (row,) = await listed(projections, **query)
    return row


async def everything(projections: Projections) -> dict[str, list[Any]]:
    """Return all rows of all read models, but not where they were read."""

    def read(connection: Connection) -> dict[str, list[Any]]:
        return {
            table.name: sorted(map(repr, connection.execute(select(table)).all()))
            for projection in built_in() for table in projection.tables
        }  # fmt: skip

    return await projections.read(read)


async def test_an_execution_is_a_row_that_ends(projections: Projections) -> None:
    log = MemoryLog()
    await append(log, "x-1", start(), NodeScheduled("a", 1))
    await append(log, "x-2", start(parent=Parent("x-1", "b", 1, "0"), priority=7), second=1)
    await projections.catch_up(log)
    newest, oldest = await listed(projections)
    assert (newest["id"], newest["status"], newest["ended_at"], newest["current"]) == ("x-2", "running", None, [])
    assert (newest["parent"], newest["parent_node"], newest["priority"]) == ("x-1", "b", 7)
    assert (oldest["id"], oldest["started_at"], oldest["current"]) == ("x-1", NOON, ["a"])
    await append(log, "x-1", NodeFailed("a", 1, BOOM), ExecutionFailed(BOOM, "a", 2), second=2)
    await append(log, "x-2", ExecutionSucceeded(1), second=3)
    await projections.catch_up(log)
    newest, oldest = await listed(projections)
    assert (newest["status"], newest["ended_at"]) == ("succeeded", at(3))
    assert (oldest["status"], oldest["failed_node"], oldest["error_message"]) == ("failed", "a", "it broke")
    assert oldest["current"] == []


@pytest.mark.parametrize(
    ("events", "status"),
    [
        ([ExecutionPaused()], "paused"),
        ([ExecutionPaused(), ExecutionResumed()], "running"),
        ([ExecutionPaused(), ExecutionCancelling(), ExecutionResumed()], "cancelling"),
        ([ExecutionCancelling(), ExecutionPaused()], "cancelling"),
        ([ExecutionSucceeded(), ExecutionCompensating("c", BOOM)], "compensating"),
        ([ExecutionSucceeded(), ExecutionCompensating("c", BOOM), ExecutionPaused(), ExecutionResumed()],
         "compensating"),
        ([ExecutionSucceeded(), ExecutionCompensating("c", BOOM), ExecutionCompensated()], "compensated"),
        ([ExecutionFailed(BOOM), ExecutionRetried()], "running"),
        ([ExecutionQueued(CLAIM)], "queued"),
        ([ExecutionQueued(CLAIM), ExecutionPaused()], "queued"),
        ([ExecutionQueued(CLAIM), ExecutionPaused(), ExecutionAdmitted("few")], "paused"),
        ([ExecutionQueued(CLAIM), ExecutionAdmitted("few")], "running"),
        ([ExecutionQueued(CLAIM), ExecutionCancelling(), ExecutionAdmitted("few")], "cancelling"),
        ([ExecutionCancelling("no"), ExecutionCancelled("no")], "cancelled"),
        ([ExecutionTerminated("stop")], "terminated"),
    ],
)  # fmt: skip
async def test_its_status_is_the_one_that_its_state_has(file: Path, events: list[Any], status: str) -> None:
    from perdure.actors.evolve import fold
    from perdure.actors.state import Started

    log, projections = MemoryLog(), Projections(file)
    for event in (start(), *events):  # one entry each, and then all in one
        await append(log, "x-1", event)
    await append(log, "x-2", start(), *events)
    await projections.catch_up(log)
    assert [row["status"] for row in await listed(projections)] == [status, status]
    state = fold([start(), *events])
    assert isinstance(state, Started)
    assert state.status == status
    projections.close()


async def test_where_an_execution_is_shows_nodes_and_states(projections: Projections) -> None:
    log = MemoryLog()
    await append(log, "x-1", start(), NodeScheduled("check[3]/verify", 1), NodeScheduled("b", 1))
    await append(log, "x-1", NodeSucceeded("b", 1), NodeAttemptFailed("check[3]/verify", 1, BOOM))
    await append(log, "x-2", start(), MacrostepTaken("", "", steps=[Microstep(entered=["draft"])]))
    step = MacrostepTaken("", "send", steps=[Microstep("send", exited=["draft"], entered=["sent", "sent.open"])])
    await append(log, "x-2", step)
    await projections.catch_up(log)
    assert [row["current"] for row in await listed(projections)] == [["sent", "sent.open"], ["check[3]/verify"]]
    assert [row["id"] for row in await listed(projections, at="check/verify")] == ["x-1"]
    assert [row["id"] for row in await listed(projections, at="check[3]/verify")] == ["x-1"]
    assert [row["id"] for row in await listed(projections, at="sent")] == ["x-2"]
    assert await listed(projections, at="draft") == []


async def test_folding_in_any_portions_and_again_gives_the_same_rows(projections: Projections, tmp_path: Path) -> None:
    log = MemoryLog()
    await fill(log, range(40))
    await projections.catch_up(log)
    whole = await everything(projections)
    small = Projections(tmp_path / "small.sqlite", batch=7)
    await small.catch_up(log)
    await small.catch_up(log)
    assert await everything(small) == whole
    await small.rebuild(log, small.names)
    assert await everything(small) == whole
    small.close()


async def test_several_at_once_fold_every_entry_once(projections: Projections, database: str | Path) -> None:
    log = MemoryLog()
    await fill(log, range(300))
    many = [projections, *(Projections(database) for _ in range(3))]
    await asyncio.gather(*(each.catch_up(log) for each in many))
    assert await projections.read(partial(queries.counts, query=Query())) == {
        "succeeded": 240, "failed": 30, "cancelled": 30,
    }  # fmt: skip
    for each in many[1:]:
        each.close()


async def test_some_may_fold_while_another_one_begins_again(database: str | Path) -> None:
    log, several = MemoryLog(), [Projections(database, batch=20) for _ in range(4)]
    await fill(log, range(100))
    for _ in range(3):  # the first time, they make the tables too
        again = several[0].rebuild(log, ["executions", "statistics"])
        await asyncio.gather(again, *(each.catch_up(log) for each in several[1:]))
    assert await several[0].read(partial(queries.counts, query=Query())) == {
        "succeeded": 80, "failed": 10, "cancelled": 10,
    }  # fmt: skip
    for each in several:
        each.close()


async def test_projections_that_stand_at_different_places_meet_at_the_end(projections: Projections) -> None:
    log = MemoryLog()
    await fill(log, range(10))
    await projections.catch_up(log, ["executions"])
    await fill(log, range(10, 20))
    await projections.catch_up(log, ["timeline"])
    assert await projections.catch_up(log) == await log.last()
    apart = await everything(projections)
    await projections.rebuild(log, projections.names)
    assert await everything(projections) == apart


class Late(Projection):
    name = "late"
    seen: ClassVar[list[bool]] = []

    def fold(self, connection: Connection, events: Sequence[Happened]) -> None:
        self.seen.append(connection.scalar(select(executions.c.id).where(executions.c.id == "new")) is not None)


async def test_one_that_is_far_behind_keeps_nobody_from_what_is_new(file: Path) -> None:
    log = MemoryLog()
    await fill(log, range(20))
    first = Projections(file)
    await first.catch_up(log)
    first.close()
    await append(log, "new", start())
    projections = Projections(file, [Late()], batch=10)
    assert await projections.catch_up(log) == await log.last()
    assert len(Late.seen) > 3
    assert all(Late.seen[1:])
    projections.close()


class ReadFromAReplica(MemoryLog):
    """Tells the last position as its leader has it, and the entries at first as a replica that is behind."""

    behind = 3

    async def read_all(self, after: int = 0, limit: int | None = None) -> AsyncIterator[Recorded]:
        if after and self.behind:
            self.behind -= 1
            return
        async for recorded in super().read_all(after, limit):
            yield recorded


class DeliversTwice(MemoryLog):
    async def read_all(self, after: int = 0, limit: int | None = None) -> AsyncIterator[Recorded]:
        async for recorded in super().read_all(after, limit):
            yield recorded
            yield recorded


async def test_what_is_delivered_twice_is_folded_once(projections: Projections, file: Path) -> None:
    once, twice = MemoryLog(), DeliversTwice()
    for log in (once, twice):
        await fill(log, range(20))
    other = Projections(file)
    await projections.catch_up(once)
    await other.catch_up(twice)
    assert await everything(other) == await everything(projections)
    other.close()


def test_a_position_moves_from_where_it_is_known_to_be_and_nowhere_else(projections: Projections) -> None:
    projections.store.migrate()
    with projections.store.writing() as connection:
        tracking_of.prepare(connection, [Totals()], "log", owned=True)
        assert tracking_of.advance(connection, "totals", 0, 5)
        for before in (0, 3, 6):  # of somebody who has folded the same entries, or others
            assert not tracking_of.advance(connection, "totals", before, 9)
        assert tracking_of.positions(connection) == {"totals": 5}


async def test_an_answer_is_fresh_although_a_replica_of_the_log_is_behind(file: Path) -> None:
    log, projections = ReadFromAReplica(), Projections(file, batch=5)
    await fill(log, range(5))
    assert await projections.catch_up(log) == await log.last() > 5
    assert log.behind == 0
    projections.close()


async def test_another_log_begins_the_rows_again_where_the_file_is_the_store_s_own(file: Path) -> None:
    long, short, projections = MemoryLog(), MemoryLog(), Projections(file)
    await fill(long, range(3))
    await projections.catch_up(long)
    await append(short, "new-1", start())
    assert (await one(projections, short))["id"] == "new-1"
    projections.close()


async def test_another_log_is_refused_where_the_database_may_be_somebody_else_s(postgres_url: str) -> None:
    ours, theirs, projections = MemoryLog(), MemoryLog(), Projections(postgres_url)
    await fill(ours, range(3))
    await projections.catch_up(ours)
    with pytest.raises(EnvironmentProblem, match=r"is of another log.*rebuild --all"):
        await projections.catch_up(theirs)
    assert len(await listed(projections)) == 3
    await projections.rebuild(theirs, projections.names)
    assert await listed(projections) == []
    projections.close()


async def test_an_entry_that_cannot_be_read_is_put_aside_and_the_rest_goes_on(projections: Projections) -> None:
    log = MemoryLog()
    await append(log, "x-1", start())
    log._all[0] = type(log._all[0])("x-1", 1, b'{"strange": true}')
    await append(log, "x-2", start())
    assert (await one(projections, log))["id"] == "x-2"
    aside = await projections.quarantined(log)
    assert {row["projection"] for row in aside} == set(projections.names)
    assert {(row["position"], row["execution"]) for row in aside} == {(1, "x-1")}
    assert "this release cannot read the entry" in aside[0]["error"]
    assert {each["quarantined"] for each in (await projections.lag(log)).values()} == {1}


class Totals(Projection):
    """As in docs/projections.md."""

    name = "totals"
    table = Table("totals", MetaData(), Column("workflow", String, primary_key=True), Column("count", Integer))
    tables = (table,)
    poison: ClassVar[str] = ""

    def fold(self, connection: Connection, events: Sequence[Happened]) -> None:
        for item in events:
            if isinstance(item.event, ExecutionStarted):
                same = self.table.c.workflow == item.event.workflow
                changed = connection.execute(update(self.table).where(same).values(count=self.table.c.count + 1))
                if not changed.rowcount:
                    connection.execute(self.table.insert().values(workflow=item.event.workflow, count=1))
                if item.execution == self.poison:
                    raise RuntimeError(f"cannot take {item.execution}")


class BetterTotals(Totals):
    version = 2
    table = Table("totals", MetaData(), Column("workflow", String, primary_key=True), Column("count", Integer),
                  Column("new", Integer, server_default="5"))  # fmt: skip
    tables = (table,)


async def totals(projections: Projections) -> list[Any]:
    return await projections.read(lambda connection: list(connection.execute(text("SELECT * FROM totals ORDER BY 1"))))


async def test_a_projection_of_a_user_s_own_is_kept_like_the_others(database: str | Path) -> None:
    log = MemoryLog()
    await fill(log, range(9))
    projections = Projections(database, [Totals()])
    await projections.catch_up(log)
    assert await totals(projections) == [("order", 3), ("refund", 3), ("report", 3)]
    assert (await projections.lag(log))["totals"] == {"version": 1, "position": 26, "lag": 0, "quarantined": 0}
    projections.close()


async def test_what_a_projection_cannot_fold_costs_nothing_but_that_entry(
    database: str | Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = MemoryLog()
    await fill(log, range(9))
    monkeypatch.setattr(Totals, "poison", "x-4")
    projections = Projections(database, [Totals()])
    await projections.catch_up(log)
    assert await totals(projections) == [("order", 3), ("refund", 2), ("report", 3)]
    (aside,) = await projections.quarantined(log)
    assert (aside["projection"], aside["execution"], aside["error"]) == (
        "totals",
        "x-4",
        "RuntimeError: cannot take x-4",
    )
    assert len(await listed(projections)) == 9
    monkeypatch.setattr(Totals, "poison", "")
    await projections.rebuild(log, ["totals"])
    assert await totals(projections) == [("order", 3), ("refund", 3), ("report", 3)]
    assert await projections.quarantined(log) == []
    projections.close()


async def test_a_new_version_of_a_projection_is_made_again_and_an_old_one_does_not_touch_it(
    database: str | Path,
) -> None:
    log = MemoryLog()
    await fill(log, range(3))
    old, new = Projections(database, [Totals()]), Projections(database, [BetterTotals()])
    await old.catch_up(log)
    await new.catch_up(log)
    assert await totals(new) == [("order", 1, 5), ("refund", 1, 5), ("report", 1, 5)]
    with pytest.raises(EnvironmentProblem, match="totals is of version 2, and this code has version 1"):
        await old.catch_up(log)
    old.close()
    new.close()


def test_own_projections_are_found_by_their_place_and_refused_with_the_reason() -> None:
    (found,) = own_projections(["test_projections:Totals"])
    assert found.name == "totals"
    for place, why in (
        ("nowhere:Totals", "cannot be imported: .*No module named 'nowhere'"),
        ("test_projections:Missing", "cannot be imported"),
        ("test_projections", "write it as module:Class"),
        ("test_projections:fill", "no subclass"),
    ):
        with pytest.raises(BadInput, match=why):
            own_projections([place])


def test_two_projections_of_one_name_are_refused(file: Path) -> None:
    with pytest.raises(BadInput, match="two projections have the name 'totals'"):
        Projections(file, [Totals(), Totals()])


@pytest.mark.parametrize(
    ("url", "why"),
    [
        ("nonsense", "no URL of a database"),
        ("mysql://u@h/d", "'mysql' is neither sqlite nor postgresql"),
        ("sqlite://", "SQLite needs a file"),
    ],
)
def test_a_url_that_is_none_is_refused_with_the_mend(url: str, why: str) -> None:
    with pytest.raises(BadInput, match=why):
        Projections(url)


async def test_a_database_that_is_not_there_is_the_environment_s_fault_and_no_password_is_told() -> None:
    projections = Projections("postgresql://ann:secret@127.0.0.1:1/none")
    with pytest.raises(EnvironmentProblem, match="cannot be used") as caught:
        await projections.catch_up(MemoryLog())
    assert "secret" not in str(caught.value)
    assert "ann:***@" in str(caught.value)
    projections.close()


@pytest.mark.parametrize("damage", ["cut", "overwritten"])
async def test_a_damaged_file_is_told_of_with_the_mend_and_puts_nothing_aside(file: Path, damage: str) -> None:
    log, projections = MemoryLog(), Projections(file)
    await fill(log, range(3))
    await projections.catch_up(log)
    projections.close()
    whole = file.read_bytes()
    file.write_bytes(whole[:9000] if damage == "cut" else b"x" * 9000)
    with pytest.raises(EnvironmentProblem, match="damaged: delete it, with its -wal and -shm"):
        await projections.catch_up(log)
    projections.close()
    file.unlink()
    assert await projections.catch_up(log) == await log.last()
    assert len(await listed(projections)) == 3
    projections.close()


def test_the_migrations_lead_to_the_tables_that_the_code_uses(projections: Projections) -> None:
    projections.store.migrate()
    with projections.store.reading() as connection:
        context = MigrationContext.configure(connection, opts={"version_table": "perdure_schema"})
        assert compare_metadata(context, metadata) == []
    config = Config()
    config.set_main_option("script_location", str(_MIGRATIONS))
    assert ScriptDirectory.from_config(config).get_heads() == [SCHEMA]


def test_tables_of_a_newer_release_are_left_alone(projections: Projections) -> None:
    projections.store.migrate()
    with projections.store.writing() as connection:
        connection.execute(text("UPDATE perdure_schema SET version_num = '9999'"))
    with pytest.raises(EnvironmentProblem, match="of another release of perdure"):
        projections.store.migrate()


async def test_a_database_of_the_first_release_with_migrations_is_brought_up_to_date(projections: Projections) -> None:
    log = MemoryLog()
    await append(log, "x-1", start())
    config = Config()
    config.set_main_option("script_location", str(_MIGRATIONS))
    with projections.store.writing() as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, "0001")
        old = {"projection": "executions", "version": 1, "log": await log.identity(), "position": 1}
        connection.execute(tracking.insert().values(old))
    assert (await one(projections, log))["id"] == "x-1"  # its rows were made again, for its version has grown


def test_a_file_of_a_release_without_migrations_is_made_anew(file: Path) -> None:
    projections = Projections(file)
    with projections.store.writing() as connection:
        connection.execute(text("CREATE TABLE executions (id TEXT)"))
        connection.execute(text("CREATE TABLE tracking (projection TEXT)"))
    projections.store.migrate()
    with projections.store.reading() as connection:
        assert connection.execute(select(executions)).all() == []
        assert connection.execute(select(tracking)).all() == []
    projections.close()


async def test_text_that_a_database_does_not_take_is_mended(projections: Projections) -> None:
    log = MemoryLog()
    error = type(BOOM)("Boom", "a\x00b")
    await append(log, "x-1", start(search={"k": "c\x00d"}), ExecutionFailed(error))
    row = await one(projections, log)
    assert row["error_message"] == "a\ufffdb"
    assert row["search"] == {"k": "c\x00d"}
    assert await projections.quarantined(log) == []


async def test_approvals_show_what_waits_for_whom_until_it_is_decided(projections: Projections) -> None:
    log = MemoryLog()
    asked = {"approval": True, "title": "Refund?", "assignees": ["ann", "bob"]}
    due = TimerArmed("wait/ok", at(60))
    await append(log, "x-1", start("refund"), NodeWaiting("ok", 1, asked), due)
    await append(log, "x-2", start("order"), NodeWaiting("any", 1, {"approval": True}), second=1)
    await append(
        log, "x-3", start("order"), NodeWaiting("other", 1, {"approval": True, "assignees": ["eve"]}), second=2
    )
    await append(log, "x-4", start("order"), NodeWaiting("later", 1, {"signal": "go"}))
    await projections.catch_up(log)

    async def waiting(**which: Any) -> list[str]:
        return [row["execution"] for row in await projections.read(partial(inboxes.open_approvals, **which))]

    assert await waiting() == ["x-1", "x-2", "x-3"]
    assert await waiting(assignee="bob") == ["x-1", "x-2"]
    assert await waiting(assignee="eve", workflow="order") == ["x-2", "x-3"]
    row = (await projections.read(inboxes.open_approvals))[0]
    assert (row["workflow"], row["title"], row["since"], row["due"]) == ("refund", "Refund?", NOON, at(60))
    await append(log, "x-1", NodeSucceeded("ok", 1, {"approved": True}))
    await append(log, "x-2", ExecutionCancelled("no"))
    await projections.catch_up(log)
    assert await waiting() == ["x-3"]


async def test_dead_letters_show_what_failed_or_is_stuck_until_it_is_mended(projections: Projections) -> None:
    log = MemoryLog()
    await append(log, "x-1", start(), NodeStuck("a", 3, BOOM), ExecutionPaused())
    await append(log, "x-2", start(), ExecutionFailed(BOOM, "b", 1), second=1)

    async def dead() -> list[tuple[Any, ...]]:
        await projections.catch_up(log)
        rows = await projections.read(inboxes.dead)
        return [(row["execution"], row["kind"], row["node"], row["attempt"], row["error_type"]) for row in rows]

    assert await dead() == [("x-2", "failed", "b", 1, "Boom"), ("x-1", "stuck", "a", 3, "Boom")]
    await append(log, "x-1", ExecutionResumed(), NodeScheduled("a", 4))
    assert await dead() == [("x-2", "failed", "b", 1, "Boom")]
    await append(log, "x-2", ExecutionRetried())
    assert await dead() == []


async def test_the_timeline_tells_what_went_on_from_when_to_when(projections: Projections) -> None:
    log = MemoryLog()
    await append(log, "x-1", start(), NodeScheduled("a", 1), TimerArmed("timeout/a", at(9)))
    await append(log, "x-1", NodeAttemptFailed("a", 1, BOOM), TimerArmed("retry/a", at(5)), second=2, n=2)
    await append(log, "x-1", NodeScheduled("a", 2), second=5, n=3)
    await append(log, "x-1", NodeSucceeded("a", 2), NodeSucceeded("b", 1), NodeWaiting("ok", 1, {"signal": "go"}),
                 second=6, n=4)  # fmt: skip
    await projections.catch_up(log)
    spans = await projections.read(partial(inboxes.timeline, execution="x-1"))
    assert [(each["kind"], each["path"], each["attempt"], each["outcome"], each["error"]) for each in spans] == [
        ("execution", "", 0, None, None),
        ("attempt", "a", 1, "failed", "Boom"),
        ("timer", "timeout/a", 0, None, None),
        ("timer", "retry/a", 0, None, None),
        ("attempt", "a", 2, "succeeded", None),
        ("node", "b", 1, "succeeded", None),
        ("wait", "ok", 1, None, None),
    ]
    assert [(each["began_at"], each["ended_at"]) for each in spans if each["path"] == "a"] == [
        (at(0), at(2)), (at(5), at(6)),
    ]  # fmt: skip
    await append(log, "x-1", ExecutionCancelled("no"), second=8, n=5)
    await projections.catch_up(log)
    spans = await projections.read(partial(inboxes.timeline, execution="x-1"))
    assert {each["outcome"] for each in spans if each["ended_at"] == at(8)} == {"cancelled"}
    assert all(each["ended_at"] for each in spans)


async def test_statistics_count_how_nodes_ended_and_how_long_they_took(projections: Projections) -> None:
    log = MemoryLog()
    for number in range(1, 101):
        await append(log, f"x-{number}", start(), NodeScheduled(f"check[{number}]", 1))
        await append(log, f"x-{number}", NodeSucceeded(f"check[{number}]", 1), ExecutionSucceeded(1), second=number)
    await append(log, "y", start(), NodeScheduled("check[0]", 1), NodeAttemptFailed("check[0]", 1, BOOM))
    await append(log, "y", NodeFailed("check[0]", 2, BOOM), ExecutionFailed(BOOM), second=3700)
    await projections.catch_up(log)
    ask = partial(inboxes.summed, workflow="flow", after=None, before=None, hourly=False)
    whole, check = await projections.read(ask)
    assert (whole["node"], whole["succeeded"], whole["failed"], whole["failure_rate"]) == ("", 100, 1, 1 / 101)
    assert (check["node"], check["succeeded"], check["failed"], check["retried"]) == ("check", 100, 1, 1)
    assert check["p50"] == pytest.approx(50, rel=0.03)
    assert check["p95"] == pytest.approx(96, rel=0.03)
    ask = partial(inboxes.summed, workflow=None, after=NOON, before=NOON + timedelta(hours=1), hourly=True)
    assert [(row["node"], row["hour"], row["failed"]) for row in await projections.read(ask)] == [
        ("", NOON, 0), ("check", NOON, 0),
    ]  # fmt: skip


async def test_costs_add_up_to_the_same_in_whatever_portions_the_log_is_read(
    projections: Projections, tmp_path: Path
) -> None:
    log = MemoryLog()
    await append(log, "x", start())
    for number, cost in enumerate([0.1, 0.2, 0.3, 1e-8 / 3, 0.7, 0.1, 0.6]):
        usage = {"model": "m", "input": 1, "output": 1, "cost": cost}
        done = NodeSucceeded(f"draft[{number}]/model", 1, "", usage)
        await append(log, "x", NodeScheduled(f"draft[{number}]/model", 1), done, n=2 + number)
    await projections.catch_up(log)
    in_portions = Projections(tmp_path / "in_portions.sqlite", batch=3)
    await in_portions.catch_up(log)
    assert await everything(in_portions) == await everything(projections)
    in_portions.close()


async def test_what_agents_use_up_is_in_the_timeline_and_in_the_statistics(projections: Projections) -> None:
    log = MemoryLog()
    usage = {"model": "m", "input": 100, "output": 20, "cost": 0.5}
    await append(log, "x-1", start(), NodeOpened("draft", 1), BodyStarted("draft[0]"))
    await append(log, "x-1", NodeScheduled("draft[0]/model", 1, {"agent": "writer"}), n=2)
    await append(log, "x-1", NodeSucceeded("draft[0]/model", 1, "...", usage), NodeScheduled("draft[0]/find", 1), n=3)
    await append(log, "x-1", NodeSucceeded("draft[0]/find", 1), BodySucceeded("draft[0]"), BodyStarted("draft[1]"), n=4)
    await append(log, "x-1", NodeScheduled("draft[1]/model", 1), NodeSucceeded("draft[1]/model", 1, "", usage), n=5)
    await append(log, "x-1", BodyStarted("draft[2]"), NodeScheduled("draft[2]/model", 1), n=6)
    in_vain = NodeAttemptFailed("draft[2]/model", 1, BOOM)
    await append(log, "x-1", NodeCharged("draft[2]/model", 1, usage), in_vain, n=7)
    await projections.catch_up(log)
    spans = await projections.read(partial(inboxes.timeline, execution="x-1"))
    assert [(each["kind"], each["path"], each["detail"]) for each in spans[1:]] == [
        ("node", "draft", None),
        ("body", "draft[0]", None),
        ("attempt", "draft[0]/model", {"usage": usage}),
        ("attempt", "draft[0]/find", None),
        ("body", "draft[1]", None),
        ("attempt", "draft[1]/model", {"usage": usage}),
        ("body", "draft[2]", None),
        ("attempt", "draft[2]/model", {"usage": usage}),
    ]
    ask = partial(inboxes.summed, workflow="flow", after=None, before=None, hourly=False)
    used = {row["node"]: (row["tokens_in"], row["tokens_out"], row["cost"]) for row in await projections.read(ask)}
    assert used["draft/model"] == (300, 60, 1.5)


async def test_what_was_purged_is_gone_from_lists_and_still_counted_after_a_rebuild(projections: Projections) -> None:
    log = MemoryLog()
    await fill(log, range(10))
    await projections.catch_up(log)
    ask = partial(inboxes.summed, workflow=None, after=None, before=None, hourly=False)
    before, known = await projections.read(ask), await projections.read(inboxes.known_definitions)
    emptied = MemoryLog()
    for number in range(10):
        events = [item async for each in log.read(f"x-{number}") for item in each.unpack()]
        first = events[0].event
        assert isinstance(first, ExecutionStarted)
        tombstone = ExecutionPurged(first.workflow, first.digest, "succeeded", events[0].at, events[-1].at, 3,
                                    statistics=counted(events))  # fmt: skip
        await append(log, f"x-{number}", tombstone, second=9999)
        await append(emptied, f"x-{number}", tombstone, second=9999)
    await projections.catch_up(log)
    assert await listed(projections) == []
    assert await projections.read(ask) == before
    await projections.rebuild(emptied, projections.names)
    assert await listed(projections) == []
    assert await projections.read(ask) == before
    assert await projections.read(inboxes.known_definitions) == known
    left = await everything(projections)
    assert {name for name, rows in left.items() if rows} == {"statistics", "definitions"}


async def test_what_is_larger_than_an_index_takes_is_listed_and_found_all_the_same(projections: Projections) -> None:
    log, long = MemoryLog(), "".join(map(chr, range(0x4E00, 0x4E00 + 4000)))
    asks = {"approval": True, "title": "?", "assignees": [long, "ann"]}
    used = {"input": 1 << 31, "output": 1 << 40, "cost": 1.5}
    await append(log, "x-1", start(), NodeWaiting("a", 1, asks), NodeScheduled("b", 1))
    await append(log, "x-1", NodeSucceeded("b", 1, 1, usage=used), second=1)
    await append(log, "x-2", start(), ExecutionFailed(type(BOOM)(long, "it broke")))
    assert (await one(projections, log, error=long))["id"] == "x-2"
    assert await projections.quarantined(log) == []
    for person in (long, "ann"):
        (mine,) = await projections.read(partial(inboxes.open_approvals, assignee=person))
        assert mine["assignees"] == [long, "ann"]
    assert await projections.read(partial(inboxes.open_approvals, assignee="bob")) == []
    summed = partial(inboxes.summed, workflow=None, after=None, before=None, hourly=False)
    (node,) = [row for row in await projections.read(summed) if row["node"] == "b"]
    assert (node["tokens_in"], node["tokens_out"]) == (1 << 31, 1 << 40)


class Greedy(Totals):
    name = "greedy"

    def fold(self, connection: Connection, events: Sequence[Happened]) -> None:
        for item in events:
            row = {"workflow": "the same", "count": len(item.execution)}
            connection.execute(Totals.table.insert().values(row))


async def test_what_is_said_of_an_entry_in_quarantine_is_the_reason_without_the_data(database: str | Path) -> None:
    log, projections = MemoryLog(), Projections(database, [Greedy()])
    for number in range(2):
        await append(log, f"x-{number}", start())
    await projections.catch_up(log)
    (aside,) = await projections.quarantined(log)
    assert aside["execution"] == "x-1"
    assert re.match("(IntegrityError: UNIQUE|UniqueViolation: duplicate key)", aside["error"])
    assert "INSERT" not in aside["error"]
    assert "parameters" not in aside["error"]
    projections.close()


class Careless(Totals):
    """Goes on after an error of the database, which PostgreSQL does not, or ends the transaction, or is of no use."""

    name = "careless"
    how: ClassVar[str] = "goes on"

    def fold(self, connection: Connection, events: Sequence[Happened]) -> None:
        if self.how == "goes on" and any(item.execution == "x-4" for item in events):
            with contextlib.suppress(DBAPIError):
                connection.execute(text("SELECT nothing FROM nowhere"))
        elif self.how != "goes on":
            getattr(connection, self.how)()


async def test_a_projection_that_swallows_an_error_of_the_database_stops_nobody(
    database: str | Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = MemoryLog()
    await fill(log, range(9))
    projections = Projections(database, [Careless()])
    await projections.catch_up(log)
    aside = {row["execution"] for row in await projections.quarantined(log)}
    assert aside == (set() if isinstance(database, Path) else {"x-4"})  # SQLite goes on indeed
    assert len(await listed(projections)) == 9
    for how in ("commit", "rollback"):
        monkeypatch.setattr(Careless, "how", how)
        with pytest.raises(BadInput, match="the projection careless has ended the transaction"):
            await projections.rebuild(log, ["careless"])
    projections.close()


class Borrows(Totals):
    name = "borrows"
    tables = (executions,)


class WantsMore(Totals):
    def __init__(self, more: str) -> None:
        super().__init__()


def test_own_projections_that_cannot_work_are_refused_before_they_do_harm(
    file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(BadInput, match="the projection borrows has a table 'executions', which is another one's"):
        Projections(file, [Borrows()])
    twin = type("Twin", (Totals,), {"name": "twin"})
    with pytest.raises(BadInput, match="the projection twin has a table 'totals'"):
        Projections(file, [Totals(), twin()])
    (tmp_path / "broken_projection.py").write_text("1 / 0")
    monkeypatch.syspath_prepend(tmp_path)
    for place, why in (
        ("test_projections:WantsMore", "cannot be made: .*missing 1 required positional argument"),
        ("broken_projection:Any", "cannot be imported: ZeroDivisionError"),
    ):
        with pytest.raises(BadInput, match=why):
            own_projections([place])


def test_a_projection_of_an_installed_package_is_found_by_its_entry_point(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    info = tmp_path / "shop-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: shop\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[perdure.projections]\ntotals = test_projections:Totals\n")
    monkeypatch.syspath_prepend(tmp_path)
    assert [each.name for each in own_projections([])] == ["totals"]
    assert [each.name for each in own_projections(["test_projections:Totals"])] == ["totals"]  # named twice, made once


async def test_the_embedded_database_is_in_wal_mode_so_that_readers_do_not_wait_for_the_writer(file: Path) -> None:
    log, projections = MemoryLog(), Projections(file)
    await fill(log, range(3))
    await projections.catch_up(log)
    with projections.store.writing() as writer:
        writer.execute(text("DELETE FROM executions"))
        assert len(await listed(projections)) == 3  # as it was, while the writer is at it
        assert writer.scalar(text("PRAGMA journal_mode")) == "wal"
        writer.rollback()
    projections.close()


def test_connections_to_postgresql_come_from_a_pool_and_dead_ones_are_replaced(postgres_url: str) -> None:
    projections = Projections(postgres_url)
    pids = []
    for _ in range(3):
        with projections.store.reading() as connection:
            pids.append(connection.scalar(text("SELECT pg_backend_pid()")))
    assert len(set(pids)) == 1
    with projections.store.reading(), projections.store.reading() as other:
        other.execute(text("SELECT pg_terminate_backend(:pid)"), {"pid": pids[0]})
    with projections.store.reading() as connection:
        assert connection.scalar(text("SELECT 1")) == 1
    projections.close()
