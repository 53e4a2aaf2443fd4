"""A reply is heard while it comes: before the endpoint is done with it, by who came first and by who came late."""

import asyncio
import contextlib
import json
import threading
from collections.abc import AsyncIterator, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

import perdure
from perdure import Settings
from perdure.cluster.client import AsyncClient
from perdure.cluster.nats_server import NatsServer
from perdure.cluster.run import AsyncRun

HALF, REST = "The first half is here, ", "and so is the second."


class SlowModel:
    """An endpoint that says half of its reply, and the rest when it may."""

    def __init__(self) -> None:
        self.may_end = threading.Event()
        self.url = ""

    def answer(self, write: Any) -> None:
        for text, end in ((HALF, None), (REST, "stop")):
            choice = {"index": 0, "delta": {"content": text}, "finish_reason": end}
            write(f"data: {json.dumps({'choices': [choice]})}\n\n".encode())
            assert self.may_end.wait(20)
        write(b"data: [DONE]\n\n")


@pytest.fixture
def model() -> Iterator[SlowModel]:
    model = SlowModel()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            self.send_response(200)
            self.send_header("Content-Type", "text/event-stream")
            self.end_headers()
            model.answer(self.wfile.write)

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
    model.url = f"http://127.0.0.1:{server.server_port}/v1"
    yield model
    model.may_end.set()
    server.shutdown()
    server.server_close()


@pytest.fixture
async def client(settings: Settings, server: NatsServer, model: SlowModel) -> AsyncIterator[AsyncClient]:
    asks = settings.model_copy(update={"openai_base_url": model.url})
    async with await perdure.connect_async(asks, local=True) as client:
        yield client


async def test_half_a_reply_is_heard_before_there_is_the_rest_of_it_also_by_who_comes_late(
    client: AsyncClient, model: SlowModel
) -> None:
    run = await client.start({
        "name": "slow", "agents": {"a": {"model": "m", "instructions": "Help."}},
        "nodes": {"n": {"agent": "a", "with": {"message": "hi"}}},
    })  # fmt: skip
    first = asyncio.create_task(heard(run, HALF))
    assert await first == HALF
    assert (await run.state()).nodes["n"].status == "running", "nothing of it is recorded yet"
    late = asyncio.create_task(heard(run, HALF + REST))
    assert await heard(run, HALF) == HALF, "who comes late hears what was said so far"
    model.may_end.set()
    assert await late == HALF + REST
    assert await run.result(10) == {"n": HALF + REST}
    log = [recorded.data for recorded in await run.history()]
    assert sum(HALF.encode() in data for data in log) == 1, "the log has the whole reply, once"


async def heard(run: AsyncRun, until: str) -> str:
    """Listen until so much was said."""
    said = ""
    with contextlib.suppress(TimeoutError):  # then what was heard tells more
        async with asyncio.timeout(20):
            async for each in run.stream("n"):
                said += each.text
                if said == until:
                    break
    return said
