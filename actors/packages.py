"""Packages: folders and files of a definition as zip files of their own digest, and where they are unpacked."""

import hashlib
import io
import os
import shutil
import stat
import tempfile
import zipfile
from collections.abc import Iterator
from pathlib import Path

from perdure.errors import BadInput

LIMIT = 256 * 1024 * 1024
"""Bytes that a folder may hold."""

_LEFT_OUT = frozenset({"__pycache__", ".git", ".venv", "node_modules", ".mypy_cache", ".pytest_cache", ".perdure"})
_THE_SAME_TIME = (1980, 1, 1, 0, 0, 0)


def digest_of(data: bytes) -> str:
    """Return what names a package: the SHA-256 of its bytes in hex."""
    return hashlib.sha256(data).hexdigest()


def files_in(path: Path) -> list[tuple[str, Path]]:
    """Return the files of a folder, or the one file, by their names in a package, in order.

    Raises BadInput where there are none, or more bytes than LIMIT.
    """
    if not path.exists():
        raise BadInput(f"{path} does not exist")
    if path.is_file():
        return [(path.name, path)]
    found = sorted((each.relative_to(path).as_posix(), each) for each in _walk(path))
    if not found:
        raise BadInput(f"the folder {path} has no files")
    size = sum(each.stat().st_size for _, each in found)
    if size > LIMIT:
        raise BadInput(
            f"the folder {path} holds {size / 2**20:.0f} MB, more than the {LIMIT / 2**20:.0f} MB that are stored; "
            "keep data and models out of it, where the machines of the cluster can read them"
        )
    return found


def signature_of(path: Path) -> tuple[tuple[str, int, int], ...]:
    """Return what changes when a folder or a file does, without reading it."""
    return tuple((name, each.stat().st_mtime_ns, each.stat().st_size) for name, each in files_in(path))


def pack(path: Path, under: str = "") -> bytes:
    """Return a folder or a file as a zip file: the same bytes for the same content. Raises BadInput; see files_in.

    under: a folder in the zip file that it goes to.
    """
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, each in files_in(path):
            info = zipfile.ZipInfo(f"{under}/{name}" if under else name, _THE_SAME_TIME)
            info.compress_type = zipfile.ZIP_DEFLATED
            info.external_attr = (0o755 if each.stat().st_mode & stat.S_IXUSR else 0o644) << 16
            archive.writestr(info, each.read_bytes())
    return packed.getvalue()


def folder_of(digest: str) -> Path:
    """Return where a package is unpacked on this machine, for this user."""
    return Path(tempfile.gettempdir(), f"perdure-code-{os.getuid()}", digest)


def unpack(digest: str, data: bytes) -> Path:
    """Unpack a package, unless it is there already, and return the folder; raise BadInput for altered bytes."""
    folder = folder_of(digest)
    if folder.is_dir():
        return folder
    if digest_of(data) != digest:
        raise BadInput(f"the package {digest} was altered in the store; start the execution anew")
    folder.parent.mkdir(mode=0o700, exist_ok=True)
    if folder.parent.stat().st_uid != os.getuid():
        raise BadInput(f"{folder.parent} belongs to another user; remove it")
    made = Path(tempfile.mkdtemp(dir=folder.parent))
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        for info in archive.infolist():
            target = Path(archive.extract(info, made))
            target.chmod(info.external_attr >> 16 or 0o644)
    try:
        made.rename(folder)
    except OSError:  # another process was faster
        shutil.rmtree(made, ignore_errors=True)
    return folder


def _walk(folder: Path) -> Iterator[Path]:
    for root, folders, names in os.walk(folder):
        folders[:] = [each for each in folders if each not in _LEFT_OUT]
        yield from (Path(root, name) for name in names if not name.endswith(".pyc"))
