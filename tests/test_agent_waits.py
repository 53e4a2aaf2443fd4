"""An agent that waits for a person holds nothing, and whoever serves it then goes on where it was."""

from collections.abc import AsyncIterator
from typing import Any
from uuid import uuid4

import pytest
from hosts_lab import Lab, until

from perdure.actors.inputs import DecideApproval
from perdure.cluster.connection import Connection
from perdure.cluster.nats_server import NatsServer
from perdure.cluster.run import AsyncRun
from perdure.cluster.serving import Serving
from perdure.events.vocabulary import NodeWaiting
from perdure.testing import Model, Reply

APPROVE = "n[0]/dumps.approve"
FLOW: dict[str, Any] = {
    "name": "waits",
    "agents": {
        "a": {
            "model": "m", "instructions": "Help.",
            "tools": [{"tool": "json:dumps", "name": "dumps", "approve": "${{ args.obj > 100 }}"}],
        }
    },
    "nodes": {"n": {"agent": "a", "with": {"message": "hi"}}},
}  # fmt: skip


@pytest.fixture
async def lab(server: NatsServer, connection: Connection) -> AsyncIterator[Lab]:
    lab = Lab(server, connection)
    yield lab
    await lab.forget()


async def test_an_agent_is_left_until_a_person_decided_and_another_host_goes_on(lab: Lab) -> None:
    replies = [Reply(calls=[{"dumps": {"obj": 500}}, {"dumps": {"obj": 1}}], turn=0), Reply("Done.", turn=1)]
    with Model(replies) as model:
        about: dict[str, Any] = {"passivate_after": 0.0, "openai_base_url": model.base_url}
        async with lab.host("first", **about) as serving:
            run = await lab.start(uuid4().hex, FLOW)
            await until(lambda: _asked(run))
            await until(lambda: _holds_nothing(lab, serving))
        assert len(model.requests) == 1
        async with lab.host("second", **about):
            data = {"arguments": {"obj": 80}}
            await lab.send(DecideApproval(uuid4().hex, run.id, APPROVE, approved=True, by="ann", data=data))
            assert await run.result(20) == {"n": "Done."}
    assert len(model.requests) == 2, "the reply that was recorded is not asked for again"
    assert [each["content"] for each in model.requests[1]["messages"][-2:]] == [
        'called, as a person decided, with {"obj": 80}:\n80', "1",
    ]  # fmt: skip
    decided = (await run.state()).nodes[APPROVE].output
    assert (decided["approved"], decided["by"], decided["data"]) == (True, "ann", data)


async def _asked(run: AsyncRun) -> bool:
    happened = [each.event for recorded in await run.history() for each in recorded.unpack()]
    return any(isinstance(event, NodeWaiting) for event in happened)


async def _holds_nothing(lab: Lab, serving: Serving) -> bool:
    return serving.host.status()["active"] == 0 and await lab.waiting() == 0
