"""The registry: what the whole cluster must agree on, in one key-value bucket: definitions by digest, host epochs."""

import re
from collections.abc import Iterator
from contextlib import contextmanager

from nats.aio.client import Client as Nats
from nats.errors import Error as NatsError
from nats.errors import MaxPayloadError
from nats.js.api import KeyValueConfig, StorageType
from nats.js.errors import KeyNotFoundError, NoKeysError, NotFoundError
from nats.js.kv import KeyValue

from perdure.definitions.loading import plan_of
from perdure.definitions.model import Workflow
from perdure.definitions.plan import Plan
from perdure.errors import BadInput, EnvironmentProblem, LogUnavailable

BUCKET = "PERDURE"
_PLANS = 256


class Registry:
    """Definitions are immutable under their digest; an epoch is a number that only ever grows."""

    def __init__(self, bucket: KeyValue) -> None:
        self._bucket = bucket
        self._known: set[str] = set()
        self._plans: dict[str, Plan] = {}

    @classmethod
    async def open(cls, nats: Nats, replicas: int = 1) -> "Registry":
        """Open the bucket, creating it the first time."""
        js = nats.jetstream()
        try:
            return cls(await js.key_value(BUCKET))
        except NotFoundError:
            config = KeyValueConfig(BUCKET, storage=StorageType.FILE, replicas=replicas, direct=True)
            return cls(await js.create_key_value(config))

    async def put_definition(self, digest: str, workflow: Workflow) -> None:
        """Store a definition under its digest, once. Raises BadInput when it is too large for the server."""
        if digest in self._known:
            return
        text = workflow.model_dump_json(by_alias=True, exclude_defaults=True).encode()
        with _answering():
            try:
                await self._bucket.put(_definition_key(digest), text)
            except MaxPayloadError:
                raise BadInput(
                    f"the definition of {workflow.name!r} is {len(text)} bytes, too large to store"
                ) from None
        self._known.add(digest)

    async def definition(self, digest: str) -> str:
        """Return the JSON text of the definition; raises EnvironmentProblem when nobody stored it."""
        with _answering():
            try:
                entry = await self._bucket.get(_definition_key(digest))
            except KeyNotFoundError:
                raise EnvironmentProblem(f"the definition {digest} is not in the registry of this store") from None
        return (entry.value or b"").decode()

    async def has_code(self, digest: str) -> bool:
        """Say whether this process has stored the package."""
        return _code_key(digest) in self._known

    async def put_code(self, digest: str, data: bytes) -> None:
        """Store a package of code under its digest, once."""
        key = _code_key(digest)
        if key in self._known:
            return
        with _answering():
            await self._bucket.put(key, data)
        self._known.add(key)

    async def code(self, digest: str) -> bytes:
        """Return a package of code; raises EnvironmentProblem when nobody stored it."""
        with _answering():
            try:
                entry = await self._bucket.get(_code_key(digest))
            except KeyNotFoundError:
                raise EnvironmentProblem(f"the code package {digest} is not in the registry of this store") from None
        return entry.value or b""

    async def full_digest(self, digest: str) -> str:
        """Return the digest of the one stored definition that begins so. Raises BadInput where it is not just one."""
        digits = digest.removeprefix("sha256:")
        if re.fullmatch(r"[0-9a-f]{64}", digits):
            return digest
        if not re.fullmatch(r"[0-9a-f]{8,63}", digits):
            raise BadInput(f"{digest!r} is no digest: write sha256: and at least its first 8 hex digits")
        with _answering():
            try:
                keys = await self._bucket.keys()
            except NoKeysError:
                keys = []
        found = [key for key in keys if key.startswith(_definition_key(digits))]
        if len(found) != 1:
            raise BadInput(f"the digest {digest} fits {len(found)} definitions of this store; give all of its digits")
        return "sha256:" + found[0].removeprefix(_definition_key(""))

    async def plan(self, digest: str) -> Plan:
        """Return the compiled definition; a process fetches and compiles it once, while it is among the last used."""
        plan = self._plans.pop(digest, None) or plan_of(await self.definition(digest))
        self._plans[digest] = plan  # behind the others: the first one is the one that is used least
        if len(self._plans) > _PLANS:
            del self._plans[next(iter(self._plans))]
        return plan

    async def new_epoch(self, host: str, owner: str) -> int:
        """Record the new owner of a host's lanes; the epoch is higher than that of every owner before."""
        with _answering():
            return await self._bucket.put(f"hosts.{host}", owner.encode())


@contextmanager
def _answering() -> Iterator[None]:
    try:
        yield
    except (NatsError, OSError) as error:
        raise LogUnavailable(f"the registry did not answer: {error or type(error).__name__}") from error


def _code_key(digest: str) -> str:
    return f"code.{digest}"


def _definition_key(digest: str) -> str:
    return f"definitions.{digest.removeprefix('sha256:')}"
