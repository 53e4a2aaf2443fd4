"""What a power cut would leave of a server's files, from a record of its system calls made by strace.

The model is a journalling file system (ext4, xfs, btrfs). The data of a file is safe once an fsync of it, begun after
the write had ended, has ended; a file opened with O_SYNC has that with every write. Names (created, renamed and
removed files and folders) are kept in order, and every sync of any file commits those before it: POSIX alone would ask
for an fsync of each folder too, and nats-server does not do that for a new block of messages. What was not synced may
be lost or kept by chance, write by write and in any choice, and names up to any point; a write itself is not torn.
"""

import random
import re
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

_CALLS = (
    "openat,write,pwrite64,writev,fsync,fdatasync,sync_file_range,rename,renameat,renameat2,unlink,unlinkat,mkdirat,"
    "ftruncate,truncate"
)
_LINE = re.compile(r"^(\d+) +(?:<\.\.\. (\w+) resumed>|(\w+)\()(.*)$")
_BYTES = r'"((?:\\x[0-9a-f]{2})*)"'
_PATHS = re.compile(rf"(\d+|AT_FDCWD)<((?:\\x[0-9a-f]{{2}})*)>(?:\(deleted\))?(?:, {_BYTES})?")
_ACK = re.compile(rb'\{"stream":"(\w+)",[^}]*"seq":(\d+)(?:[^}]*"count":(\d+))?[^}]*\}')


@cache
def why_strace_cannot_run() -> str | None:
    """Return why no system call can be recorded here, or None."""
    if shutil.which("strace") is None:
        return "strace is not installed (apt-get install strace)"
    probe = subprocess.run(["strace", "-f", "-qq", "-o", "/dev/null", "true"], capture_output=True, text=True)
    return f"strace cannot trace here: {probe.stderr.strip()}" if probe.returncode else None


def tracer(record: Path) -> tuple[str, ...]:
    """Return the command under which a server's system calls are recorded."""
    return ("strace", "-f", "-y", "-xx", "-qq", "-s", "100000000", "-o", str(record), "-e", f"trace={_CALLS}")


@dataclass
class Call:
    """A system call as it was recorded: where it began and ended among all, and what it did."""

    name: str
    text: str
    began: int
    ended: int

    @property
    def result(self) -> int:
        return int(self.text.rpartition(" = ")[2].split("<")[0].split(" ")[0])

    @property
    def paths(self) -> list[str]:
        """The files that it names: a descriptor's, or that of a name beside its folder's descriptor."""
        found = []
        for _, folder, file in _PATHS.findall(self.text):
            within = self.name in ("openat", "unlinkat", "mkdirat", "renameat", "renameat2")
            found.append(str(Path(_text(folder)) / _text(file)) if within else _text(folder))
        return found

    @property
    def data(self) -> bytes:
        return b"".join(_bytes(part) for part in re.findall(_BYTES, self.text))

    @property
    def number(self) -> int:
        """The last argument: an offset or a length."""
        return int(self.text.rpartition(")")[0].rpartition(", ")[2])


def calls(record: Path) -> Iterator[Call]:
    """Yield the calls that succeeded, in the order in which they ended."""
    begun: dict[str, tuple[int, str, str]] = {}
    with record.open() as lines:
        for number, line in enumerate(lines):
            found = _LINE.match(line)
            if found is None:  # a signal
                continue
            process, resumed, name, rest = found.groups()
            if rest.endswith("<unfinished ...>"):
                begun[process] = (number, name, rest.removesuffix("<unfinished ...>"))
                continue
            began, name, text = begun.pop(process) if resumed else (number, name, "")
            call = Call(name, text + rest, began, number)
            if " = ?" not in rest and call.result >= 0:
                yield call


@dataclass
class Ack:
    """An acknowledgement as it left the server: where it began, and the sequences that it covers."""

    began: int
    first: int
    last: int


def acks(record: Path, stream: str) -> list[Ack]:
    found = []
    for call in calls(record):
        if call.name in ("write", "writev") and call.paths[0].startswith("socket:"):
            for name, last, count in _ACK.findall(call.data):
                if name.decode() == stream:
                    found.append(Ack(call.began, int(last) - int(count or 1) + 1, int(last)))
    return sorted(found, key=lambda ack: ack.began)


@dataclass
class _File:
    synced: bytes = b""
    writes: list[tuple[int, bytes | None]] = field(default_factory=list)  # of which no sync is known; None: cut here
    ends: list[int] = field(default_factory=list)

    def sync(self, began: int) -> None:
        """Keep what was written before a sync began."""
        safe = sum(ended < began for ended in self.ends)
        self.synced = _written(self.synced, self.writes[:safe])
        del self.writes[:safe], self.ends[:safe]

    def left(self, chance: random.Random, kept: float) -> bytes:
        return _written(self.synced, [write for write in self.writes if chance.random() < kept])


Names = dict[str, _File | None]
"""Every file by its path; None for a folder."""


class Disk:
    """The files below a folder, as `calls` change them, and as a power cut would leave them."""

    def __init__(self, root: Path) -> None:
        self._root = f"{root}/"
        self._names: Names = {}
        self._journal: list[Names] = [{}]  # the names that a cut may leave, the surest first
        self._synchronous: set[str] = set()
        self.syncs: list[tuple[int, str]] = []

    def apply(self, call: Call) -> None:
        paths = [path for path in call.paths if path.startswith(self._root)]
        if not paths:
            return
        path = paths[0]
        file = self._names.get(path)
        if call.name == "openat" and "O_CREAT" in call.text:
            self._open(path, call)
        elif call.name in ("write", "pwrite64") and file is not None:
            self._write(path, file, call)
        elif call.name in ("ftruncate", "truncate") and file is not None:
            file.writes.append((call.number, None))
            file.ends.append(call.ended)
        elif call.name in ("fsync", "fdatasync"):
            self._sync(path, call.began)
        elif call.name == "mkdirat":
            self._change({**self._names, path: None})
        elif call.name == "unlinkat":
            self._change({name: each for name, each in self._names.items() if name != path})
        elif call.name in ("rename", "renameat", "renameat2"):
            old, new = paths
            self._change(
                {
                    new + name.removeprefix(old) if name == old or name.startswith(f"{old}/") else name: each
                    for name, each in self._names.items()
                    if name != new
                }
            )
        elif call.name != "openat":
            raise NotImplementedError(call.name)

    def _open(self, path: str, call: Call) -> None:
        if path not in self._names:
            self._change({**self._names, path: _File()})
        file = self._names[path]
        assert file is not None
        if "O_TRUNC" in call.text and (file.synced or file.writes):
            file.writes.append((0, None))
            file.ends.append(call.ended)
        (self._synchronous.add if "O_SYNC" in call.text or "O_DSYNC" in call.text else self._synchronous.discard)(path)

    def _write(self, path: str, file: _File, call: Call) -> None:
        # A plain write goes on where the one before ended: what uses it here writes whole files.
        offset = call.number if call.name == "pwrite64" else len(_written(file.synced, file.writes))
        file.writes.append((offset, call.data[: call.result]))
        file.ends.append(call.ended)
        if path in self._synchronous:
            self._sync(path, call.ended + 1)

    def _sync(self, path: str, began: int) -> None:
        self.syncs.append((began, path))
        file = self._names.get(path)
        if file is not None:
            file.sync(began)
        self._journal = [self._names]

    def _change(self, names: Names) -> None:
        self._names = names
        self._journal.append(names)

    def left(self, target: Path, chance: random.Random, kept: float) -> None:
        """Write what a cut leaves below `target`; each unsynced write is kept with the probability `kept`."""
        names = chance.choice(self._journal) if kept else self._journal[0]
        target.mkdir(parents=True, exist_ok=True)
        for name, file in names.items():
            place = target / name.removeprefix(self._root)
            place.parent.mkdir(parents=True, exist_ok=True)
            if file is None:
                place.mkdir(exist_ok=True)
            else:
                place.write_bytes(file.left(chance, kept))


def disk_at(record: Path, root: Path, end: int) -> Disk:
    """Return the disk as it was when the recorded line `end` began."""
    disk = Disk(root)
    for call in calls(record):
        if call.ended < end:
            disk.apply(call)
    return disk


def _written(data: bytes, writes: list[tuple[int, bytes | None]]) -> bytes:
    result = bytearray(data)
    for offset, each in writes:
        if each is None:
            del result[offset:]
        result.extend(bytes(max(0, offset - len(result))))
        if each is not None:
            result[offset : offset + len(each)] = each
    return bytes(result)


def _bytes(text: str) -> bytes:
    return bytes.fromhex(text.replace("\\x", ""))


def _text(text: str) -> str:
    return _bytes(text).decode()
