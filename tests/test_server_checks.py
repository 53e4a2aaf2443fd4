"""What is wrong with a server is said when a client connects, with its mend."""

import logging
import subprocess
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import nats
import pytest
from nats.js.api import RetentionPolicy, StreamConfig

from perdure.cluster.connection import open_connection
from perdure.cluster.nats_server import _binary
from perdure.errors import EnvironmentProblem
from perdure.events.jetstream_log import STREAM, stream_config
from perdure.events.server_checks import differences

Start = Callable[[str], str]


@contextmanager
def running(folder: Path, config: str) -> Iterator[str]:
    """Run a server with this configuration on a free port; give its address."""
    file = folder / "server.conf"
    file.write_text(f'listen: "127.0.0.1:-1"\nports_file_dir: "{folder}"\n{config}')
    with subprocess.Popen([_binary(None), "-c", str(file)], stderr=subprocess.DEVNULL) as process:
        try:
            deadline = time.monotonic() + 10
            while not (ports := list(folder.glob("*.ports"))) or not ports[0].read_text():
                assert time.monotonic() < deadline
            yield ports[0].read_text().split('"')[3].removeprefix("nats://")
        finally:
            process.terminate()


def jetstream(folder: Path, extra: str = "") -> str:
    return f'jetstream {{ store_dir: "{folder}/js", {extra} }}\n'


@pytest.fixture
async def plain(tmp_path: Path) -> AsyncIterator[str]:
    with running(tmp_path, jetstream(tmp_path)) as address:
        yield f"nats://{address}"


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"allow_atomic": False}, "allow_atomic is off, and must be True"),
        ({"allow_direct": False}, "allow_direct is off, and must be True"),
        ({"republish": None}, "republish is off, and must be perdure.ev.> to perdure.live.>"),
        ({"max_msgs": 1000}, "max_msgs is 1000, and must be unlimited"),
        ({"max_msgs_per_subject": 5}, "max_msgs_per_subject is 5, and must be off"),
        ({"retention": RetentionPolicy.INTEREST}, "retention is interest, and must be limits"),
        ({"subjects": ["perdure.ev.1.>"]}, "does not take the subjects perdure.ev.>"),
    ],
)
async def test_a_stream_that_is_not_as_needed_is_refused_with_the_difference(
    plain: str, change: dict[str, object], expected: str
) -> None:
    client = await nats.connect(plain)
    config = stream_config()
    for field, value in change.items():
        setattr(config, field, value)
    await client.jetstream().add_stream(config)
    await client.close()
    with pytest.raises(EnvironmentProblem, match=f"{STREAM} is not as perdure needs it.*nats stream edit") as caught:
        await open_connection(plain, None)
    assert expected in str(caught.value)


def test_a_stream_as_we_create_it_has_no_differences() -> None:
    assert differences(stream_config(), stream_config()) == []
    assert differences(StreamConfig(name="x", subjects=["perdure.ev.>"]), stream_config())


async def test_a_server_whose_syncing_cannot_be_seen_is_warned_of(plain: str, caplog: pytest.LogCaptureFixture) -> None:
    await (await open_connection(plain, None, synced=False)).close()
    assert "sync_interval: always" in caplog.text
    assert "PERDURE_ASSUME_SYNCED" in caplog.text
    caplog.clear()
    await (await open_connection(plain, None, synced=True)).close()
    assert not caplog.text


@pytest.mark.parametrize(
    ("extra", "expected"),
    [("", "syncs to disk every 120 s"), ("sync_interval: 1s", "every 1 s"), ("sync_interval: always", None)],
)
async def test_a_server_that_lets_its_syncing_be_seen_is_warned_of_when_it_is_late(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, extra: str, expected: str | None
) -> None:
    """One account that is the system's and has JetStream: enough to see the configuration."""
    accounts = (
        "accounts { SYS { users: [{user: s, password: s}] }\n"
        "  APP { jetstream: enabled, users: [{user: a, password: a}],\n"
        '    imports: [{service: {account: SYS, subject: "$SYS.REQ.SERVER.PING.JSZ"}}] } }\n'
        "system_account: SYS\n"
    ).replace("SYS { users", 'SYS { exports: [{service: "$SYS.REQ.SERVER.PING.JSZ"}], users')
    with running(tmp_path, jetstream(tmp_path, extra) + accounts) as address:
        await (await open_connection(f"nats://a:a@{address}", None, synced=False)).close()
    if expected:
        assert expected in caplog.text
    else:
        assert not [each for each in caplog.records if each.levelno >= logging.WARNING and "sync" in each.message]


async def test_missing_permissions_are_said(tmp_path: Path) -> None:
    users = 'authorization { users: [{user: a, password: a, permissions: {publish: {deny: "$JS.API.>"}}}] }\n'
    with (
        running(tmp_path, jetstream(tmp_path) + users) as address,
        pytest.raises(EnvironmentProblem, match=r"(?i)permissions violation for publish"),
    ):
        await open_connection(f"nats://a:a@{address}", None, timeout=1)
