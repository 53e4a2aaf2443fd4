"""How execution ids become NATS subjects: one safe token each, in one of 64 partitions."""

import re
from binascii import crc32

PARTITIONS = 64
EVENTS = "perdure.ev"
LIVE = "perdure.live"

_UNSAFE = re.compile(r"[^A-Za-z0-9_-]")
_ESCAPED = re.compile(r"((?:=[0-9a-f]{2})+)")


def partition_of(execution: str) -> int:
    """Return the partition of an execution: crc32 of its UTF-8 bytes modulo 64."""
    return crc32(execution.encode()) % PARTITIONS


def token_of(execution: str) -> str:
    """Return the id as one subject token; characters outside `[A-Za-z0-9_-]` become `=xx` bytes."""
    if execution.isalnum() and execution.isascii():  # as most ids are; it is quicker than a look at each character
        return execution
    return _UNSAFE.sub(lambda match: "".join(f"={byte:02x}" for byte in match[0].encode()), execution)


def execution_of(token: str) -> str:
    """Return the id that `token_of` turned into this token."""
    if "=" not in token:
        return token
    return _ESCAPED.sub(lambda match: bytes.fromhex(match[0].replace("=", "")).decode(), token)


def events_subject(execution: str, root: str = EVENTS) -> str:
    """Return the subject of an execution's entries (or, under LIVE, of their live copies)."""
    return f"{root}.{partition_of(execution)}.{token_of(execution)}"
