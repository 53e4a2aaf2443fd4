"""The log on JetStream keeps the contract, and its stored form can be read without perdure."""

import asyncio
import json
from contextlib import aclosing

import pytest
from log_contract import LogContract, entry, fill, name
from nats.aio.msg import Msg

from perdure.cluster.connection import Connection
from perdure.errors import VersionConflict
from perdure.events.jetstream_log import STREAM, JetStreamLog
from perdure.events.subjects import events_subject, execution_of, partition_of, token_of


class TestJetStreamLog(LogContract):
    @pytest.fixture
    def log(self, connection: Connection) -> JetStreamLog:
        return connection.log


async def test_any_nats_client_can_read_an_entry(connection: Connection) -> None:
    execution = name()
    stored = await connection.log.append(execution, entry(output=1), 0)
    message = await connection.nats.jetstream().get_msg(STREAM, stored.position)
    assert message.subject == f"perdure.ev.{partition_of(execution)}.{token_of(execution)}"
    assert (message.headers or {})["ce-type"] == "perdure.entry"
    assert json.loads(message.data or b"")["events"] == [
        {"type": "NodeSucceeded", "node": "a", "attempt": 1, "output": 1}
    ]


async def test_the_last_position_is_asked_for_again_while_the_stream_has_no_leader(
    connection: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    stored = await connection.log.append(name(), entry(), 0)
    ask, asked = connection.log._request, 0

    async def leaderless(subject: str, query: bytes) -> Msg:
        nonlocal asked
        asked += 1
        if asked > 1:
            return await ask(subject, query)
        error = {"code": 503, "err_code": 10008, "description": "JetStream system temporarily unavailable"}
        return Msg(connection.nats, data=json.dumps({"error": error}).encode())

    monkeypatch.setattr(connection.log, "_request", leaderless)
    assert await connection.log.last() >= stored.position
    assert asked == 2


async def test_a_follower_whose_copy_was_lost_reads_what_it_missed(connection: Connection) -> None:
    """The live copies are only hints: one that is lost shows as a gap before the next one."""
    execution = name()
    async with aclosing(connection.log.follow(execution)) as entries:  # type: ignore[type-var]
        stored = await fill(connection.log, execution, 1)
        assert await anext(entries) == stored[0]
        (copies,) = connection.log._followers
        stored.append(await connection.log.append(execution, entry(2), stored[0].position))
        lost = await copies.get()
        assert lost is not None
        stored.append(await connection.log.append(execution, entry(3), stored[1].position))
        assert [await anext(entries), await anext(entries)] == stored[1:]


async def test_a_follower_that_is_slow_holds_few_copies_in_memory_and_misses_nothing(
    connection: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("perdure.events.jetstream_log._COPIES", 5)
    execution = name()
    async with aclosing(connection.log.follow(execution)) as entries:  # type: ignore[type-var]
        stored = await fill(connection.log, execution, 1)
        assert await anext(entries) == stored[0]
        (copies,) = connection.log._followers
        for n in range(2, 32):
            stored.append(await connection.log.append(execution, entry(n), stored[-1].position))
            assert copies.qsize() <= 5
        assert [await anext(entries) for _ in stored[1:]] == stored[1:]


async def test_a_conflict_with_a_long_execution_is_told_after_one_look_behind_what_was_expected(
    connection: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A start that is taken for new meets whatever there is of its execution."""
    execution = name()
    stored = await fill(connection.log, execution, 50)
    asked, ask = list[str](), connection.log._request

    async def counted(subject: str, query: bytes) -> Msg:
        asked.append(subject)
        return await ask(subject, query)

    monkeypatch.setattr(connection.log, "_request", counted)
    with pytest.raises(VersionConflict) as caught:
        await connection.log.append(execution, entry(), 0)
    assert caught.value.actual == stored[-1].position
    assert sorted(asked) == [f"$JS.API.DIRECT.GET.{STREAM}", f"$JS.API.STREAM.MSG.GET.{STREAM}"]


async def test_an_entry_that_is_appended_again_is_found_however_many_came_behind_it(connection: Connection) -> None:
    execution = name()
    stored = await fill(connection.log, execution, 50)
    for again in (stored[0], stored[20]):
        before = stored[again.entry.n - 2].position if again.entry.n > 1 else 0
        assert await connection.log.append(execution, again.entry, before) == again


async def test_a_follower_looks_again_after_a_reconnect(connection: Connection) -> None:
    execution = name()
    async with aclosing(connection.log.follow(execution)) as entries:  # type: ignore[type-var]
        stored = await fill(connection.log, execution, 1)
        assert await anext(entries) == stored[0]
        (copies,) = connection.log._followers
        waiting = asyncio.ensure_future(anext(entries))
        stored.append(await connection.log.append(execution, entry(2), stored[0].position))
        connection.log.reconnected()
        assert await waiting == stored[1]
        assert copies.qsize() <= 1


@pytest.mark.parametrize("execution", ["plain-1_A", "with space", "a.b", "*", ">", "ü/ñ", "=41", "a=b", "🙂"])
def test_an_id_becomes_one_safe_token_and_back(execution: str) -> None:
    token = token_of(execution)
    assert not set(token) & set(".*> \t")
    assert execution_of(token) == execution
    assert events_subject(execution).count(".") == 3
