"""Agents on the real store: a host in this process, a model behind HTTP, a tool that takes a secret."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest

import perdure
from perdure import Settings, tool
from perdure.cluster.client import AsyncClient
from perdure.cluster.nats_server import NatsServer
from perdure.definitions.agent_parts import Price
from perdure.testing import Model, Reply

PAID: list[tuple[str, int]] = []
HEARD = asyncio.Event()


@tool(name="agent_test.pay")
async def pay(token: str, amount: int) -> str:
    """Pay an amount.

    Args:
        amount: In cents.
    """
    if amount == 7:
        await HEARD.wait()
    PAID.append((token, amount))
    return f"paid {amount} with {token}"


SCRIPT: list[Reply] = []
"""What the tests of this file add to; each matches by words of its own."""


@pytest.fixture(scope="module")
def model() -> Iterator[Model]:
    with Model(SCRIPT) as model:
        yield model


@pytest.fixture(scope="module")
async def client(
    settings: Settings, server: NatsServer, model: Model, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[AsyncClient]:
    folder = tmp_path_factory.mktemp("secrets")
    (folder / "PAY_TOKEN").write_text("tok-1234567")
    with_model = settings.model_copy(
        update={
            "openai_base_url": model.base_url, "secrets_dir": folder, "prices": {"m": Price(input=1, output=10)},
        }
    )  # fmt: skip
    async with await perdure.connect_async(with_model, local=True) as client:
        yield client


def flow(word: str, *, node: dict[str, Any] | None = None, **agent: Any) -> dict[str, Any]:
    asks = {"agent": "a", "with": {"message": f"{word} please"}, **(node or {})}
    return {
        "name": "flow", "nodes": {"n": asks},
        "agents": {"a": {"model": "m", "instructions": "Help.", **agent}},
    }  # fmt: skip


PAY = {"tool": "agent_test.pay", "name": "pay", "with": {"token": "${{ secrets.PAY_TOKEN }}"}}
