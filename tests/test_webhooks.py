"""Webhooks: what is posted, how it is signed, when it is tried again, what is dead, and that nothing is told twice."""

import asyncio
import base64
import hashlib
import hmac
import json
import re
import socket
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from histories import append, start

from perdure.cluster import telling
from perdure.cluster.client import AsyncClient
from perdure.cluster.settings import Settings
from perdure.cluster.telling import Teller
from perdure.cluster.webhook_http import signature
from perdure.errors import BadInput
from perdure.events.jetstream_log import IMPORTED
from perdure.events.vocabulary import Error, ExecutionFailed, ExecutionSucceeded, NodeSucceeded

PAGE = (Path(__file__).parent.parent / "docs/subscriptions.md").read_text(encoding="utf-8")


class Receiver:
    """An HTTP server that keeps what is posted, and answers as it is told: 200 where nothing is."""

    def __init__(self) -> None:
        self.got: list[tuple[dict[str, str], bytes]] = []
        self.answers: list[str] = []
        self.url = ""

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        headers = {key.lower(): value for key, _, value in (line.partition(": ") for line in head.split("\r\n")[1:-2])}
        body = await reader.readexactly(int(headers["content-length"]))
        self.got.append((headers, body))
        answer = self.answers.pop(0) if self.answers else "200 OK\r\n"
        writer.write(f"HTTP/1.1 {answer}content-length: 0\r\nconnection: close\r\n\r\n".encode())
        await writer.drain()
        writer.close()
        await writer.wait_closed()

    @property
    def types(self) -> list[str]:
        return [json.loads(body)["type"] for _, body in self.got]


@pytest.fixture
async def receiver() -> AsyncIterator[Receiver]:
    receiver = Receiver()
    server = await asyncio.start_server(receiver.serve, "127.0.0.1", 0)
    receiver.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/hook"
    yield receiver
    server.close()
    await server.wait_closed()


@pytest.fixture
async def client(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[AsyncClient]:
    monkeypatch.setenv("PERDURE_SECRET_HOOK", "s3cret")
    monkeypatch.setattr(telling, "_FIRST", 0.0)  # nobody waits in a test
    settings = Settings(store=tmp_path / "store", http_allow=("127.0.0.1",), user="ann")
    async with await AsyncClient.open(settings, "none") as client:
        yield client


@pytest.fixture
async def teller(client: AsyncClient) -> AsyncIterator[Teller]:
    teller = Teller(client._connection, client._settings)
    yield teller
    teller.close()


async def failed(client: AsyncClient, execution: str, workflow: str = "order") -> None:
    log = client._connection.log
    await append(log, execution, start(workflow), NodeSucceeded("a", 1, 1))
    await append(log, execution, ExecutionFailed(Error("Boom", "it broke"), "b", 1), n=2)


async def all_told(teller: Teller) -> None:
    while await teller.once():
        pass


async def test_the_chosen_events_are_posted_signed_and_only_from_the_declaration_on(
    client: AsyncClient, teller: Teller, receiver: Receiver
) -> None:
    await failed(client, "before")
    await client.webhooks.add("pager", receiver.url, secret="HOOK", types="ExecutionFailed", workflow="order")
    await failed(client, "x-1")
    await failed(client, "x-2", "refund")
    await all_told(teller)
    ((headers, body),) = receiver.got
    event = json.loads(body)
    assert (event["type"], event["subject"], event["perdureworkflow"], event["data"]["error"]["type"]) == (
        "perdure.ExecutionFailed", "x-1", "order", "Boom",
    )  # fmt: skip
    assert headers["webhook-id"] == event["id"]
    assert headers["content-type"] == "application/cloudevents+json"
    signed = f"{headers['webhook-id']}.{headers['webhook-timestamp']}.".encode() + body
    mac = base64.b64encode(hmac.new(b"s3cret", signed, hashlib.sha256).digest()).decode()
    assert headers["webhook-signature"] == f"v1,{mac}"


async def test_what_was_imported_is_not_told(client: AsyncClient, teller: Teller, receiver: Receiver) -> None:
    await client.webhooks.add("pager", receiver.url, secret="HOOK", types="ExecutionStarted")
    log = client._connection.log
    source = await append(log, "source", start())
    (data,) = [recorded.data async for recorded in log.read_all(source - 1, 1)]
    await log.append_stored("copy", "an-import", data, 0, {IMPORTED: "1"})
    await all_told(teller)
    assert [json.loads(body)["subject"] for _, body in receiver.got] == ["source"]


async def test_the_check_of_the_docs_takes_what_is_ours_and_nothing_else(
    client: AsyncClient, teller: Teller, receiver: Receiver
) -> None:
    await client.webhooks.add("pager", receiver.url, secret="HOOK")
    await failed(client, "x-1")
    await all_told(teller)
    headers, body = receiver.got[0]
    space: dict[str, Any] = {}
    code = re.search(r"```python\n(import base64.*?)```", PAGE, re.DOTALL)[1]  # type: ignore[index]
    exec(compile(code, "docs", "exec"), space)
    assert space["genuine"](headers, body, b"s3cret")
    assert not space["genuine"](headers, body + b" ", b"s3cret")
    assert not space["genuine"](headers, body, b"another")
    assert not space["genuine"]({**headers, "webhook-timestamp": "1700000000"}, body, b"s3cret")
    old = {**headers, "webhook-timestamp": "1700000000"}
    old["webhook-signature"] = signature("s3cret", headers["webhook-id"], 1700000000, body)
    assert not space["genuine"](old, body, b"s3cret")  # somebody sends an old one again


def test_the_signature_is_that_of_standard_webhooks() -> None:
    secret, event = (
        "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw",
        "msg_p5jXN8AQM9LWM0D4loKWxJek",
    )  # the specification's example
    assert (
        signature(secret, event, 1614265330, b'{"test": 2432232314}')
        == "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="
    )


async def test_what_is_not_taken_is_tried_again_and_then_dead_until_somebody_asks(
    client: AsyncClient, teller: Teller, receiver: Receiver
) -> None:
    await client.webhooks.add("pager", receiver.url, secret="HOOK", types="ExecutionFailed", attempts=3)
    receiver.answers = ["500 No\r\n", "302 There\r\nlocation: /x\r\n", "200 OK\r\n", *["503 No\r\n"] * 3]
    await failed(client, "x-1")
    await all_told(teller)
    assert len(receiver.got) == 3
    assert len({headers["webhook-id"] for headers, _ in receiver.got}) == 1
    await failed(client, "x-2")
    await all_told(teller)
    (letter,) = await client.webhooks.dead()
    assert (letter["webhook"], letter["execution"], letter["attempts"], letter["error"]) == (
        "pager", "x-2", 3, "it answered 503",
    )  # fmt: skip
    assert (await client.webhooks.list())[0]["dead"] == 1
    assert await client.webhooks.retry("pager") == 1
    await all_told(teller)
    assert len(receiver.got) == 7
    assert (await client.webhooks.list())[0] | {"since": 0} == {
        "name": "pager", "url": receiver.url, "types": ["ExecutionFailed"], "workflows": [], "secret": "HOOK",
        "since": 0, "by": "ann", "pending": 0, "dead": 0,
    }  # fmt: skip


async def test_one_that_fails_does_not_hold_up_the_others(
    client: AsyncClient, teller: Teller, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(telling, "_FIRST", 3600.0)
    await client.webhooks.add("pager", receiver.url, secret="HOOK", types="ExecutionFailed")
    receiver.answers = ["500 No\r\n"]
    for number in range(3):
        await failed(client, f"x-{number}")
    await all_told(teller)
    assert len(receiver.got) == 3
    assert (await client.webhooks.list())[0]["pending"] == 1


async def test_a_receiver_that_does_not_answer_keeps_nobody_else_waiting(
    client: AsyncClient, teller: Teller, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(telling, "_LOOK_RARELY", 0.01)
    silent = socket.create_server(("127.0.0.1", 0))  # the system takes the connection, and nobody answers
    url = f"http://127.0.0.1:{silent.getsockname()[1]}/"
    await client.webhooks.add("silent", url, secret="HOOK", types="ExecutionFailed", timeout=600)
    for number in range(40):  # more than are tried at once, and all of them are older
        await failed(client, f"old-{number}")
    await client.webhooks.add("pager", receiver.url, secret="HOOK", types="ExecutionFailed")
    await failed(client, "new")
    work = asyncio.create_task(teller.run())
    while not receiver.got:
        assert not work.done(), work.exception()
        await asyncio.sleep(0)
    await client.webhooks.remove("silent")
    while len(teller._telling) > 1 or "silent" in teller._hooks:  # it is left at once, whatever is under way
        assert not work.done(), work.exception()
        await asyncio.sleep(0)
    work.cancel()
    await asyncio.wait({work})
    assert [json.loads(body)["subject"] for _, body in receiver.got] == ["new"]
    assert "webhook:silent" not in await client._projections.lag(client._connection.log)
    silent.close()


async def test_who_is_gone_is_given_up_at_once(client: AsyncClient, teller: Teller, receiver: Receiver) -> None:
    await client.webhooks.add("pager", receiver.url, secret="HOOK", types="ExecutionFailed")
    receiver.answers = ["410 Gone\r\n"]
    await failed(client, "x-1")
    await all_told(teller)
    assert [letter["error"] for letter in await client.webhooks.dead("pager")] == ["it answered 410"]


async def test_a_private_address_is_not_asked_unless_the_operator_allows_it(
    client: AsyncClient, receiver: Receiver
) -> None:
    teller = Teller(client._connection, client._settings.model_copy(update={"http_allow": ()}))
    await client.webhooks.add("pager", receiver.url, secret="HOOK", types="ExecutionFailed", attempts=1)
    await failed(client, "x-1")
    await all_told(teller)
    teller.close()
    (letter,) = await client.webhooks.dead()
    assert "AddressRefused: 127.0.0.1 is 127.0.0.1, which is no public address" in letter["error"]
    assert receiver.got == []


async def test_a_secret_that_is_missing_is_said(client: AsyncClient, teller: Teller, receiver: Receiver) -> None:
    await client.webhooks.add("pager", receiver.url, secret="NONE", types="ExecutionFailed", attempts=1)
    await failed(client, "x-1")
    await all_told(teller)
    assert "there is no secret 'NONE'" in (await client.webhooks.dead())[0]["error"]


async def test_a_runner_that_died_in_the_midst_tells_the_rest_and_lost_read_models_tell_nothing_twice(
    client: AsyncClient, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    await client.webhooks.add("pager", receiver.url, secret="HOOK", types=["ExecutionFailed", "ExecutionSucceeded"])
    await failed(client, "x-1")
    first = Teller(client._connection, client._settings)

    async def dies(*_: Any) -> None:
        raise ConnectionError("the process died")

    monkeypatch.setattr(first, "_tried", dies)
    with pytest.raises(ConnectionError):
        await first.once()
    first.close()
    with client._projections.store.writing() as sql:  # as when its claim has run out
        sql.exec_driver_sql("UPDATE webhook_deliveries SET due = '2026-01-01 00:00:00.000000'")
    second = Teller(client._connection, client._settings)
    await all_told(second)
    second._noted = float("-inf")
    await second.once()  # notes that all is told
    second.close()
    assert receiver.types == ["perdure.ExecutionFailed"]
    client._projections.close()
    for file in client._settings.store.glob("projections.sqlite*"):
        file.unlink()
    await append(client._connection.log, "x-2", start(), ExecutionSucceeded(1))
    third = Teller(client._connection, client._settings)
    await all_told(third)
    third.close()
    assert receiver.types == ["perdure.ExecutionFailed", "perdure.ExecutionSucceeded"]


async def test_the_outbox_is_in_postgresql_where_the_read_models_are(
    tmp_path: Path, receiver: Receiver, postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PERDURE_SECRET_HOOK", "s3cret")
    settings = Settings(store=tmp_path / "store", projections_url=postgres_url, http_allow=("127.0.0.0/8",))
    async with await AsyncClient.open(settings, "none") as client:
        teller = Teller(client._connection, client._settings)
        await client.webhooks.add("pager", receiver.url, secret="HOOK", types="ExecutionFailed", attempts=1)
        receiver.answers = ["500 No\r\n"]
        await failed(client, "x-1")
        await all_told(teller)
        assert [letter["execution"] for letter in await client.webhooks.dead()] == ["x-1"]
        assert await client.webhooks.retry("pager") == 1
        await all_told(teller)
        assert receiver.types == ["perdure.ExecutionFailed"] * 2
        teller.close()


async def test_a_webhook_that_is_removed_tells_nothing_any_more(
    client: AsyncClient, teller: Teller, receiver: Receiver
) -> None:
    await client.webhooks.add("pager", receiver.url, secret="HOOK")
    with pytest.raises(BadInput, match="there is a webhook 'pager' already"):
        await client.webhooks.add("pager", receiver.url, secret="HOOK")
    await client.webhooks.remove("pager")
    await failed(client, "x-1")
    await all_told(teller)
    assert (receiver.got, await client.webhooks.list()) == ([], [])
    with pytest.raises(BadInput, match="there is no webhook 'pager'"):
        await client.webhooks.remove("pager")


async def test_a_webhook_that_is_declared_again_begins_where_it_says(
    client: AsyncClient, teller: Teller, receiver: Receiver
) -> None:
    await failed(client, "x-1")
    for _ in range(2):
        await client.webhooks.add("pager", receiver.url, secret="HOOK", types="ExecutionFailed", from_="beginning")
        await all_told(teller)
        await client.webhooks.remove("pager")
    assert receiver.types == ["perdure.ExecutionFailed"] * 2
    assert "webhook:pager" not in await client._projections.lag(client._connection.log)
    await client.webhooks.add("pager", receiver.url, secret="HOOK")
    await all_told(teller)
    assert len(receiver.got) == 2


async def test_an_entry_whose_events_lie_in_a_blob_is_told(
    client: AsyncClient, teller: Teller, receiver: Receiver
) -> None:
    await client.webhooks.add("pager", receiver.url, secret="HOOK", types="NodeSucceeded")
    many = [NodeSucceeded(f"n{number}", 1, "y" * 100_000) for number in range(7)]
    await append(client._connection.log, "x-1", start(), *many)
    await all_told(teller)
    assert sorted(json.loads(body)["data"]["node"] for _, body in receiver.got) == [each.node for each in many]


@pytest.mark.parametrize(
    ("given", "why"),
    [
        ({"url": "ftp://x/y"}, "is no address to post to"),
        ({"url": "http://[::1/y"}, "is no address to post to"),
        ({"url": "https://x\n.org/y"}, "is no address to post to"),
        ({"url": "https://ann:pw@x/y"}, "without a user"),
        ({"secret": "not a name!"}, "is not the name of a secret"),
        ({"attempts": 0}, "at least 1 attempt"),
        ({"types": "Exploded"}, "there are no events of type 'Exploded'"),
    ],
)
async def test_a_webhook_that_makes_no_sense_is_refused(client: AsyncClient, given: dict[str, Any], why: str) -> None:
    with pytest.raises(BadInput, match=why):
        await client.webhooks.add("x", **{"url": "https://example.org/x", "secret": "HOOK", **given})
