"""A PostgreSQL server for the tests: on loopback, on a free port, in a folder of its own, synced to nothing."""

import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

SUPERUSER = "perdure"


def _programs() -> tuple[str, str] | None:
    """Return initdb and postgres, of the path or of where Debian puts them; None where there is no server."""
    folders = [None, *sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)]
    for folder in folders:
        found = [shutil.which(name, path=None if folder is None else str(folder)) for name in ("initdb", "postgres")]
        if found[0] and found[1]:
            return found[0], found[1]
    return None


def _user() -> str | None:
    """Return the user to run as: postgres refuses to run as root."""
    if os.geteuid():
        return None
    names = {each.pw_name for each in pwd.getpwall()}
    return "postgres" if "postgres" in names else "nobody"


@contextmanager
def postgres_server() -> Iterator[str]:
    """Run a server; give the SQLAlchemy URL of its database, for a superuser without a password."""
    programs = _programs()
    if programs is None:
        pytest.skip("no PostgreSQL server is installed (initdb and postgres): these tests need a real one")
    initdb, postgres = programs
    user, folder = _user(), Path(tempfile.mkdtemp(prefix="perdure-postgres-"))
    if user is not None:
        shutil.chown(folder, user)
    data, log = folder / "data", folder / "log"
    try:
        made = subprocess.run(
            [initdb, "-D", data, "-U", SUPERUSER, "-A", "trust", "-E", "UTF8", "--no-sync", "--locale=C"],
            user=user, cwd=folder, capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert made.returncode == 0, made.stderr
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        options = {"fsync": "off", "listen_addresses": "127.0.0.1", "unix_socket_directories": "", "port": str(port)}
        given = [word for key, value in options.items() for word in ("-c", f"{key}={value}")]
        with log.open("w") as out:
            process = subprocess.Popen([postgres, "-D", data, *given], user=user, cwd=folder, stdout=out, stderr=out)
        try:
            _wait_for(port, process, log)
            yield f"postgresql+psycopg://{SUPERUSER}@127.0.0.1:{port}/postgres"
        finally:
            process.send_signal(signal.SIGINT)  # fast shutdown: it breaks off what still is connected
            process.wait(20)
    finally:
        shutil.rmtree(folder)


def _wait_for(port: int, process: subprocess.Popen[bytes], log: Path) -> None:
    """Wait until the server takes queries."""
    import psycopg

    for _ in range(2000):
        assert process.poll() is None, log.read_text()
        try:
            psycopg.connect(host="127.0.0.1", port=port, user=SUPERUSER, dbname="postgres").close()
        except psycopg.OperationalError:
            try:
                process.wait(0.01)
            except subprocess.TimeoutExpired:
                continue
        else:
            return
    raise AssertionError(f"PostgreSQL did not start: {log.read_text()}")
