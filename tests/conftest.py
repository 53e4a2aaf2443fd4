"""What the tests share: one embedded server a session, and one local Ray where a test asks for it."""

import gc
import os
import threading
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from postgres_server import postgres_address as postgres_address
from postgres_server import postgres_url as postgres_url

from perdure.cluster.connection import Connection, open_connection
from perdure.cluster.nats_server import NatsServer, nats_server
from perdure.cluster.settings import Settings
from perdure.events.link import Link

for name in [name for name in os.environ if name.startswith(("PERDURE_", "OPENAI_")) or name == "RAY_ADDRESS"]:
    del os.environ[name]  # the tests' settings are their own


# What takes longest begins first, so that the workers end together; two groups with a Ray are not neighbours.
LONGEST = (
    "test_up.py", "test_cli.py", "ray", "test_chaos.py", "test_real_cluster.py", "test_log_cluster.py",
    "test_projections_killed.py", "test_recorder.py", "test_recorder_streams.py", "test_statechart_differential.py",
    "test_chart_examples.py", "test_mcp_tools.py", "test_into_sql.py", "test_subscriptions.py", "test_log_crashes.py",
)  # fmt: skip


RAY = ("test_ray.py", "test_node_actors.py", "test_tools_run.py", "test_agent_hostile.py")  # share the local Ray


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Keep each file's tests in one worker of `pytest -n`, and those that share the local Ray in one too.

    xdist's own groups do nothing with pytest 9.2: it writes them into an attribute that is not there any more.
    """
    if config.getvalue("dist") != "loadgroup":
        return None
    from xdist.scheduler import LoadScopeScheduling  # type: ignore[import-untyped]

    class ByFile(LoadScopeScheduling):  # type: ignore[misc]
        def _split_scope(self, nodeid: str) -> str:
            return group_of(nodeid)

    config.option.loadscopereorder = False  # but in the order of the tests
    return ByFile(config, log)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put first what takes longest."""
    order = {name: number for number, name in enumerate(LONGEST)}
    for item in items:
        if "local_ray" in getattr(item, "fixturenames", ()) and item.path.name not in RAY:
            raise pytest.UsageError(f"{item.path.name} uses local_ray: name it in RAY of tests/conftest.py")
    items.sort(key=lambda item: order.get(group_of(item.nodeid), len(order)))


def group_of(nodeid: str) -> str:
    """Return the name that tests of one worker share."""
    file = Path(nodeid.partition("::")[0]).name
    return "ray" if file in RAY else file


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


@pytest.fixture(scope="session")
def link(server: NatsServer) -> Iterator[Link]:
    link = Link(server.url, server.token)
    yield link
    link.close()


@pytest.fixture(scope="session")
def local_ray() -> Iterator[None]:
    """One Ray for all tests; clients find it running and leave it running. Its `fake_gpu` stands for what is scarce."""
    import ray

    with pytest.MonkeyPatch.context() as patch:  # its processes inherit the environment that it starts in
        patch.setenv("PERDURE_SECRET_INHERITED", "value-of-the-environment")
        ray.init(
            address="local", num_cpus=2, resources={"fake_gpu": 2}, include_dashboard=False, log_to_driver=False,
            configure_logging=False,
        )  # fmt: skip
    yield
    ray.shutdown()


@pytest.fixture
def recorder_environment(
    server: NatsServer, store: Path, link: Link, monkeypatch: pytest.MonkeyPatch
) -> Iterator[None]:
    """Make the recorders the library's persistence, with streams of the test's own; leave no stream and no thread."""
    prefix = f"T{uuid4().hex}"
    monkeypatch.setenv("PERSISTENCE_MODULE", "perdure.events.recorder")
    monkeypatch.setenv("PERDURE_NATS_URL", server.url)
    monkeypatch.setenv("PERDURE_NATS_TOKEN_FILE", str(store / "token"))
    monkeypatch.setenv("PERDURE_STREAM_PREFIX", prefix)
    yield
    gc.collect()  # the library leaves factories unclosed
    for thread in threading.enumerate():
        if thread.name == "perdure-link" and thread is not link._thread:
            thread.join(5)
            assert not thread.is_alive(), "a connection outlived its test"
    link.run(_delete_streams(link, prefix))


async def _delete_streams(link: Link, prefix: str) -> None:
    js = link.nats.jetstream()
    for stream in await js.streams_info():
        if str(stream.config.name).startswith(prefix):
            await js.delete_stream(str(stream.config.name))
