"""A nats-server of a test's own, to be killed and started again on the same store and port."""

import os
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import Self

from perdure.cluster.nats_server import _binary

_START_SECONDS = 20.0
_CONFIG = """\
server_name: {name}
listen: "127.0.0.1:{port}"
pid_file: "{folder}/pid"
jetstream {{ store_dir: "{folder}/jetstream", sync_interval: {sync} }}
"""
_CLUSTER = """\
cluster {{ name: perdure, listen: "127.0.0.1:{port}", routes: [{routes}] }}
"""


def free_ports(count: int) -> list[int]:
    """Return ports of the loopback that nobody listens on now."""
    with ExitStack() as stack:
        sockets = [stack.enter_context(closing(socket.socket())) for _ in range(count)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]


class NatsProcess:
    """One server: its configuration, and the process while it runs. `trace` is a command to run it under."""

    def __init__(
        self, folder: Path, name: str = "perdure", cluster: str = "", trace: tuple[str, ...] = (), sync: str = "always"
    ) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        (port,) = free_ports(1)
        self.folder = folder
        self.name = name
        self.url = f"nats://127.0.0.1:{port}"
        self._address = ("127.0.0.1", port)
        self._config = folder / "server.conf"
        self._config.write_text(_CONFIG.format(name=name, port=port, folder=folder, sync=sync) + cluster)
        self._command = [*trace, str(_binary(None)), "-c", str(self._config)]
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> Self:
        """Start it; whoever needs it to answer waits with `wait_until_it_listens`, or lets a client reconnect."""
        assert self._process is None
        (self.folder / "pid").unlink(missing_ok=True)
        with (self.folder / "log").open("ab") as log:
            self._process = subprocess.Popen(self._command, stdout=log, stderr=log)
        return self

    def wait_until_it_listens(self) -> None:
        deadline = time.monotonic() + _START_SECONDS
        while True:
            with closing(socket.socket()) as probe:
                if probe.connect_ex(self._address) == 0:
                    return
            assert self._process is not None
            assert self._process.poll() is None, (self.folder / "log").read_text()[-2000:]
            assert time.monotonic() < deadline, f"{self.name} does not listen"
            time.sleep(0.005)

    def kill(self, number: signal.Signals = signal.SIGKILL) -> None:
        """End the server, by default as `kill -9` does; under a tracer the server, and with it the tracer."""
        if self._process is None:
            return
        traced = self._command[0] == "strace" and (self.folder / "pid").exists()
        os.kill(int((self.folder / "pid").read_text()) if traced else self._process.pid, number)
        self._process.wait(_START_SECONDS)
        self._process = None


@contextmanager
def nats_process(folder: Path, trace: tuple[str, ...] = (), sync: str = "always") -> Iterator[NatsProcess]:
    """Run one server that listens."""
    server = NatsProcess(folder, trace=trace, sync=sync).start()
    try:
        server.wait_until_it_listens()
        yield server
    finally:
        server.kill()


@contextmanager
def nats_cluster(folder: Path, size: int = 3) -> Iterator[list[NatsProcess]]:
    """Run a cluster of servers that listen; whether it has leaders already, the streams will tell."""
    ports = free_ports(size)
    routes = ", ".join(f'"nats://127.0.0.1:{port}"' for port in ports)
    servers = [
        NatsProcess(folder / f"n{number}", f"n{number}", _CLUSTER.format(port=port, routes=routes))
        for number, port in enumerate(ports)
    ]
    try:
        for server in servers:
            server.start()
        for server in servers:
            server.wait_until_it_listens()
        yield servers
    finally:
        for server in servers:
            server.kill()
