"""The processes below one: who they are, what they have used, and how all of them are ended (Linux)."""

import contextlib
import ctypes
import os
import signal
import time
from collections import defaultdict
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import NamedTuple

_TICK, _PAGE = os.sysconf("SC_CLK_TCK"), os.sysconf("SC_PAGE_SIZE")
_PR_SET_CHILD_SUBREAPER = 36


class Process(NamedTuple):
    """What the kernel says of a process: seconds of CPU so far, bytes of resident memory."""

    pid: int
    parent: int
    state: str
    cpu: float
    rss: int


def processes() -> Iterator[Process]:
    for folder in os.listdir("/proc"):  # noqa: PTH208 (five times a second)
        if folder.isdigit():
            with contextlib.suppress(OSError):  # it ended just now
                yield stat(int(folder))


def stat(pid: int) -> Process:
    """Return what is known of one process; raise OSError where there is none."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return Process(pid, int(fields[1]), fields[0], (int(fields[11]) + int(fields[12])) / _TICK, int(fields[21]) * _PAGE)


def tree(root: int, without: Collection[int] = ()) -> list[Process]:
    """Return a process and all below it, without some and what is below those."""
    children, found = defaultdict(list), {}
    for each in processes():
        children[each.parent].append(each.pid)
        found[each.pid] = each
    below, ahead = [], [root]
    while ahead:
        pid = ahead.pop()
        if pid in found and pid not in without:
            below.append(found[pid])
            ahead += children[pid]
    return below


def is_gone(pid: int) -> bool:
    """Say whether a process has ended, be it waited for or not."""
    try:
        return stat(pid).state in "ZX"
    except OSError:
        return True


def adopt_orphans() -> None:
    """Become the parent of all orphans below: servers and clusters that detach themselves stay in our tree."""
    if ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1):
        raise OSError("the kernel does not let this process adopt orphans")


def end_all_below() -> None:
    """SIGKILL every process below this one, and no other, until none is left."""
    for _ in range(50):
        left = [each.pid for each in tree(os.getpid()) if each.pid != os.getpid()]
        for pid in left:
            with contextlib.suppress(OSError):
                os.kill(pid, signal.SIGKILL)
                os.waitpid(pid, 0)
        if not left:
            return
        time.sleep(0.02)
    raise RuntimeError(f"processes that do not end: {left}")


def pss(*pids: int) -> int:
    """Return the proportional share of memory that these processes have, in bytes."""
    return sum(_rollup(pid, "Pss:") for pid in pids)


def anonymous(*pids: int) -> int:
    """Return that part of it that is of no file, in bytes: other processes that come and go change nothing in it."""
    return sum(_rollup(pid, "Pss_Anon:") for pid in pids)


def _rollup(pid: int, of: str) -> int:
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    except (FileNotFoundError, ProcessLookupError):  # Ray ends idle processes when it likes
        return 0
    return sum(int(line.split()[1]) for line in lines if line.startswith(of)) * 1024
