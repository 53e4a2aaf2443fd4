"""What an agent remembers of a session: read, cut to what it may be given, summarised, added to."""

from collections.abc import Callable
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Protocol

import msgspec

from perdure.actors.transcripts import Conversation, Said
from perdure.definitions.agent_parts import Memory

if TYPE_CHECKING:
    from collections.abc import Awaitable


class SessionLog(Protocol):
    """Keeps the records of sessions, in their order, as bytes."""

    async def read(self, session: str, upto: int | None = None) -> list[tuple[int, bytes]]:
        """Return the records with their numbers, oldest first, up to a number. Raises LogUnavailable."""
        ...

    async def append(self, session: str, record: bytes, key: str) -> None:
        """Add a record. Raises LogUnavailable."""
        ...


class Record(msgspec.Struct, frozen=True, omit_defaults=True):
    """What one agent's node added to a session. replaces: it sums up the records up to this number.

    key: names the node's run, so that a record that was added twice counts once. number: its place in the log.
    """

    key: str
    agent: str
    at: datetime
    said: list[Said]
    replaces: int = 0
    number: int = 0


async def records_of(log: SessionLog, session: str, upto: int | None = None) -> list[Record]:
    """Return the records of a session, those that were summed up left out."""
    found: dict[str, Record] = {}
    for number, data in await log.read(session, upto):
        record = msgspec.structs.replace(msgspec.json.decode(data, type=Record), number=number)
        found.setdefault(record.key, record)
    records = list(found.values())
    summary = next((each for each in reversed(records) if each.replaces), None)
    if summary is None:
        return records
    return [summary, *(each for each in records if each.number > summary.replaces and not each.replaces)]


def remembered(records: list[Record], tokens: int) -> list[Said]:
    """Return what was said last, as far as it fits into so many tokens: of a long record question and answer alone."""
    kept: list[list[Said]] = []
    left = tokens
    for record in reversed(records):
        for said in (record.said, _short(record.said)):
            if (size := size_of(said)) <= left:
                kept.append(said)
                left -= size
                break
        else:
            break
    return [each for said in reversed(kept) for each in said]


def _short(said: list[Said]) -> list[Said]:
    answers = [each for each in said if each.role == "assistant" and not each.calls]
    return [*said[:1], *answers[-1:]]


def size_of(said: list[Said]) -> int:
    """Return about how many tokens a conversation is."""
    return sum(-(-(len(each.text) + sum(len(call.arguments) for call in each.calls)) // 4) + 4 for each in said)


Summarise = Callable[[str], "Awaitable[str]"]
"""Returns a summary of a conversation that is given as text."""


async def recall(
    log: SessionLog, session: str, agent: str, memory: Memory, key: str, summarise: Summarise | None
) -> dict[str, Any]:
    """Return up to which record an agent remembers; what does not fit is summed up first, where somebody does that."""
    records = await records_of(log, session)
    upto = max((each.number for each in records), default=0)
    fits = remembered(records, memory.tokens)
    if summarise is None or size_of([each for one in records for each in one.said]) <= memory.tokens:
        return {"upto": upto, "said": len(fits)}
    text = f"Summary of what was said before: {await summarise(_as_text(records))}"
    summary = Said("user", text[: max(1, memory.tokens - 4) * 4])  # one that did not fit would not be given at all
    await add(log, session, Record(f"{key}/summary", agent, datetime.now(UTC), [summary], replaces=upto))
    return {"upto": max(number for number, _ in await log.read(session)), "said": 1}


def _as_text(records: list[Record]) -> str:
    return "\n".join(f"{each.role}: {each.text}" for record in records for each in record.said if each.text)


async def add(log: SessionLog, session: str, record: Record) -> None:
    """Add a record to a session."""
    await log.append(session, msgspec.json.encode(record), record.key)


def record_of(given: Conversation, key: str) -> Record:
    """Return what a node's conversation adds to its session."""
    return Record(key, given.agent, datetime.now(UTC), given.said)
