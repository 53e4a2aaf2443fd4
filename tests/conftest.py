"""What the tests share: one embedded server a session, and one local Ray where a test asks for it."""

import os
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from perdure.cluster.connection import Connection, open_connection
from perdure.cluster.nats_server import NatsServer, nats_server
from perdure.cluster.settings import Settings

for name in [name for name in os.environ if name.startswith(("PERDURE_", "OPENAI_")) or name == "RAY_ADDRESS"]:
    del os.environ[name]  # the tests' settings are their own


@pytest.fixture(scope="session")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("store")


@pytest.fixture(scope="session")
def settings(store: Path) -> Settings:
    return Settings(store=store)


@pytest.fixture(scope="session")
def server(settings: Settings) -> Iterator[NatsServer]:
    server = nats_server(settings)
    yield server
    server.close()


@pytest.fixture(scope="session")
async def connection(server: NatsServer) -> AsyncIterator[Connection]:
    connection = await open_connection(server.url, server.token)
    yield connection
    await connection.close()
