"""Checks of a NATS server at connect: everything that would lose data or fail later is said now, with its mend."""

import json
import logging
import re
from collections.abc import Coroutine
from typing import Any, TypeVar

from nats.aio.client import Client as Nats
from nats.errors import Error as NatsError
from nats.errors import TimeoutError as NatsTimeout
from nats.js.api import StreamConfig
from nats.js.errors import APIError, NotFoundError, ServiceUnavailableError

from perdure.errors import EnvironmentProblem

MIN_VERSION = (2, 14)
Result = TypeVar("Result")
SYNC_ALWAYS = "jetstream { sync_interval: always }"

_log = logging.getLogger("perdure.nats")

# What a stream of ours must have exactly as we ask: another value loses entries or breaks an operation.
_MUST_MATCH = (
    "retention", "storage", "max_msgs_per_subject", "allow_direct", "allow_atomic", "allow_msg_schedules", "republish",
)  # fmt: skip
_MUST_BE_UNLIMITED = ("max_msgs", "max_bytes", "max_age", "max_consumers")


def masked(url: str) -> str:
    """Return a URL, or several, without the user and password in it."""
    return re.sub(r"(?<=//)[^/@,]*@", "***@", url)


def check_version(client: Nats, url: str) -> None:
    """Raise EnvironmentProblem when the server is older than MIN_VERSION."""
    version = str(client.connected_server_version)
    numbers = tuple(map(int, re.findall(r"\d+", version)[:2]))
    if numbers < MIN_VERSION:
        wanted = ".".join(map(str, MIN_VERSION))
        raise EnvironmentProblem(f"the NATS server at {masked(url)} is {version}; perdure needs {wanted} or newer")


async def ensure_stream(client: Nats, wanted: StreamConfig) -> None:
    """Create a stream where it is not there; raise EnvironmentProblem where it is there and not as we need it."""
    found = await opened(client, str(wanted.name), _found_or_created(client, wanted))
    problems = differences(found, wanted)
    if problems:
        mend = f"change it with `nats stream edit {wanted.name}`, or move it aside and let perdure create it"
        raise EnvironmentProblem(f"the stream {wanted.name} is not as perdure needs it: {'; '.join(problems)}; {mend}")
    if (found.num_replicas or 1) < (wanted.num_replicas or 1):
        _log.warning(
            "the stream %s has %s replicas and %s are set; change it with `nats stream edit %s --replicas %s`",
            wanted.name, found.num_replicas, wanted.num_replicas, wanted.name, wanted.num_replicas,
        )  # fmt: skip


async def opened(client: Nats, name: str, opening: Coroutine[Any, Any, Result]) -> Result:
    """Wait for a stream or bucket; raise EnvironmentProblem naming what is wrong where it cannot be had."""
    try:
        return await opening
    except ServiceUnavailableError as error:
        if error.err_code is None:  # nobody answered at all
            raise EnvironmentProblem("the NATS server runs without JetStream; start it with -js") from error
        raise EnvironmentProblem(f"{name} cannot be used for now: {error.description}") from error
    except NatsTimeout as error:
        why = reason(client, "no answer; has the NATS cluster a leader?")
        raise EnvironmentProblem(f"{name} cannot be used for now: {why}") from error
    except APIError as error:
        raise EnvironmentProblem(f"{name} cannot be used: {error.description}; see PERDURE_REPLICAS") from error
    except NatsError as error:
        raise EnvironmentProblem(f"{name} cannot be used: {reason(client, str(error))}") from error


async def _found_or_created(client: Nats, wanted: StreamConfig) -> StreamConfig:
    js = client.jetstream()
    try:
        return (await js.stream_info(str(wanted.name))).config
    except NotFoundError:
        return (await js.add_stream(wanted)).config


def differences(found: StreamConfig, wanted: StreamConfig) -> list[str]:
    """Return what of a stream's configuration is not as it must be, one phrase each."""
    problems = [
        f"{field} is {_plain(getattr(found, field))}, and must be {_plain(getattr(wanted, field))}"
        for field in _MUST_MATCH
        if _plain(getattr(found, field)) != _plain(getattr(wanted, field))
        and not (field == "retention" and wanted.retention is None)  # then any will do
    ]
    problems += [
        f"{field} is {getattr(found, field)}, and must be unlimited"
        for field in _MUST_BE_UNLIMITED
        if (getattr(found, field) or 0) > 0
    ]
    missing = set(wanted.subjects or []) - set(found.subjects or [])
    if missing:
        problems.append(f"it does not take the subjects {', '.join(sorted(missing))}")
    return problems


async def check_sync(client: Nats, url: str) -> None:
    """Warn when a server that is not ours may lose acknowledged writes on power loss, or when that cannot be seen."""
    try:
        answer = await client.request("$SYS.REQ.SERVER.PING.JSZ", b'{"config": true}', timeout=1)
        config: dict[str, Any] = json.loads(answer.data)["data"]["config"]
    except (NatsError, KeyError, ValueError):
        _log.warning(
            "cannot see how often the NATS server at %s syncs to disk (that needs its system account). Its default of "
            "2 minutes loses acknowledged writes on power loss: set `%s`, then PERDURE_ASSUME_SYNCED=true",
            masked(url), SYNC_ALWAYS,
        )  # fmt: skip
        return
    if not config.get("sync_always"):
        seconds = config.get("sync_interval", 0) / 1e9
        _log.warning(
            "the NATS server at %s syncs to disk every %g s and loses what came since with its power: set `%s`",
            masked(url), seconds, SYNC_ALWAYS,
        )  # fmt: skip


def reason(client: Nats, said: str) -> str:
    """Return why something failed, with what the server said last: of permissions it only complains aside."""
    last = client.last_error
    return f"{said}; the server said: {last}" if last is not None and str(last) not in said else said


def _plain(value: Any) -> Any:
    """Return a comparable form, in which what is not set is what the server takes it for."""
    if hasattr(value, "src"):
        return f"{value.src} to {value.dest}"
    if value in (None, False, 0, -1):
        return "off"
    return getattr(value, "value", value)
