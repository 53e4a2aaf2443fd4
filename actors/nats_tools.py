"""The tools `nats.publish` and `nats.request`: messages on the NATS that perdure uses, on subjects of the user's."""

import base64
import json
import re
from typing import TYPE_CHECKING, Any

from perdure.actors.context import Context
from perdure.actors.models import Unavailable
from perdure.definitions.builtin_tools import NatsPublish, NatsPublished, NatsReply, NatsRequest
from perdure.definitions.json_values import to_json_value
from perdure.errors import BadInput, EnvironmentProblem

if TYPE_CHECKING:
    from nats.aio.client import Client as Nats
    from nats.aio.msg import Msg

_SUBJECT = re.compile(r"[^\s.*>\x00-\x1f]+(\.[^\s.*>\x00-\x1f]+)*")
_OURS = re.compile(r"(perdure|_inbox|\$[^.]*)(\.|$)", re.IGNORECASE)
_MSG_ID = "Nats-Msg-Id"


async def publish(call: NatsPublish, context: Context) -> NatsPublished:
    """Publish a message; its id is the same for every attempt, so that a stream keeps one of them.

    Raises BadInput, Unavailable, or EnvironmentProblem where there is no connection.
    """
    from nats.errors import Error

    nats, data = _nats(context), _data(call.data)
    headers = {_MSG_ID: context.idempotency_key, **_checked(call.subject, call.headers)}
    try:
        if not call.stream:
            await nats.publish(call.subject, data, headers=headers)
            await nats.flush(max(int(call.timeout), 1))
            return NatsPublished()
        stored = await nats.jetstream().publish(call.subject, data, timeout=call.timeout, headers=headers)
    except Error as error:
        raise _told(call.subject, error, call.timeout) from error
    return NatsPublished(stream=stored.stream, sequence=stored.seq, duplicate=bool(stored.duplicate))


async def request(call: NatsRequest, context: Context) -> NatsReply:
    """Ask on a subject and wait for the first answer.

    Raises BadInput, Unavailable where nobody answers, or EnvironmentProblem where there is no connection.
    """
    from nats.errors import Error

    nats = _nats(context)
    headers = {"Perdure-Idempotency-Key": context.idempotency_key, **_checked(call.subject, call.headers)}
    try:
        answer = await nats.request(call.subject, _data(call.data), timeout=call.timeout, headers=headers)
    except Error as error:
        raise _told(call.subject, error, call.timeout) from error
    return _reply(answer)


def _nats(context: Context) -> "Nats":
    if context.outside.nats is None:
        raise EnvironmentProblem("NATS is reached by the event loop's process only; take 'run_on' and resources out")
    return context.outside.nats


def _checked(subject: str, headers: dict[str, str]) -> dict[str, str]:
    """Return the headers of a message; raise BadInput where it may not be sent."""
    if not _SUBJECT.fullmatch(subject):
        raise BadInput(f"{subject!r} is no subject to send to: words with points between them, without '*' and '>'")
    if _OURS.match(subject):
        raise BadInput(f"the subject {subject!r} is perdure's or the server's own; tools send on others")
    for key, value in headers.items():
        if key.lower().startswith("nats-") or not re.fullmatch(r"[!-9;-~]+", key) or re.search(r"[\r\n]", value):
            raise BadInput(
                f"{key!r} is no header that can be given; its value is one line, and Nats-* are the server's"
            )
    return headers


def _data(data: Any) -> bytes:
    return data.encode() if isinstance(data, str) else json.dumps(data, ensure_ascii=False).encode()


def _reply(answer: "Msg") -> NatsReply:
    reply: dict[str, Any] = {"headers": dict(answer.headers or {})}
    try:
        text = answer.data.decode()
    except UnicodeDecodeError:
        return NatsReply(base64=base64.b64encode(answer.data).decode(), **reply)
    try:
        return NatsReply(json_=to_json_value(json.loads(text)), **reply)
    except (ValueError, RecursionError):
        return NatsReply(text=text, **reply)


def _told(subject: str, error: Exception, seconds: float) -> Exception:
    """Return our error for one of the library's."""
    from nats.errors import MaxPayloadError, NoRespondersError
    from nats.errors import TimeoutError as TimedOut
    from nats.js.errors import NoStreamResponseError

    if isinstance(error, MaxPayloadError):
        return BadInput(f"the message for {subject!r} is larger than the server takes")
    if isinstance(error, NoStreamResponseError):
        return Unavailable(f"no stream takes {subject!r}; add one, or take 'stream' out")
    if isinstance(error, NoRespondersError):
        return Unavailable(f"nobody answers on {subject!r}")
    if isinstance(error, TimedOut):
        return Unavailable(f"there was no answer on {subject!r} within {seconds:g} s")
    return Unavailable(f"NATS: {type(error).__name__}: {error}")
