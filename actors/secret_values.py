"""The values of secrets: put into the input at the call, and taken out again of whatever the call gave."""

import json
import re
from collections.abc import Callable, Iterable
from typing import Any
from urllib.parse import quote

from perdure.definitions.secret_references import revealed
from perdure.errors import SecretMissing

SHORTEST = 4
"""Characters of the shortest value that is redacted: shorter ones stand in everything."""


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
        """Return what can be told of a text that goes on: without its last characters, that may become a secret."""
        if self._seen is None:
            return text
        end = max(0, len(text) - max(map(len, self._names)) + 1)
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

    def _shown(self, form: str) -> str:
        return f"[secret {self._names[form]}]"


def _forms(value: str) -> set[str]:
    """Return a value as it stands in text, in JSON, in Python's own notation and in a URL."""
    escaped = {json.dumps(value)[1:-1], json.dumps(value, ensure_ascii=False)[1:-1], repr(value)[1:-1]}
    return {value, *escaped, quote(value, safe="", errors="surrogatepass")}
