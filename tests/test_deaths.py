"""How a node actor died: what a person reads of it, from the words of Ray."""

import pytest
from ray.exceptions import ActorUnavailableError, OutOfMemoryError, RayActorError, RayError, RuntimeEnvSetupError

from perdure.actors.deaths import how_it_died, start_failure
from perdure.actors.work import WorkerLost
from perdure.errors import RuntimeEnvFailed

WHO = "The actor died unexpectedly before finishing this task.\n\tclass_name: NodeActor\n\tpid: 4711\n\tip: 10.0.0.7\n"
ANY_CRASH = (
    "The actor is dead because its worker process has died. Worker exit type: SYSTEM_ERROR Worker exit detail: Worker "
    "unexpectedly exits with a connection error code 2. End of file. Some common causes include: (1) the process was "
    "killed by the OOM killer due to high memory usage, (2) ray stop --force was called, or (3) the worker crashed."
)
PRESSURE = (
    "1 worker(s) were killed due to the node running low on memory. Memory on the node (IP: 10.0.0.7, ID: ab) was "
    "7.12GB used / 7.50GB limit (0.950000)\nSelected to kill: (Actor class=NodeActor, pid=4711, actual memory "
    "used=6.01GB)\nRefer to the documentation on how to address the out of memory issue"
)
FULL = (
    "Ray killed it because its machine ran out of memory (7.12GB of 7.50GB in use, 6.01GB by process 4711); ask for "
    "what it needs by 'resources: {memory: BYTES}'"
)


def died(words: str) -> RayActorError:
    return RayActorError(error_msg=words)


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (OutOfMemoryError(PRESSURE), f"its process: {FULL}"),  # type: ignore[no-untyped-call]
        (died(WHO + PRESSURE), f"process 4711 on 10.0.0.7: {FULL}"),
        (died(WHO + ANY_CRASH), "process 4711 on 10.0.0.7: it crashed, exited by itself, or was killed (by the kernel"),
        (died(WHO + "The actor is dead because its node has died."), "process 4711 on 10.0.0.7: its machine is gone"),
        (died(WHO + "The actor is dead because its owner has died."), "process 4711 on 10.0.0.7: its keeper died"),
        (died("The actor is dead because it was killed by `ray.kill`."), "its process: it was killed on purpose"),
        (ActorUnavailableError("The actor ab is unavailable", None), "its process: its machine does not answer"),
        (died("something that no release of Ray said so far"), "its process: something that no release of Ray said"),
    ],
)
def test_what_ray_tells_of_a_process_that_is_gone_is_said_in_few_words(error: RayError, told: str) -> None:
    assert how_it_died(error).startswith(told)


def test_one_that_could_not_start_is_an_error_of_its_environment_or_a_lost_worker() -> None:
    failed = start_failure(
        RuntimeEnvSetupError("Failed to install pip packages\n  no matching distribution: nump"), "t"
    )
    assert isinstance(failed, RuntimeEnvFailed)
    assert str(failed).endswith(
        "of t could not be made: ...Failed to install pip packages no matching distribution: nump"
    )
    lost = start_failure(died(WHO + PRESSURE), "t")
    assert isinstance(lost, WorkerLost)
    assert str(lost) == f"process 4711 on 10.0.0.7: {FULL}, as it was started"
    assert isinstance(start_failure(RayError("no such label"), "t"), WorkerLost)
