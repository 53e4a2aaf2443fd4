"""A Ray cluster of two nodes on one machine, and a NATS server that it was given: a node is lost, others take over."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from nats_process import NatsProcess
from ray.cluster_utils import Cluster
from test_up import Up, parent_of, until

from perdure import Settings
from perdure.events.vocabulary import NodeResumed, NodeSucceeded

pytestmark = pytest.mark.timeout(180)


class Given(Up):
    """A cluster on a Ray and a server that were there before; its client reaches only the server."""

    def __init__(self, folder: Path, ray: Cluster, nats: NatsProcess) -> None:
        super().__init__(folder)
        self.settings = Settings(store=self.store, nats_url=nats.url, assume_synced=True)
        self.environment |= {"PERDURE_NATS_URL": nats.url, "PERDURE_ASSUME_SYNCED": "true"}
        self.outside = dict(self.environment)
        self.environment |= {"RAY_ADDRESS": ray.address}


@pytest.fixture
def ray_cluster(monkeypatch: pytest.MonkeyPatch) -> Iterator[Cluster]:
    monkeypatch.delenv("RAY_AUTH_MODE", raising=False)  # a Ray that this process started before has set it
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    yield cluster
    cluster.shutdown()  # type: ignore[no-untyped-call]


@pytest.fixture
def given(ray_cluster: Cluster, tmp_path: Path) -> Iterator[Given]:
    nats = NatsProcess(tmp_path / "nats").start()
    nats.wait_until_it_listens()
    yield Given(tmp_path, ray_cluster, nats)
    nats.kill()


def raylet_of(node: Any) -> int:
    return int(node.all_processes["raylet"][0].process.pid)


def hosts_on(given: Given, node: Any) -> list[dict[str, Any]]:
    return [host for host in given.status()["hosts"] if "pid" in host and parent_of(host["pid"]) == raylet_of(node)]


def test_when_a_node_is_lost_the_others_take_its_executions_over(ray_cluster: Cluster, given: Given) -> None:
    second = ray_cluster.add_node(num_cpus=1)
    given.perdure("up", "--hosts", "3", "--detach")  # four processes, two on each node, and one of them stands by
    try:
        with given.client() as client:
            keys = [f"k{number}" for number in range(40)]
            runs = client.start_many(given.workflow("on_loop", "gate"), keys)
            until(lambda: all(given.effects()[f"begin {key}-first"] for key in keys))
            until(lambda: sum(host["active"] for host in hosts_on(given, second)) > 0)
            lost = [raylet_of(second), *(host["pid"] for host in hosts_on(given, second))]
            for pid in lost:  # as when the machine's plug is pulled
                os.kill(pid, signal.SIGKILL)
            (given.folder / "gate").touch()
            assert [run.result(timeout=100) for run in runs] == [{"second": f"{key}-second"} for key in keys]
            for run in runs:
                events = [each.event for each in run.events()]
                succeeded = [event.node for event in events if isinstance(event, NodeSucceeded)]
                assert sorted(succeeded) == ["first", "second"]
            assert any(isinstance(each.event, NodeResumed) for run in runs for each in run.events())
        until(lambda: {host["state"] for host in given.status()["hosts"]} == {"serving"})
    finally:
        given.perdure("down")


DRIVER = """\
import sys, perdure
with perdure.connect() as client:
    run = client.start({"name": "x", "nodes": {"a": {"set": "${{ input }}"}}}, 7)
    print(run.result(30), "ray" in sys.modules)
"""


def test_a_driver_that_reaches_only_nats_drives_executions_on_a_cluster_without_ray(given: Given) -> None:
    given.perdure("up", "--hosts", "1", "--detach")
    try:
        driven = subprocess.run(
            [sys.executable, "-c", DRIVER], env=given.outside, capture_output=True, text=True, timeout=60
        )
        assert driven.stdout == "{'a': 7} False\n", driven.stderr
    finally:
        given.perdure("down")


@pytest.mark.parametrize("words", [["up"], ["run", "x.yaml"]])
def test_an_embedded_server_is_refused_to_a_ray_cluster_that_could_not_reach_it(
    tmp_path: Path, words: list[str]
) -> None:
    up = Up(tmp_path)
    (tmp_path / "x.yaml").write_text("name: x\nnodes: {a: {set: 1}}\n")
    words = [str(tmp_path / word) if word.endswith("yaml") else word for word in words]
    up.environment |= {"RAY_ADDRESS": "127.0.0.1:6379"}
    said = up.perdure(*words, code=3).stderr
    assert "a running Ray cluster cannot reach an embedded NATS server; set PERDURE_NATS_URL" in said
    assert not (up.store / "server.json").exists()
