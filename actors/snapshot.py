"""The saved form of a folded execution. It is never trusted: another format, or another past, and it is ignored."""

from datetime import datetime

import msgspec
from immutables import Map

from perdure.actors.state import SETTLED, Folded, NodeState, Started
from perdure.events.vocabulary import ExecutionFailed, ExecutionStarted, ExecutionSucceeded

STATE_FORMAT = 1
"""Raised whenever `state.py` changes what a state holds or how events fold into it."""

EVERY = 200
"""Entries after which a snapshot is worth saving, and is saved once the tail outweighs the last one."""


class _Saved(msgspec.Struct):
    format: int
    n: int
    position: int
    prev: str
    epoch: int
    handled: list[str]
    started: ExecutionStarted
    nodes: dict[str, NodeState]
    timers: dict[str, datetime]
    outcome: ExecutionSucceeded | ExecutionFailed | None


_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(_Saved)


def pack(folded: Folded) -> bytes | None:
    """Return the saved form; None where there is nothing to save yet."""
    state = folded.state
    if not isinstance(state, Started):
        return None
    return _encoder.encode(
        _Saved(
            STATE_FORMAT, folded.n, folded.position, folded.prev, folded.epoch, list(folded.handled),
            state.started, dict(state.nodes.items()), dict(state.timers.items()), state.outcome,
        )
    )  # fmt: skip


def unpack(data: bytes) -> tuple[Folded, str] | None:
    """Return the folded execution without its last entry, and that entry's digest, by which it must be found.

    None where the data cannot be read, or is of another format.
    """
    try:
        saved = _decoder.decode(data)
    except msgspec.DecodeError:
        return None
    if saved.format != STATE_FORMAT:
        return None
    state = Started(
        started=saved.started,
        nodes=Map(saved.nodes),
        running=Map({name: node for name, node in saved.nodes.items() if node.status == "running"}),
        timers=Map(saved.timers),
        settled=sum(node.status in SETTLED for node in saved.nodes.values()),
        outcome=saved.outcome,
    )
    return Folded(state, saved.n, saved.position, saved.epoch, Map(dict.fromkeys(saved.handled))), saved.prev
