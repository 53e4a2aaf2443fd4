"""The registry: what the whole cluster must agree on, in one key-value bucket: definitions by digest, host epochs."""

import asyncio
import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from nats.aio.client import Client as Nats
from nats.errors import Error as NatsError
from nats.errors import MaxPayloadError
from nats.js.api import KeyValueConfig, StorageType
from nats.js.client import JetStreamContext
from nats.js.errors import KeyNotFoundError, KeyWrongLastSequenceError, NoKeysError, NotFoundError
from nats.js.kv import KeyValue

from perdure.definitions.loading import plan_of
from perdure.definitions.model import Workflow
from perdure.definitions.plan import Plan
from perdure.errors import BadInput, EnvironmentProblem, LogUnavailable, PerdureError
from perdure.events.subjects import PARTITIONS

BUCKET = "PERDURE"
_PARTITIONS = "partitions"
_PLANS = 256


class Changed(PerdureError):
    """Another one changed a record first."""


class Registry:
    """Definitions are immutable under their digest; records change by compare-and-set; epochs only ever grow."""

    def __init__(self, bucket: KeyValue, js: JetStreamContext) -> None:
        self._bucket = bucket
        self._js = js
        self._known: set[str] = set()
        self._plans: dict[str, Plan] = {}
        self._compiling: dict[str, asyncio.Task[Plan]] = {}

    @classmethod
    async def open(cls, nats: Nats, replicas: int = 1) -> "Registry":
        """Open the bucket, creating it the first time. Raises EnvironmentProblem for a store of other partitions."""
        js = nats.jetstream()
        try:
            registry = cls(await js.key_value(BUCKET), js)
        except NotFoundError:
            config = KeyValueConfig(BUCKET, storage=StorageType.FILE, replicas=replicas, direct=True)
            registry = cls(await js.create_key_value(config), js)
        await registry._agree_on_partitions()
        return registry

    async def _agree_on_partitions(self) -> None:
        """Record into how many partitions executions go: with another number nobody would find those of before."""
        found, _ = await self.read(_PARTITIONS)
        if found is None:
            with suppress(Changed):
                await self.swap(_PARTITIONS, b"%d" % PARTITIONS, 0)
        elif int(found) != PARTITIONS:
            raise EnvironmentProblem(
                f"this store has {int(found)} partitions, and this release of perdure {PARTITIONS}: use the release "
                "that made the store, or export its log and import it into a new one"
            )

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
        plan = self._plans.pop(digest, None) or await self._compiled(digest)
        self._plans[digest] = plan  # behind the others: the first one is the one that is used least
        if len(self._plans) > _PLANS:
            del self._plans[next(iter(self._plans))]
        return plan

    async def _compiled(self, digest: str) -> Plan:
        """Fetch and compile once, however many ask at the same moment: after a takeover, hundreds do."""
        if digest not in self._compiling:
            self._compiling[digest] = asyncio.create_task(self._compile(digest))
            self._compiling[digest].add_done_callback(lambda _: self._compiling.pop(digest))
        return await asyncio.shield(self._compiling[digest])

    async def _compile(self, digest: str) -> Plan:
        return plan_of(await self.definition(digest))

    async def new_epoch(self) -> int:
        """Return a number that is higher than every one that was returned before, to whomever."""
        with _answering():
            return await self._bucket.put("epoch", b"")

    async def hosts(self) -> list[str]:
        """Return the names of all hosts that have a record, those of drivers too."""
        return await self.keys_under("hosts")

    async def keys_under(self, root: str) -> list[str]:
        """Return what follows `root.` in the keys that have a record."""
        prefix = f"$KV.{BUCKET}.{root}."
        with _answering():
            info = await self._js.stream_info(f"KV_{BUCKET}", subjects_filter=f"{prefix}>")
        return [subject.removeprefix(prefix) for subject in info.state.subjects or {}]

    async def forget(self, key: str) -> None:
        """Remove what is recorded under a key, for good; nothing there is no error."""
        with _answering():
            await self._js.purge_stream(f"KV_{BUCKET}", subject=f"$KV.{BUCKET}.{key}")

    async def read(self, key: str) -> tuple[bytes | None, int]:
        """Return what is recorded under a key, None where there is nothing, and its revision, as the leader has it."""
        with _answering():
            try:
                found = await self._js.get_last_msg(f"KV_{BUCKET}", f"$KV.{BUCKET}.{key}")
            except NotFoundError:
                return None, 0
        gone = "KV-Operation" in (found.headers or {})
        return (None if gone else found.data or b""), int(found.seq or 0)

    async def swap(self, key: str, value: bytes, revision: int) -> int:
        """Record a value and return its revision; raise Changed where another one was recorded since `revision`."""
        with _answering():
            try:
                return await self._bucket.update(key, value, last=revision)
            except KeyWrongLastSequenceError:
                raise Changed(f"{key} was changed by another one") from None


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
