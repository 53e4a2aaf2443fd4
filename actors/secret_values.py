"""The values of secrets: put into the input at the call, and taken out again of whatever the call gave."""

import base64
import json
import re
from collections.abc import Callable, Iterable, Iterator
from typing import Any
from urllib.parse import quote

from perdure.actors import secret_logs
from perdure.definitions.secret_references import revealed
from perdure.errors import SecretMissing

SHORTEST = 4
"""Characters of the shortest value that is redacted: shorter ones stand in everything."""

_LONG_ENOUGH = 8  # bytes of a value that is redacted in base64 too
_IN_URLS = str.maketrans("+/", "-_")


def _none(name: str) -> str:
    raise SecretMissing(f"there is no secret {name!r}: no secrets are given here")


class Secrets:
    """The secrets that a process can look up; it remembers those that it has seen, and redacts them.

    look_up: returns the value of a secret by its name, or raises SecretMissing. travels: what makes the secrets of
    another process, and its arguments; values never travel.
    """

    def __init__(
        self, look_up: Callable[[str], str] = _none, travels: tuple[Callable[..., Any], tuple[Any, ...]] | None = None
    ) -> None:
        self._look_up = look_up
        self._travels = travels
        self._names: dict[str, str] = {}
        self._seen: re.Pattern[str] | None = None

    def reveal(self, value: Any, pointers: Iterable[str]) -> Any:
        """Return the input of a call with the values of the secrets that it refers to. Raises SecretMissing."""
        return revealed(value, pointers, self.value_of)

    def redact(self, value: Any) -> Any:
        """Return JSON data with `[secret NAME]` in the place of every value that this process has looked up."""
        if self._seen is None:
            return value
        if isinstance(value, str):
            return self._seen.sub(lambda found: self._shown(found[0]), value)
        if isinstance(value, dict):
            return {self.redact(key): self.redact(item) for key, item in value.items()}
        if isinstance(value, list):
            return [self.redact(item) for item in value]
        if type(value) in (int, float) and str(value) in self._names:  # a tool may have made a number of it
            return self._shown(str(value))
        return value

    def redact_begun(self, text: str) -> str:
        """Return what can be told of a text that goes on: without the end of it with which a secret begins."""
        if self._seen is None:
            return text
        end = len(text) - max(_begun(text, form) for form in self._names)
        for found in self._seen.finditer(text):
            if found.start() < end < found.end():
                end = found.end()
        return str(self.redact(text[:end]))

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return self._travels or (Secrets, ())

    def value_of(self, name: str) -> str:
        """Return the value of a secret, which is redacted from now on. Raises SecretMissing."""
        value = self._look_up(name)
        self.hide(value, name)
        return value

    def hide(self, value: str, name: str) -> None:
        """Redact a value from now on as that of a secret: one that was made of a secret, for example."""
        if len(value) >= SHORTEST and value not in self._names:
            self._names.update(dict.fromkeys(_forms(value), name))
            longest_first = sorted(self._names, key=len, reverse=True)  # one may be a part of another
            self._seen = re.compile("|".join(map(re.escape, longest_first)))
            secret_logs.guard(self)

    def _shown(self, form: str) -> str:
        return f"[secret {self._names[form]}]"


def _begun(text: str, form: str) -> int:
    """Return how many characters at the end of a text a form begins with, which goes on behind them."""
    return next((n for n in range(min(len(form) - 1, len(text)), 0, -1) if text.endswith(form[:n])), 0)


def _forms(value: str) -> set[str]:
    """Return a value as it stands in text, in JSON, in Python's own notation, in a URL and in base64.

    And in JSON that is a text within JSON.
    """
    once = {json.dumps(value)[1:-1], json.dumps(value, ensure_ascii=False)[1:-1], repr(value)[1:-1]}
    twice = {json.dumps(each, ensure_ascii=ascii_)[1:-1] for each in once for ascii_ in (True, False)}
    packed = {form for text in {value, *once} for form in _in_base64(text)}
    return {value, *once, *twice, quote(value, safe="", errors="surrogatepass"), *packed}


def _in_base64(value: str) -> Iterator[str]:
    """Yield what a value is within base64, wherever it begins there, as far as that says nothing else.

    A short value is none: its few characters stand in much else.
    """
    data = value.encode("utf-8", "surrogatepass")
    for before in range(3) if len(data) >= _LONG_ENOUGH else ():
        first, end = -(-before * 8 // 6), (before + len(data)) * 8 // 6
        packed = base64.b64encode(bytes(before) + data).decode()[first:end]
        yield from (packed, packed.translate(_IN_URLS))
