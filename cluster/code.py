"""Code of definitions in the store: tool files and folders go along with a start, and are brought where they run."""

import asyncio
import io
import os
from collections.abc import Mapping
from pathlib import Path

from perdure.actors import tools
from perdure.actors.demands import CODE
from perdure.actors.packages import digest_of, folder_of, pack, signature_of, unpack
from perdure.cluster.connection import Connection
from perdure.definitions.loading import Definition
from perdure.definitions.placement import runtime_envs
from perdure.errors import BadInput
from perdure.events.blobs import JetStreamBlobs
from perdure.events.entry import Blob

_SMALL = 256 * 1024
"""Bytes of a package up to which the registry takes it; larger ones go to an object store of their own."""
_BUCKET = "PERDURE_CODE"

_packed: dict[tuple[Path, str], tuple[tuple[tuple[str, int, int], ...], str]] = {}


class CodeStore:
    """Packages under their digests, for as long as the store is there."""

    def __init__(self, connection: Connection, replicas: int) -> None:
        self._registry = connection.registry
        self._large = JetStreamBlobs(connection.nats, replicas, _BUCKET)

    async def put(self, data: bytes) -> str:
        """Store a package, once, and return its digest."""
        digest = digest_of(data)
        if len(data) <= _SMALL:
            await self._registry.put_code(digest, data)
        else:
            await self._large.put(digest, data)
            await self._registry.put_code(digest, str(len(data)).encode())
        return digest

    async def get(self, digest: str) -> bytes:
        """Return a package; raise EnvironmentProblem where nobody stored it."""
        data = await self._registry.code(digest)
        if not data.isdigit():  # a package begins with PK
            return data
        found = io.BytesIO()
        await self._large.read(Blob("", digest, int(data), digest), found)
        return found.getvalue()


async def shipped(code: CodeStore, definition: Definition, places: Mapping[str, str]) -> dict[str, str]:
    """Return the places of tools with those of the code that goes along, which is stored now if it is new.

    Raises BadInput that names the place of a folder which cannot be packed.
    """
    found = dict(places)
    for file in {place.rpartition(":")[0] for place in places.values()}:
        if file.endswith(".py"):
            found[file] = CODE + await _stored(code, Path(file))
    base = Path(definition.base or ".")
    for env, at in runtime_envs(definition.workflow):
        folders = [(env.working_dir, "working_dir"), *((each, "py_modules") for each in env.py_modules)]
        for written, key in folders:
            if written is None:
                continue
            path = (base / written).resolve()
            try:
                digest = await _stored(code, path, path.name if key == "py_modules" and path.is_dir() else "")
            except BadInput as error:
                raise BadInput(f"{'.'.join(map(str, at))}.{key}: {error}") from None
            found[f"{key}:{written}"] = CODE + digest
    return found


async def bring(code: CodeStore, places: Mapping[str, str]) -> None:
    """Bring the tool files that are not on this machine to it."""
    for path, place in places.items():
        if place.startswith(CODE) and path.endswith(".py") and not _is_here(path):
            digest = place.removeprefix(CODE)
            folder = folder_of(digest)
            if not folder.is_dir():
                folder = await asyncio.to_thread(unpack, digest, await code.get(digest))
            tools.moved(path, str(folder / os.path.basename(path)))  # noqa: PTH119 (a path of another machine)


def _is_here(path: str) -> bool:
    return os.path.isfile(path)  # noqa: PTH113 (often, and quicker)


async def _stored(code: CodeStore, path: Path, under: str = "") -> str:
    signature = signature_of(path) if _is_here(str(path)) else await asyncio.to_thread(signature_of, path)
    known = _packed.get((path, under))
    if known is not None and known[0] == signature:
        data = None if await code._registry.has_code(known[1]) else await asyncio.to_thread(pack, path, under)
    else:
        data = await asyncio.to_thread(pack, path, under)
    if data is None:
        assert known is not None  # noqa: S101 (as just seen)
        return known[1]
    digest = await code.put(data)
    _packed[path, under] = (signature, digest)
    return digest
