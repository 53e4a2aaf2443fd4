"""The embedded server: private, shared by clients of one store, gone with the last of them."""

import asyncio
import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from perdure.cluster.connection import Connection, open_connection
from perdure.cluster.nats_server import nats_server
from perdure.cluster.settings import Settings
from perdure.errors import EnvironmentProblem, LogUnavailable


def process_ids(store: Path) -> list[int]:
    """Return the processes whose command line names the store."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            words = (folder / "cmdline").read_bytes().split(b"\0")
        except OSError:
            continue
        if int(folder.name) != os.getpid() and any(str(store).encode() in word for word in words):
            found.append(int(folder.name))
    return found


def wait_until_gone(store: Path) -> None:
    deadline = time.monotonic() + 10
    while process_ids(store):
        assert time.monotonic() < deadline, "the server outlived its last client"
        time.sleep(0.01)


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(store=tmp_path / "store")


async def test_it_listens_on_loopback_with_a_private_token_and_syncs_always(settings: Settings) -> None:
    server = nats_server(settings)
    assert server.url.startswith("nats://127.0.0.1:")
    assert (settings.store / "token").stat().st_mode & 0o777 == 0o600
    assert (settings.store / "server.conf").stat().st_mode & 0o777 == 0o600
    assert 'sync_interval: "always"' in (settings.store / "server.conf").read_text()
    connection = await open_connection(server.url, server.token)
    await connection.close()
    with pytest.raises(EnvironmentProblem, match="Authorization"):
        await open_connection(server.url, "wrong")
    server.close()


def test_it_ends_with_its_last_client_and_not_before(settings: Settings) -> None:
    first = nats_server(settings)
    second = nats_server(settings)
    assert second.url == first.url
    first.close()
    assert len(process_ids(settings.store)) == 2  # the keeper and the server
    second.close()
    assert process_ids(settings.store) == []


def test_what_was_stored_is_there_when_it_starts_again(settings: Settings) -> None:
    first = nats_server(settings)
    token = first.token
    first.close()
    second = nats_server(settings)
    assert second.token == token
    second.close()


def test_it_ends_when_its_client_is_killed(settings: Settings) -> None:
    script = (
        "import sys; from pathlib import Path\n"
        "from perdure.cluster.nats_server import nats_server\nfrom perdure.cluster.settings import Settings\n"
        f"server = nats_server(Settings(store=Path({str(settings.store)!r}))); print('up', flush=True)\n"
        "sys.stdin.read()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as client:
        assert client.stdout is not None
        assert client.stdout.readline() == "up\n"
        client.send_signal(signal.SIGKILL)
    wait_until_gone(settings.store)


def test_it_ends_when_its_keeper_is_killed(settings: Settings) -> None:
    server = nats_server(settings)
    keeper = next(
        pid for pid in process_ids(settings.store) if b"keeper.py" in Path(f"/proc/{pid}/cmdline").read_bytes()
    )
    os.kill(keeper, signal.SIGKILL)
    wait_until_gone(settings.store)
    server.close()
    again = nats_server(settings)  # and what it left behind does not keep the next one from starting
    again.close()


def test_many_clients_that_come_at_once_share_one_server(settings: Settings) -> None:
    script = (
        "from pathlib import Path\n"
        "from perdure.cluster.nats_server import nats_server\nfrom perdure.cluster.settings import Settings\n"
        f"server = nats_server(Settings(store=Path({str(settings.store)!r}))); print(server.url, flush=True); input()"
    )
    clients = [
        subprocess.Popen([sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        for _ in range(4)
    ]
    urls = {client.stdout.readline() for client in clients if client.stdout}
    assert len(urls) == 1
    for client in clients:
        client.communicate("\n")
    wait_until_gone(settings.store)


def test_a_store_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(EnvironmentProblem, match=r"file/store cannot be used: Not a directory.*--store"):
        nats_server(Settings(store=tmp_path / "file" / "store"))


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (None, "not an executable file"),
        ("#!/bin/sh\necho 'it broke' >&2; exit 1\n", "(?s)ended at once.*it broke"),
        ("#!/bin/sh\nexec sleep 60\n", r"did not start within 2 s"),
    ],
)
def test_a_server_that_does_not_start_is_named_with_its_last_words_and_leaves_nothing(
    tmp_path: Path, content: str | None, expected: str
) -> None:
    binary = tmp_path / "nats-server"
    if content is not None:
        binary.write_text(content)
        binary.chmod(0o755)
    settings = Settings(store=tmp_path / "store", nats_server=binary, nats_start_timeout=2)
    with pytest.raises(EnvironmentProblem, match=expected):
        nats_server(settings)
    wait_until_gone(tmp_path)


async def test_a_server_that_is_not_there_is_named() -> None:
    with pytest.raises(EnvironmentProblem, match=r"cannot connect to NATS at nats://127\.0\.0\.1:1"):
        await open_connection("nats://127.0.0.1:1", None, timeout=1)


async def test_a_server_without_jetstream_is_named(tmp_path: Path) -> None:
    config = tmp_path / "plain.conf"
    config.write_text(f'listen: "127.0.0.1:-1"\nports_file_dir: "{tmp_path}"\n')
    from perdure.cluster.nats_server import _binary

    with subprocess.Popen([_binary(None), "-c", str(config)], stderr=subprocess.DEVNULL) as process:
        deadline = time.monotonic() + 10
        while not (ports := list(tmp_path.glob("*.ports"))) or not ports[0].read_text():
            assert time.monotonic() < deadline
        url = ports[0].read_text().split('"')[3]
        try:
            with pytest.raises(EnvironmentProblem, match="without JetStream"):
                await open_connection(url, None)
        finally:
            process.terminate()


def test_it_holds_no_output_of_who_started_it_when_others_use_it_on(settings: Settings) -> None:
    script = (
        "import sys; from pathlib import Path\n"
        "from perdure.cluster.nats_server import nats_server\nfrom perdure.cluster.settings import Settings\n"
        f"server = nats_server(Settings(store=Path({str(settings.store)!r}))); print('up', flush=True)\n"
        "sys.stdin.read(); server.close()"
    )
    first = subprocess.Popen([sys.executable, "-c", script], stdin=-1, stdout=-1, stderr=subprocess.STDOUT, text=True)
    assert first.stdout is not None
    assert first.stdout.readline() == "up\n"
    second = nats_server(settings)
    assert first.communicate("", timeout=20)[0] == ""  # which returns when nobody has its output open
    second.close()


async def test_a_server_that_is_killed_is_started_again_on_the_same_port_with_what_was_stored(
    settings: Settings,
) -> None:
    server = nats_server(settings)
    connection = await open_connection(server.url, server.token)
    await connection.registry.swap("test", b"kept", 0)
    for _ in range(2):
        pid = json.loads((settings.store / "server.json").read_text())["pid"]
        back = asyncio.Event()
        connection.reconnected.add(back.set)
        os.kill(pid, signal.SIGKILL)
        await asyncio.wait_for(back.wait(), 20)
        while (await read(connection, "test")) is None:
            await asyncio.sleep(0.01)
        assert await read(connection, "test") == b"kept"
        assert json.loads((settings.store / "server.json").read_text())["pid"] != pid
    await connection.close()
    server.close()
    assert process_ids(settings.store) == []


async def read(connection: Connection, key: str) -> bytes | None:
    """Return what is recorded under a key; None while the server is only just there."""
    with contextlib.suppress(LogUnavailable):
        data, _ = await connection.registry.read(key)
        return data
    return None
