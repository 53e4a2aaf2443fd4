"""The keeper: a small process that runs one nats-server on one store, and ends it after the store's last client.

It is run as a plain script, so that it costs little: `python keeper.py STORE BINARY`. Every client holds a shared
lock on `STORE/clients`; the kernel gives it back however the client dies. The keeper waits for the exclusive lock,
and so for the last client. It is also the server's parent: on Linux the server dies with it.
"""

import ctypes
import fcntl
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import IO

_PR_SET_PDEATHSIG = 1


def main() -> None:
    """Hold `STORE/server.lock`, run the server, say its URL on stdout, stop it once nobody holds `STORE/clients`."""
    if os.fork():
        os._exit(0)  # the starter need not wait for us: we are nobody's child
    store, binary = Path(sys.argv[1]), sys.argv[2]
    lock = (store / "server.lock").open("w")
    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)  # free: whoever started us holds STORE/starting and saw it so
    for old in store.glob("*.ports"):
        old.unlink()
    with (store / "server.log").open("ab") as log:
        server = subprocess.Popen(
            [binary, "-c", str(store / "server.conf")], stdout=log, stderr=log, preexec_fn=_die_with_parent
        )
    signal.signal(signal.SIGTERM, lambda *_: server.terminate())
    signal.signal(signal.SIGCHLD, lambda *_: _leave(store, server) if _has_ended(server.pid) else None)
    if _has_ended(server.pid):  # before we listened for it
        _leave(store, server)
    with (store / "clients").open("w") as clients:
        url = _url(store / f"{Path(binary).name}_{server.pid}.ports", clients)
        if url is not None:
            _announce(store, url, server.pid)
            fcntl.flock(clients, fcntl.LOCK_EX)
        _leave(store, server)


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


def _announce(store: Path, url: str, pid: int) -> None:
    part = store / "server.json.part"
    part.write_text(json.dumps({"url": url, "pid": pid, "keeper": os.getpid()}))
    part.rename(store / "server.json")
    (store / "port").write_text(url.rpartition(":")[2])
    sys.stdout.write(url + "\n")
    sys.stdout.close()


def _leave(store: Path, server: "subprocess.Popen[bytes]") -> None:
    """End the server, wait until its data is on disk, and go; the locks go with this process."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    (store / "server.json").unlink(missing_ok=True)
    server.terminate()
    os._exit(server.wait())


def _has_ended(pid: int) -> bool:
    """Say whether a child has ended, and was not just stopped; leave it to be waited for."""
    return os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None


def _die_with_parent() -> None:
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)


if __name__ == "__main__":
    main()
