"""How a node actor died, in words, from what Ray tells of it."""

import re

from ray.exceptions import (
    ActorUnavailableError,
    LocalRayletDiedError,
    NodeDiedError,
    OutOfMemoryError,
    RayActorError,
    RayError,
    RuntimeEnvSetupError,
)

from perdure.errors import PerdureError, RuntimeEnvFailed

GONE = (RayActorError, OutOfMemoryError, NodeDiedError, LocalRayletDiedError)
"""What Ray raises for a process that is gone."""

_WHERE = re.compile(r"^\s*(pid|ip): (\S+)$", re.MULTILINE)
_MOST = 600
_CAUSES = [
    (re.compile(r"memory monitor|running low on memory|due to memory pressure|out of memory", re.IGNORECASE), "oom"),
    (re.compile(r"killed by `ray\.kill`"), "it was killed on purpose"),
    (re.compile(r"owner has (died|exited)|owner (worker|process|node)", re.IGNORECASE), "its keeper died"),
    (
        re.compile(r"node (was|is|has) (terminated|dead|died|unhealthy)|node.*died", re.IGNORECASE),
        "its machine is gone",
    ),
    (re.compile(r"INTENDED_(USER|SYSTEM)_EXIT"), "it exited by itself"),
    (
        re.compile(r"connection error code 2|SYSTEM_ERROR"),
        "it crashed, exited by itself, or was killed (by the kernel for its memory perhaps); what it said last is in "
        "Ray's worker log of that process",
    ),
]
_NO_OOM = re.compile(r"Some common causes include.*", re.DOTALL)


def how_it_died(error: RayError) -> str:
    """Return what is known of the end of a process: which one, where, and how, as far as Ray knows."""
    text = str(error)
    where = dict(_WHERE.findall(text))
    who = (
        ("process" if "pid" in where else "its process")
        + (f" {where['pid']}" if "pid" in where else "")
        + (f" on {where['ip']}" if "ip" in where else "")
    )
    return f"{who}: {_cause(error, text)}"


def _cause(error: RayError, text: str) -> str:
    if isinstance(error, ActorUnavailableError):
        return "its machine does not answer"
    told = _NO_OOM.sub("", text)  # Ray lists what may be the cause of any crash
    if isinstance(error, OutOfMemoryError):
        return _oom(text)
    cause = next((words for pattern, words in _CAUSES if pattern.search(told)), None)
    if cause == "oom":
        return _oom(told)
    return cause or " ".join(text.split())[:_MOST]


def _oom(text: str) -> str:
    """Say that it was killed for its memory, with Ray's figures where it has some."""
    used = re.search(r"was ([\d.]+[KMGT]?B) used / ([\d.]+[KMGT]?B) limit", text)
    own = re.findall(r"Selected to kill: .*pid=(\d+), actual memory used=([\d.]+[KMGT]?B)", text)
    figures = [f"{used[1]} of {used[2]} in use"] if used else []
    figures += [f"{own[0][1]} by process {own[0][0]}"] if len(own) == 1 else []
    shown = f" ({', '.join(figures)})" if figures else ""
    mend = "ask for what it needs by 'resources: {memory: BYTES}'"
    return f"Ray killed it because its machine ran out of memory{shown}; {mend}"


def start_failure(error: RayError, place: str) -> PerdureError:
    """Return the error of an attempt whose node actor could not be started."""
    from perdure.actors.work import WorkerLost

    if isinstance(error, RuntimeEnvSetupError):
        lines = [line.strip() for line in (error.error_message or "").splitlines() if line.strip()]
        told = " ".join(lines)
        return RuntimeEnvFailed(f"the runtime environment of {place} could not be made: ...{told[-_MOST:]}")
    if isinstance(error, GONE):
        return WorkerLost(f"{how_it_died(error)}, as it was started")
    return WorkerLost(f"it could not be started: {' '.join(str(error).split())[:_MOST]}")
