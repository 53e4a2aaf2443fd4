"""The keeper: a small process that runs one nats-server on one store, and ends it after the store's last client.

It is run as a plain script, so that it costs little: `python keeper.py STORE BINARY`. Every client holds a shared
lock on `STORE/clients`; the kernel gives it back however the client dies. The keeper waits for the exclusive lock,
and so for the last client. It is also the server's parent: on Linux the server dies with it, and where the server is
killed, it is started again on the same port.
"""

import ctypes
import fcntl
import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import IO

_PR_SET_PDEATHSIG = 1
_AT_ONCE = 1.0  # seconds within which a server ends that cannot run at all
_DEATHS = 5  # so many of these in a row, and it is given up


def main() -> None:
    """Hold `STORE/server.lock`, run the server, say its URL on stdout, stop it once nobody holds `STORE/clients`."""
    if os.fork():
        os._exit(0)  # the starter need not wait for us: we are nobody's child
    store, binary = Path(sys.argv[1]), sys.argv[2]
    lock = (store / "server.lock").open("w")
    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)  # free: whoever started us holds STORE/starting and saw it so
    for old in store.glob("*.ports"):
        old.unlink()
    keeper = _Keeper(store, binary)
    signal.signal(signal.SIGTERM, lambda *_: keeper.leave())
    signal.signal(signal.SIGCHLD, lambda *_: keeper.look_after())
    keeper.look_after()  # it may have ended before we listened for it
    with (store / "clients").open("w") as clients:
        url = _url(store / f"{Path(binary).name}_{keeper.server.pid}.ports", clients)
        if url is not None:
            keeper.announce(url)
            fcntl.flock(clients, fcntl.LOCK_EX)
        keeper.leave()


class _Keeper:
    """The server of a store: started, started again where it was killed, ended."""

    def __init__(self, store: Path, binary: str) -> None:
        self._store = store
        self._binary = binary
        self._url = ""
        self._deaths = 0
        self.server = self._start()

    def _start(self) -> "subprocess.Popen[bytes]":
        self._began = time.monotonic()
        with (self._store / "server.log").open("ab") as log:
            return subprocess.Popen(
                [self._binary, "-c", str(self._store / "server.conf")],
                stdout=log,
                stderr=log,
                preexec_fn=_die_with_parent,
                # Go lets garbage double the heap by default; a third of that takes several MB less while a crowd
                # of executions begins (benchmarks/waiting.py).
                env={"GOGC": "30", **os.environ},
            )

    def announce(self, url: str) -> None:
        """Say where the server is, and have it listen there whenever it is started again."""
        self._url, port = url, url.rpartition(":")[2]
        config = self._store / "server.conf"
        config.write_text(re.sub(r'(?m)^listen: ".*"', f'listen: "127.0.0.1:{port}"', config.read_text()))
        self._write()
        (self._store / "port").write_text(port)
        sys.stdout.write(url + "\n")
        sys.stdout.close()

    def _write(self) -> None:
        part = self._store / "server.json.part"
        part.write_text(json.dumps({"url": self._url, "pid": self.server.pid, "keeper": os.getpid()}))
        part.rename(self._store / "server.json")

    def look_after(self) -> None:
        """Start a server again that has ended; leave where it never ran, or keeps ending at once."""
        if not _has_ended(self.server.pid):
            return
        self._deaths = self._deaths + 1 if time.monotonic() - self._began < _AT_ONCE else 0
        if not self._url or self._deaths > _DEATHS:
            self.leave()
        self.server.wait()
        self.server = self._start()
        self._write()

    def leave(self) -> None:
        """End the server, wait until its data is on disk, and go; the locks go with this process."""
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        (self._store / "server.json").unlink(missing_ok=True)
        self.server.terminate()
        os._exit(self.server.wait())


def _url(ports: Path, clients: IO[str]) -> str | None:
    """Wait for the file in which the server says which port it chose; return None once the starter has given up."""
    while True:
        try:
            urls: list[str] = json.loads(ports.read_text())["nats"]
            return urls[0]
        except (FileNotFoundError, ValueError):  # not there, or not yet whole
            time.sleep(0.003)
        try:
            fcntl.flock(clients, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            continue
        return None


def _has_ended(pid: int) -> bool:
    """Say whether a child has ended, and was not just stopped; leave it to be waited for."""
    return os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None


def _die_with_parent() -> None:
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)


if __name__ == "__main__":
    main()
