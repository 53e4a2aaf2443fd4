"""What endpoints answer, whatever they put into it: text, calls, refusals and counts of tokens, each made sure of."""

import json
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from perdure.actors.models import Asked, RateLimited, Refused, ReplyTooLarge, Unavailable
from perdure.actors.replies import AskedFor
from perdure.actors.transcripts import Said
from perdure.errors import PerdureError

File = Callable[[Mapping[str, Any]], Awaitable[str]]
"""Gives the URL, or data URL, of a file."""

_MOST_TOKENS = 10**9  # of one request; more is no count


def text_of(content: Any) -> str:
    """Return the text of a reply, which some servers give as a list of parts; raise TypeError where it is none."""
    if isinstance(content, list):
        return "".join(text_of(part.get("text")) for part in content if part.get("type") == "text")
    if content is not None and not isinstance(content, str):
        raise TypeError(f"its text is {content!r}")
    return content or ""


def call_of(number: int, id: Any, name: Any, arguments: Any) -> AskedFor:  # noqa: A002 (the protocol's word)
    """Return a call of a reply; raise TypeError where it names no tool. Some servers give arguments as data."""
    if not isinstance(name, str):
        raise TypeError(f"call {number} names no tool")
    if not isinstance(arguments, str):
        arguments = "" if arguments is None else json.dumps(arguments)
    return AskedFor(id if id and isinstance(id, str) else f"call_{number}", name, arguments or "{}")


def check_refusal(asked: Asked, refusal: str | None, *, withheld: bool = False) -> None:
    """Raise Refused where a model says that it will not reply, or the endpoint's filter withholds what it said."""
    if refusal or withheld:
        what = f"the model refuses: {refusal[:500]}" if refusal else "the endpoint's content filter withholds the reply"
        raise Refused(f"agent {asked.name!r}: {what}")


def check_size(asked: Asked, size: int) -> None:
    """Raise ReplyTooLarge where a reply has more characters than it may have."""
    if size > asked.most:
        raise ReplyTooLarge(
            f"agent {asked.name!r}: the reply has more than {asked.most} characters, the setting 'reply_bytes'"
        )


def check_reply(asked: Asked, text: str, calls: list[AskedFor]) -> None:
    """Raise ReplyTooLarge for a whole reply, as `check_size` does."""
    check_size(asked, len(text) + sum(len(call.id) + len(call.name) + len(call.arguments) for call in calls))


def failed(asked: Asked, error: Any) -> PerdureError:
    """Return the error that an endpoint tells of in the place of a reply: `{code, message}`, or nothing."""
    code, message = getattr(error, "code", None), getattr(error, "message", None)
    told = f"agent {asked.name!r}: {message or 'the response failed'}"
    if not isinstance(code, str) or "server" in code or "timeout" in code or "overload" in code:
        return Unavailable(told)
    return RateLimited(told) if "rate_limit" in code else Refused(told)


def length_of(text: str, calls: list[AskedFor]) -> int:
    """Return how many characters a model gave."""
    return len(text) + sum(len(call.arguments) for call in calls)


def tokens(asked: Asked, usage: Any, length: int) -> tuple[int, int]:
    """Return the tokens in and out, as the endpoint counts them, or else about so many as the characters are."""
    taken = _counted(usage, "prompt_tokens", "input_tokens")
    given = _counted(usage, "completion_tokens", "output_tokens")
    if taken is None:
        taken = _about(len(asked.instructions) + sum(map(_length, asked.said)))
    return taken, _about(length) if given is None else given


def _counted(usage: Any, *names: str) -> int | None:
    found = (getattr(usage, name, None) for name in names)
    return next((each for each in found if type(each) is int and 0 <= each <= _MOST_TOKENS), None)


def _length(said: Said) -> int:
    return length_of(said.text, said.calls)


def _about(characters: int) -> int:
    """Return about how many tokens so many characters are."""
    return -(-characters // 4)
