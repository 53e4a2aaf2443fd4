"""Forks and children on a real log: those that ended are reused, those under way begin anew as the fork's own."""

from collections.abc import AsyncIterator
from typing import Any

import pytest

import perdure
from perdure import Settings
from perdure.cluster.client import AsyncClient
from perdure.errors import ExecutionExists, ExecutionFailed

CHILD: dict[str, Any] = {
    "name": "kid",
    "nodes": {"go": {"wait": {"signal": "go"}}},
    "output": "${{ nodes.go.output }}",
}
FLOW: dict[str, Any] = {
    "name": "family",
    "workflows": {"kid": CHILD},
    "nodes": {"first": {"workflow": "kid"}, "second": {"workflow": "kid", "needs": ["first"]}},
    "output": "${{ [nodes.first.output, nodes.second.output] }}",
}


@pytest.fixture(scope="module")
async def client(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[AsyncClient]:
    async with await perdure.connect_async(Settings(store=tmp_path_factory.mktemp("kids")), local=True) as client:
        yield client


async def children(client: AsyncClient, parent: str) -> list[str]:
    return [row["id"] for row in await client.executions(parent=parent, order="started")]


async def child_of(client: AsyncClient, parent: str, number: int) -> str:
    """Return the id of a parent's child, once it has begun."""
    while len(found := await children(client, parent)) <= number:
        pass
    return found[number]


async def test_a_child_that_ended_is_reused_and_the_next_one_is_the_forks_own(client: AsyncClient) -> None:
    source = await client.start(FLOW, id="source")
    for number in range(2):
        await client.get(await child_of(client, "source", number)).signal("go", number)
    assert await source.result(10) == [0, 1]
    forked = await source.fork(from_="second", id="forked")
    own = await child_of(client, "forked", 0)
    assert own != (await children(client, "source"))[1]
    await client.get(own).signal("go", "new")
    assert await forked.result(10) == [0, "new"]
    assert len(await children(client, "forked")) == 1
    assert len(await children(client, "source")) == 2


async def test_a_child_under_way_goes_on_for_the_source_and_begins_anew_for_the_fork(client: AsyncClient) -> None:
    source = await client.start(FLOW, id="busy")
    old = await child_of(client, "busy", 0)
    forked = await source.fork(id="busy-fork")
    new = await child_of(client, "busy-fork", 0)
    assert old != new
    await forked.cancel("enough")
    with pytest.raises(perdure.ExecutionStopped, match="enough"):
        await forked.result(10)
    with pytest.raises(perdure.ExecutionStopped):  # it is told when its parent has ended
        await client.get(new).result(10)
    assert await client.get(new).status() == "cancelled"
    assert await client.get(old).status() == "running"
    await client.get(old).signal("go", "old")
    await child_of(client, "busy", 1)  # it goes on
    assert (await source.state()).nodes["first"].output == "old"


async def test_a_child_with_an_id_of_its_own_is_taken_unless_its_id_reads_the_executions(client: AsyncClient) -> None:
    def flow(name: str) -> dict[str, Any]:
        return {
            **FLOW,
            "nodes": {"first": {"workflow": {"name": "kid", "id": name}}},
            "output": "${{ nodes.first.output }}",
        }

    source = await client.start(flow("the-kid"), id="named")
    await client.get(await child_of(client, "named", 0)).signal("go", 1)
    assert await source.result(10) == 1
    with pytest.raises(ExecutionFailed, match=ExecutionExists.__name__):
        await (await source.fork(from_="first", id="named-1")).result(10)
    forked = await source.fork(from_="first", id="named-2", workflow=flow("kid-of-${{ execution.id }}"))
    await client.get(await child_of(client, "named-2", 0)).signal("go", 2)
    assert await forked.result(10) == 2
    assert await children(client, "named-2") == ["kid-of-named-2"]
