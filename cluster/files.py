"""Files that agents are shown: kept by their digest beside the log, and named in inputs by a small reference."""

import asyncio
import hashlib
import io
import mimetypes
from pathlib import Path
from typing import Any

from nats.aio.client import Client as Nats

from perdure.errors import BadInput
from perdure.events.blobs import JetStreamBlobs
from perdure.events.entry import Blob

_BUCKET = "PERDURE_FILES"


class Files:
    """The uploaded files of a store."""

    def __init__(self, nats: Nats, replicas: int = 1) -> None:
        self._blobs = JetStreamBlobs(nats, replicas, _BUCKET)

    async def put(self, data: bytes, name: str = "file", media_type: str | None = None) -> dict[str, Any]:
        """Keep a file and return the reference to it: JSON data for an agent's `files`."""
        digest = hashlib.sha256(data).hexdigest()
        await self._blobs.put(digest, data)
        kind = media_type or mimetypes.guess_type(name)[0] or "application/octet-stream"
        return {"file": digest, "name": name, "media_type": kind, "size": len(data)}

    async def put_file(self, path: Path, media_type: str | None = None) -> dict[str, Any]:
        """Keep a file of this machine. Raises BadInput where it cannot be read."""
        try:
            data = await asyncio.to_thread(path.read_bytes)
        except OSError as error:
            raise BadInput(f"{path} cannot be uploaded: {error.strerror or error}") from None
        return await self.put(data, path.name, media_type)

    async def get(self, digest: str) -> bytes:
        """Return a file's bytes. Raises CorruptBlob where it is not there, or altered."""
        into = io.BytesIO()
        await self._blobs.read(Blob("", digest, 0, digest), into)
        return into.getvalue()

    async def delete(self, digest: str) -> None:
        """Remove a file; none is no error."""
        await self._blobs.delete([digest])
