"""The log on JetStream keeps the contract, and its stored form can be read without perdure."""

import json

import pytest
from log_contract import LogContract, entry, fill, name

from perdure.cluster.connection import Connection
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


async def test_a_follower_that_was_cut_off_reads_what_it_missed(connection: Connection) -> None:
    """The live copies are only hints: one that is lost shows as a gap before the next one."""
    execution = name()
    entries = connection.log.follow(execution)
    stored = await fill(connection.log, execution, 1)
    assert await anext(entries) == stored[0]
    live = next(item for item in connection.nats._subs.values() if item.subject.startswith("perdure.live."))
    waiting = live._pending_queue
    stored.append(await connection.log.append(execution, entry(2), stored[0].position))
    await connection.nats.flush()
    while waiting.qsize() == 0:
        await connection.nats.flush()
    waiting.get_nowait()  # the copy of the second entry is lost
    waiting.task_done()
    stored.append(await connection.log.append(execution, entry(3), stored[1].position))
    assert [await anext(entries), await anext(entries)] == stored[1:]
    await entries.aclose()  # type: ignore[attr-defined]


@pytest.mark.parametrize("execution", ["plain-1_A", "with space", "a.b", "*", ">", "ü/ñ", "=41", "a=b", "🙂"])
def test_an_id_becomes_one_safe_token_and_back(execution: str) -> None:
    token = token_of(execution)
    assert not set(token) & set(".*> \t")
    assert execution_of(token) == execution
    assert events_subject(execution).count(".") == 3
