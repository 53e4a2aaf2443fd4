"""The tools `nats.publish` and `nats.request` on a real server: what arrives, and which subjects are not theirs."""

import json
from collections.abc import AsyncIterator
from typing import Any
from uuid import uuid4

import pytest
from nats.aio.msg import Msg

from perdure.actors.context import Context
from perdure.actors.models import Unavailable
from perdure.actors.outside import Outside
from perdure.actors.tools import call_async, find
from perdure.cluster.connection import Connection
from perdure.definitions.builtin_tools import BUILTINS
from perdure.errors import BadInput, EnvironmentProblem


async def call(connection: Connection | None, name: str, key: str = "x/n", **arguments: Any) -> Any:
    outside = Outside(nats=connection.nats if connection else None)
    return await call_async(find(BUILTINS[name].place), arguments, Context("x", "n", 1, key, outside=outside))


@pytest.fixture
async def subject(connection: Connection) -> AsyncIterator[str]:
    """A subject of this test's own, which somebody answers with what was asked."""
    name = f"shop.{uuid4().hex}"

    async def answer(asked: Msg) -> None:
        if asked.reply:
            await asked.respond(json.dumps({"heard": asked.data.decode()}).encode())

    subscription = await connection.nats.subscribe(name, cb=answer)
    yield name
    await subscription.unsubscribe()


async def test_a_message_arrives_with_its_headers_and_the_key_of_its_effect(
    connection: Connection, subject: str
) -> None:
    heard = await connection.nats.subscribe(subject)
    reply = await call(connection, "nats.publish", subject=subject, data={"a": 1}, headers={"Tenant": "t"})
    message = await heard.next_msg(2)
    await heard.unsubscribe()
    assert json.loads(message.data) == {"a": 1}
    assert message.headers == {"Tenant": "t", "Nats-Msg-Id": "x/n"}
    assert reply == {"stream": None, "sequence": None, "duplicate": False}


async def test_a_stream_keeps_one_message_of_all_attempts(connection: Connection, subject: str) -> None:
    js, stream = connection.nats.jetstream(), uuid4().hex
    with pytest.raises(Unavailable, match="no stream takes"):
        await call(connection, "nats.publish", subject=f"{subject}.x", stream=True)
    await js.add_stream(name=stream, subjects=[f"{subject}.>"])
    first, again, other = [
        await call(connection, "nats.publish", key, subject=f"{subject}.x", data="hi", stream=True)
        for key in ("x/n", "x/n", "x/m")
    ]
    await js.delete_stream(stream)
    assert first == {"stream": stream, "sequence": 1, "duplicate": False}
    assert again == {"stream": stream, "sequence": 1, "duplicate": True}
    assert other["sequence"] == 2


async def test_an_answer_comes_back_as_what_it_is(connection: Connection, subject: str) -> None:
    assert (await call(connection, "nats.request", subject=subject, data="hi"))["json"] == {"heard": "hi"}


async def test_nobody_there_and_nobody_answering_may_be_tried_again(connection: Connection, subject: str) -> None:
    with pytest.raises(Unavailable, match="nobody answers"):
        await call(connection, "nats.request", subject=f"{subject}.none")
    silent = await connection.nats.subscribe(f"{subject}.silent")
    with pytest.raises(Unavailable, match=r"no answer on .* within 0\.05 s"):
        await call(connection, "nats.request", subject=f"{subject}.silent", timeout=0.05)
    await silent.unsubscribe()


@pytest.mark.parametrize(
    "subject",
    ["perdure.cmd.1.x", "Perdure.start.5.1.x", "perdure", "$JS.API.STREAM.DELETE.PERDURE_EVENTS", "$SYS.x", "_INBOX.x"],
)
async def test_subjects_of_perdure_and_of_the_server_are_refused(connection: Connection, subject: str) -> None:
    for name in ("nats.publish", "nats.request"):
        with pytest.raises(BadInput, match="own; tools send on others"):
            await call(connection, name, subject=subject)


@pytest.mark.parametrize("subject", ["", "a..b", "a.*", "a.>", "a b", "a.\n", ".a"])
async def test_what_is_no_subject_is_refused(connection: Connection, subject: str) -> None:
    with pytest.raises(BadInput, match="is no subject to send to"):
        await call(connection, "nats.publish", subject=subject)


@pytest.mark.parametrize("headers", [{"Nats-Rollup": "all"}, {"a\r\nb": "x"}, {"a": "x\r\nNats-Rollup: all"}])
async def test_headers_that_the_server_obeys_are_refused(connection: Connection, headers: dict[str, str]) -> None:
    with pytest.raises(BadInput, match="is no header that can be given"):
        await call(connection, "nats.publish", subject="shop.x", headers=headers)


async def test_a_message_that_is_too_large_is_bad_input(connection: Connection, subject: str) -> None:
    with pytest.raises(BadInput, match="larger than the server takes"):
        await call(connection, "nats.publish", subject=subject, data="x" * 9_000_000)


async def test_without_a_connection_it_says_where_there_is_one() -> None:
    with pytest.raises(EnvironmentProblem, match="take 'run_on' and resources out"):
        await call(None, "nats.publish", subject="shop.x")
