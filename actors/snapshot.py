"""The saved form of a folded execution. It is never trusted: another format, or another past, and it is ignored."""

from functools import cache
from typing import Any, get_args

import msgspec
from immutables import Map

from perdure.actors.folded import Folded
from perdure.actors.state import Started

STATE_FORMAT = 11
"""Raised whenever `state.py` changes what a state holds or how events fold into it."""

EVERY = 200
"""Entries after which a snapshot is worth saving, and is saved once the tail weighs a third of the last one.

A byte of an entry takes three times as long to read and fold as one of a snapshot.
"""


class _Saved(msgspec.Struct):
    format: int
    n: int
    position: int
    prev: str
    epoch: int
    handled: list[str]
    before: list[str]
    state: Started


class _Format(msgspec.Struct):
    format: int


def _plain(value: Any) -> Any:
    if isinstance(value, Map):
        return dict(value)
    raise NotImplementedError(type(value))


@cache
def _dict_of(kind: Any) -> Any:
    key, item = get_args(kind)
    return dict[key, item]  # type: ignore[valid-type]


def _map(kind: Any, value: Any) -> Any:
    return Map(msgspec.convert(value, _dict_of(kind), dec_hook=_map))


_encoder = msgspec.msgpack.Encoder(enc_hook=_plain)
_decoder = msgspec.msgpack.Decoder(_Saved, dec_hook=_map)
_format_decoder = msgspec.msgpack.Decoder(_Format)


def pack(folded: Folded) -> bytes | None:
    """Return the saved form; None where there is nothing to save yet."""
    if not isinstance(folded.state, Started):
        return None
    handled, before = list(folded.handled), list(folded.before)
    return _encoder.encode(
        _Saved(STATE_FORMAT, folded.n, folded.position, folded.prev, folded.epoch, handled, before, folded.state)
    )


def unpack(data: bytes) -> tuple[Folded, str] | None:
    """Return the folded execution without its last entry, and that entry's digest, by which it must be found.

    None where the data cannot be read, or is of another format.
    """
    try:
        if _format_decoder.decode(data).format != STATE_FORMAT:
            return None
        saved = _decoder.decode(data)
    except msgspec.DecodeError:
        return None
    handled, before = Map(dict.fromkeys(saved.handled)), Map(dict.fromkeys(saved.before))
    return Folded(saved.state, saved.n, saved.position, saved.epoch, handled, before), saved.prev
