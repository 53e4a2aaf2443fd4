"""A real PostgreSQL for the tests, one a session: each test gets a database of its own in it."""

import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from uuid import uuid4

import pytest
from nats_process import free_ports

_START_SECONDS = 30.0
_USER = "postgres"  # the server refuses to run as root


@contextmanager
def postgres_server(folder: Path) -> Iterator[str]:
    """Run a server on the loopback, and yield its address as `user@host:port`."""
    as_root = os.geteuid() == 0
    user = _USER if as_root else None
    if as_root:
        shutil.chown(folder, _USER)
    data = folder / "data"
    initdb = [_found("initdb"), "-D", str(data), "-U", _USER, "-A", "trust", "-E", "UTF8", "--no-sync"]
    initdb += ["--locale-provider=icu", "--icu-locale=en-US"]  # sorts as people do: what relies on bytes shows
    subprocess.run(initdb, check=True, capture_output=True, user=user, cwd="/")
    run, port = _started(folder, [_found("postgres"), "-D", str(data), "-h", "127.0.0.1", "-F"], user)
    with run:
        try:
            yield f"{_USER}@127.0.0.1:{port}"
        finally:
            run.send_signal(signal.SIGINT)  # a fast shutdown: it waits for no client


def _started(folder: Path, command: list[str], user: str | None) -> "tuple[subprocess.Popen[bytes], int]":
    """Start a server on a free port, on another one where somebody takes that meanwhile."""
    while True:
        (port,) = free_ports(1)
        with (folder / "log").open("wb") as log:
            at = ["-p", str(port), "-k", str(folder)]
            run = subprocess.Popen([*command, *at], stdout=log, stderr=log, user=user, cwd="/")
        if _answers(run, folder, port):
            return run, port
        assert "Address already in use" in (folder / "log").read_text(), (folder / "log").read_text()


def _answers(run: "subprocess.Popen[bytes]", folder: Path, port: int) -> bool:
    """Wait until it answers on its own socket, which is no other server's; return False where it ended."""
    import psycopg

    deadline = time.monotonic() + _START_SECONDS
    while run.poll() is None:
        try:
            psycopg.connect(host=str(folder), port=port, user=_USER, dbname="postgres").close()
        except psycopg.OperationalError:
            assert time.monotonic() < deadline, (folder / "log").read_text()
            time.sleep(0.05)
        else:
            return True
    return False


def _found(name: str) -> str:
    """Return a program of PostgreSQL, of the path or of where Debian puts them."""
    for folder in (None, *sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)):
        if path := shutil.which(name, path=None if folder is None else str(folder)):
            return path
    pytest.skip("no PostgreSQL server is installed (initdb and postgres): these tests need a real one")


@pytest.fixture(scope="session")
def postgres_address() -> Iterator[str]:
    # Not in pytest's folders: only their owner may enter those, and the server is somebody else.
    with tempfile.TemporaryDirectory(prefix="postgres-") as folder, postgres_server(Path(folder)) as address:
        yield address


@pytest.fixture
def postgres_url(postgres_address: str) -> str:
    """The URL of a new database."""
    return new_database(postgres_address)


def new_database(address: str) -> str:
    import psycopg

    name = f"t{uuid4().hex}"
    with psycopg.connect(f"postgresql://{address}/postgres", autocommit=True) as connection:
        connection.execute(f'CREATE DATABASE "{name}"'.encode())
    return f"postgresql+psycopg://{address}/{name}"
