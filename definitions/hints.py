"""Hints for words that do not exist."""

from collections.abc import Iterable
from difflib import get_close_matches

_MANY_WORDS = 200
_MOST_WORDS = 2000
_LONGEST_WORD = 60


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """Return a hint such as `; did you mean 'classify'?`, or nothing where no known word is close."""
    close = closest(word, known)
    return f"; did you mean {close!r}?" if close is not None else ""


def closest(word: str, known: Iterable[str]) -> str | None:
    """Return the known word that is probably meant by another, or None."""
    # Data may hold any number of keys of any length, and comparing words is slow.
    words = [each for each, _ in zip(known, range(_MOST_WORDS), strict=False) if len(each) <= _LONGEST_WORD]
    if len(words) > _MANY_WORDS:  # there may be a thousand such hints, a millisecond each
        words = [each for each in words if abs(len(each) - len(word)) <= 2 and _alike(each, word)]
    return next(iter(get_close_matches(word[:_LONGEST_WORD], words, n=1)), None) if words else None


def _alike(word: str, other: str) -> bool:
    return word[:1] == other[:1] or word[-1:] == other[-1:]
