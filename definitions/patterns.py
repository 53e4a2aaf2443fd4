"""Regular expressions on RE2, whose time grows only in step with the text."""

from functools import lru_cache
from typing import Any

from perdure.errors import ExpressionError

MAX_PATTERN = 1000
"""Characters of a pattern."""
COMPILE_STEPS = 20_000
"""What compiling a pattern costs at worst."""
_MAX_MEMORY = 1 << 20


class Pattern:
    """A compiled pattern; it is made where a definition is parsed, and is no data."""

    __slots__ = ("_compiled",)

    def __init__(self, compiled: Any) -> None:
        self._compiled = compiled

    def steps(self, text: str) -> int:
        """Return the steps that looking for it in a text takes at worst."""
        return 1 + int(self._compiled.programsize) * len(text) // 100

    def first(self, text: str) -> dict[str, Any] | None:
        """Return the first place where it fits, or None."""
        match = self._compiled.search(text)
        if match is None:
            return None
        start, end = match.span()
        groups, named = list(match.groups()), dict(match.groupdict())
        return {"text": match.group(), "start": start, "end": end, "groups": groups, "named": named}


@lru_cache(maxsize=128)
def compile_pattern(pattern: str) -> Pattern:
    """Return a compiled pattern; raise ExpressionError saying what is wrong with it."""
    import re2  # type: ignore[import-untyped] # most definitions have no pattern

    if len(pattern) > MAX_PATTERN:
        raise ExpressionError(f"a pattern has at most {MAX_PATTERN} characters")
    options = re2.Options()
    options.log_errors = False
    options.max_mem = _MAX_MEMORY
    try:
        return Pattern(re2.compile(pattern, options=options))
    except UnicodeEncodeError:
        raise ExpressionError("a pattern is text in valid Unicode") from None
    except re2.error as error:
        reason = error.args[0]
        reason = reason.decode("utf-8", "replace") if isinstance(reason, bytes) else str(reason)
        raise ExpressionError(f"{pattern!r} is not a pattern: {reason} (RE2 syntax)") from None
