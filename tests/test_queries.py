"""Lists of executions: filters mean what they say, pages are stable, and every question is answered by an index."""

import asyncio
import re
from collections.abc import Iterator
from datetime import datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from histories import BOOM, NOON, append, at, fill, start
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import perdure
from perdure import Settings
from perdure.errors import BadInput
from perdure.events.memory_log import MemoryLog
from perdure.events.vocabulary import ExecutionFailed, ExecutionStarted
from perdure.projections.filters import condition
from perdure.projections.queries import Page, Query, counts, page
from perdure.projections.runner import Projections

COUNT = 60
BAD = [
    ("status ==", "cannot be read; it is written like"),
    ("status == failed", "'failed' is no value; text stands in quotes"),
    ("status = 'failed'", "cannot be read"),
    ("f(status)", "'f(status)' is no condition"),
    ("__import__('os').system('x')", "is no condition"),
    ("total + 1 == 2", "'total + 1' is no name"),
    ("total is 3", "compares with"),
    ("priority == 'high'", "priority is compared with a whole number"),
    ("status == 3", "status is compared with text"),
    ("started > 'soon'", "'soon' is no time"),
    ("total < None", "None is compared with == and != only"),
    ("tags == 'a'", "write: 'word' in tags"),
    ("3 in tags", "what is in tags is text"),
    ("tenant in 3", "'in' is followed by"),
    ("a.b == 3", "'a.b' is no name"),
    ("not " * 60 + "urgent", "nested too deeply"),
    ("x == '" + "a" * 2000 + "'", "2000 are the most"),
]


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def many(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Projections]:
    """Executions of all kinds, in one database for all tests here."""
    if request.param == "sqlite":
        database: str | Path = tmp_path_factory.mktemp("queries") / "p.sqlite"
    else:
        from postgres_server import new_database

        database = new_database(request.getfixturevalue("postgres_address"))
    projections, log = Projections(database), MemoryLog()

    async def fold() -> None:
        await fill(log, range(COUNT))
        await append(log, "other", ExecutionStarted("none", "sha256:1", None, "0"), second=900)
        await projections.catch_up(log)

    asyncio.run(fold())
    yield projections
    projections.close()


def asked(projections: Projections, **query: Any) -> Page:
    with projections.store.reading() as connection:
        return page(connection, Query(**query))


def ids(projections: Projections, **query: Any) -> list[str]:
    return [row["id"] for row in asked(projections, **{"limit": 1000, **query})]


def numbers(which: Any) -> list[str]:
    return [f"x-{number}" for number in reversed(range(COUNT)) if which(number)]


@pytest.mark.parametrize(
    ("query", "which"),
    [
        ({"status": "failed"}, lambda n: n % 10 == 3),
        ({"status": ["failed", "cancelled"]}, lambda n: n % 10 in (3, 7)),
        ({"workflow": "refund"}, lambda n: n % 3 == 1),
        ({"workflow": ["refund", "report"]}, lambda n: n % 3),
        ({"where": {"tenant": "t7"}}, lambda n: n % 20 == 7),
        ({"where": {"total": 7}}, lambda n: n == 7),
        ({"where": {"total": 7.0}}, lambda n: n == 7),
        ({"where": {"total": "7"}}, lambda n: False),
        ({"where": {"urgent": True}}, lambda n: n % 7 == 0),
        ({"where": {"urgent": 1}}, lambda n: False),
        ({"where": {"tenant": "t7", "urgent": True}}, lambda n: n % 20 == 7 and n % 7 == 0),
        ({"tag": "even"}, lambda n: n % 2 == 0),
        ({"tag": ["even", "odd"]}, lambda n: False),
        ({"error": "Boom"}, lambda n: n % 10 == 3),
        ({"priority": 4}, lambda n: n % 10 == 4),
        ({"digest": "sha256:0"}, lambda n: True),
        ({"parent": "nobody"}, lambda n: False),
        ({"started_after": at(31), "started_before": at(41)}, lambda n: 30 <= n < 40),
        ({"started_after": "2026-01-01T12:00:31+00:00", "started_before": "2026-01-01T13:00:41+01:00"},
         lambda n: 30 <= n < 40),
        ({"ended_before": at(13)}, lambda n: n < 11 if n % 10 == 7 else n < 10),
        ({"filter": "status == 'failed' and workflow == 'order'"}, lambda n: n % 10 == 3 and n % 3 == 0),
        ({"filter": "10 <= total < 20"}, lambda n: 10 <= n < 20),
        ({"filter": "total > 10 and total < 20 and urgent"}, lambda n: 10 < n < 20 and n % 7 == 0),
        ({"filter": "not (error == 'Boom') and total != 5"}, lambda n: n % 10 != 3 and n != 5),
        ({"filter": "tenant in ['t1', 't2'] and 'even' in tags"}, lambda n: n % 20 == 2),
        ({"filter": "id.startswith('x-1') and workflow.startswith('re')"}, lambda n: str(n)[0] == "1" and n % 3),
        ({"filter": "tenant.startswith('t1')"}, lambda n: str(n % 20)[0] == "1"),
        ({"filter": "started < '2026-01-01T12:00:11' and priority not in [1, 2]"},
         lambda n: n < 10 and n % 10 not in (1, 2)),
        ({"filter": "search.tenant == 't3'"}, lambda n: n % 20 == 3),
        ({"filter": "total in [3, 'x', 5.0, True]"}, lambda n: n in (3, 5)),
        ({"filter": "tenant not in ['t1', 't2', None]"}, lambda n: n % 20 not in (1, 2)),
        ({"filter": "urgent in [False]"}, lambda n: n % 7),
        ({"filter": "id == '%_'"}, lambda n: False),
        ({"filter": "id.startswith('x_')"}, lambda n: False),
    ],
)  # fmt: skip
def test_a_filter_gives_just_those_for_which_it_holds(many: Projections, query: dict[str, Any], which: Any) -> None:
    found = [each for each in ids(many, **query) if each != "other"]
    assert found == numbers(which)
    with many.store.reading() as connection:
        assert sum(counts(connection, Query(**query)).values()) == len(ids(many, **query))


class Value:
    """A value as filters compare it: nothing is equal to, less or more than what is of another type."""

    def __init__(self, value: Any) -> None:
        self.value = value

    def _same(self, other: Any) -> bool:
        def kind(value: Any) -> str:
            return "number" if isinstance(value, int | float) and not isinstance(value, bool) else type(value).__name__

        return kind(self.value) == kind(other)

    def __eq__(self, other: object) -> bool:
        return self._same(other) and bool(self.value == other)

    def __lt__(self, other: Any) -> bool:
        return self._same(other) and self.value < other

    def __gt__(self, other: Any) -> bool:
        return self._same(other) and self.value > other

    def __le__(self, other: Any) -> bool:
        return bool(self < other or self == other)

    def __ge__(self, other: Any) -> bool:
        return bool(self > other or self == other)

    __hash__ = None  # type: ignore[assignment]


def names_of(row: dict[str, Any]) -> dict[str, Any]:
    missing = dict.fromkeys(("tenant", "total", "urgent"))
    columns = {"status": row["status"], "workflow": row["workflow"], "priority": row["priority"],
               "error": row["error_type"], "id": row["id"]}  # fmt: skip
    return {**{name: Value(value) for name, value in {**missing, **columns, **row["search"]}.items()},
            "tags": row["tags"]}  # fmt: skip


_TEXT = st.sampled_from(["'t3'", "'order'", "'failed'", "'Boom'", "'x-30'", "''"])
_NUMBER = st.integers(-5, 65).map(str) | st.sampled_from(["7.0", "30.5"])
_SMALL = st.one_of(
    st.tuples(st.sampled_from(["tenant", "total", "urgent"]), st.sampled_from(["==", "!=", "<", "<=", ">", ">="]),
              _TEXT | _NUMBER).map(" ".join),
    st.tuples(st.sampled_from(["tenant", "total"]), st.sampled_from(["in", "not in"]),
              st.lists(_TEXT | _NUMBER, max_size=3).map(lambda each: f"[{', '.join(each)}]")).map(" ".join),
    st.tuples(st.sampled_from(["status", "workflow", "error", "id"]), st.sampled_from(["==", "!=", "<", ">="]),
              _TEXT).map(" ".join),
    st.tuples(st.just("priority"), st.sampled_from(["==", "!=", "<", ">="]), st.integers(0, 9).map(str)).map(" ".join),
    st.sampled_from(["'even' in tags", "'odd' not in tags", "urgent == True", "urgent != False", "3 < total <= 20",
                     "error == None", "tenant != None"]),
)  # fmt: skip
EXPRESSIONS = st.recursive(
    _SMALL,
    lambda inner: st.one_of(
        st.tuples(inner, st.sampled_from(["and", "or"]), inner).map(lambda each: f"({' '.join(each)})"),
        inner.map(lambda each: f"(not {each})"),
    ),
    max_leaves=6,
)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(expression=EXPRESSIONS)
def test_an_expression_means_what_it_means_in_python(many: Projections, expression: str) -> None:
    rows = asked(many, limit=1000)
    expected = [row["id"] for row in rows if eval(expression.replace("== None", ".value is None").replace(
        "!= None", ".value is not None"), {}, names_of(row))]  # fmt: skip
    assert ids(many, filter=expression) == expected


@pytest.mark.parametrize(("expression", "why"), BAD)
def test_a_filter_that_makes_no_sense_is_refused_with_the_reason(expression: str, why: str) -> None:
    with pytest.raises(BadInput, match=re.escape(why)):
        condition(expression)


@settings(max_examples=300, deadline=None)
@given(st.text(alphabet="abstotal =<>!()[]'\"0123.,and orintstartswith\\", max_size=40))
def test_no_text_of_a_filter_does_anything_but_filter_or_be_refused(given: str) -> None:
    try:
        condition(given)
    except BadInput as error:
        assert "filter" in str(error) or "no time" in str(error)


@pytest.mark.parametrize(
    ("query", "why"),
    [
        ({"status": "done"}, "status 'done': it is one of queued, running"),
        ({"order": "name"}, "order 'name': it is one of started, ended, priority"),
        ({"limit": 0}, "limit 0"),
        ({"cursor": "nonsense!"}, "the cursor 'nonsense!' is none"),
        ({"started_after": datetime(2026, 1, 1)}, "has no time zone"),  # noqa: DTZ001
        ({"started_after": "yesterday"}, "'yesterday' is no time"),
        ({"started_after": "0001-01-01T00:00:00+14:00"}, "is no time in UTC"),
        ({"filter": "started < '9999-12-31T23:59:59-12:00'"}, "is no time in UTC"),
        ({"filter": f"total > 1{'0' * 400}"}, "no attribute is a number of 401 digits"),
        ({"filter": "priority == 3000000000"}, "3000000000 is no priority"),
        ({"filter": r"tenant == '\ud800'"}, "is no text"),
        ({"filter": r"id.startswith('\ud800')"}, "is no text"),
        ({"filter": 5}, "filter 5: it must be text"),
        ({"where": {"total": 10**400}}, "no attribute is a number of 401 digits"),
        ({"where": {"tenant": ["a"]}}, "are text, numbers or booleans"),
        ({"where": {"tenant": "\udc80"}}, "are text, numbers or booleans"),
        ({"where": "tenant=a"}, "it is a dict of attributes"),
        ({"workflow": "\udc80"}, "it must be text"),
        ({"workflow": ["order", 5]}, "workflow 5: it must be text"),
        ({"status": 5}, "status 5: it must be text"),
        ({"order": None}, "order None"),
        ({"priority": True}, "priority True: it is a whole number"),
        ({"priority": 1 << 40}, "it is a whole number"),
        ({"limit": 1 << 63}, "it is a whole number from 1 to 100000"),
        ({"limit": "5"}, "it is a whole number from 1"),
        ({"cursor": "WyItc3RhcnRlZCIsMSwxMDAwMDAwMDAwMDAwMDAwMDAwMDAwMF0"}, "is none"),  # of a position of 23 digits
        ({"cursor": "WyItZW5kZWQiLDEsMV0", "order": "-ended"}, "is none"),  # of a number where a time belongs
    ],
)
def test_a_query_that_makes_no_sense_is_refused_with_the_reason(
    many: Projections, query: dict[str, Any], why: str
) -> None:
    with pytest.raises(BadInput, match=why):
        asked(many, **query)


@pytest.mark.parametrize("order", ["-started", "started", "-ended", "ended", "-priority", "priority"])
@pytest.mark.parametrize("limit", [1, 7, 59, 60, 61, 100])
def test_pages_in_any_order_give_every_row_once(many: Projections, order: str, limit: int) -> None:
    whole = ids(many, order=order)
    found: list[str] = []
    cursor = None
    while True:
        part = asked(many, order=order, limit=limit, cursor=cursor)
        found += [row["id"] for row in part]
        cursor = part.cursor
        if cursor is None:
            break
        assert len(part) == limit
    assert found == whole
    assert len(set(whole)) == (COUNT if "ended" in order else COUNT + 1)


@pytest.mark.parametrize("order", ["-started", "ended", "-priority"])
def test_what_is_looked_up_elsewhere_is_the_same_in_any_order(many: Projections, order: str) -> None:
    for query in ({"where": {"urgent": True}}, {"tag": "even"}, {"filter": "total > 20 and tenant in ['t1', 't2']"}):
        assert sorted(ids(many, order=order, **query)) == sorted(set(ids(many, **query)) - {"other"})


def test_a_cursor_goes_with_its_order_only(many: Projections) -> None:
    cursor = asked(many, limit=5).cursor
    with pytest.raises(BadInput, match="the cursor is of a list with order '-started'"):
        asked(many, limit=5, cursor=cursor, order="priority")


async def test_a_cursor_stays_true_while_executions_come_and_end(tmp_path: Path) -> None:
    projections, log = Projections(tmp_path / "p.sqlite"), MemoryLog()
    for number in range(10):
        await append(log, f"x-{number}", start(), second=number)
    await projections.catch_up(log)
    first = asked(projections, limit=5)
    await append(log, "new", start(), second=50)
    await append(log, "x-7", ExecutionFailed(BOOM), second=51, n=2)
    await projections.catch_up(log)
    second = asked(projections, limit=5, cursor=first.cursor)
    assert [row["id"] for row in [*first, *second]] == [f"x-{number}" for number in reversed(range(10))]
    projections.close()


async def test_a_list_looks_through_indexes_only(tmp_path: Path) -> None:
    projections, log = Projections(tmp_path / "p.sqlite"), MemoryLog()
    await fill(log, range(10))
    await projections.catch_up(log)
    for query in (
        {}, {"status": "failed"}, {"workflow": "order"}, {"where": {"tenant": "t1"}}, {"tag": "even"}, {"at": "a"},
        {"filter": "total > 3"}, {"priority": 3}, {"error": "Boom"}, {"order": "-ended"}, {"parent": "x"},
        {"started_after": NOON, "started_before": NOON + timedelta(hours=1)}, {"filter": "id.startswith('x-1')"},
    ):  # fmt: skip
        plans = await projections.read(partial(_plans, query=Query(**query)))
        assert plans, query
        assert not [plan for plan in plans if plan.startswith("SCAN") and "USING" not in plan and query], (query, plans)
        assert not [plan for plan in plans if "TEMP B-TREE" in plan and not {"started_after", "filter"} & query.keys()]
    projections.close()


def _plans(connection: Any, query: Query) -> list[str]:
    from sqlalchemy import event

    said: list[tuple[str, Any]] = []
    event.listen(connection, "before_cursor_execute", lambda *each: said.append((each[2], each[3])))
    page(connection, query)
    statement, given = next(each for each in said if each[0].startswith("SELECT"))
    return [row[3] for row in connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {statement}", given)]


def test_what_i_have_done_is_in_the_next_answer_and_a_stale_one_waits_for_my_position_only(tmp_path: Path) -> None:
    flow: dict[str, Any] = {"name": "flow", "nodes": {"a": {"wait": {"signal": "go"}}}}
    with perdure.connect(Settings(store=tmp_path / "store"), local=True) as client:
        first = client.start(flow, id="first")
        assert [row["status"] for row in client.executions()] == ["running"]
        first.cancel("not wanted")
        assert client.count() == {"cancelled": 1}
        position = next(iter(client.start(flow, id="second").events())).position
        assert [row["id"] for row in client.executions(fresh=False)] == ["first"]
        assert client.get("second").state().status == "running"  # of one, the log is asked
        assert [row["id"] for row in client.executions(fresh=position)] == ["second", "first"]
        for fresh, why in (
            (1 << 40, "the log ends at position"),
            (-1, "True, False, or a position"),
            ("now", "fresh='now'"),
        ):
            with pytest.raises(BadInput, match=why):
                client.executions(fresh=fresh)  # type: ignore[arg-type]
