"""The logger that tools get: its lines say which execution, node and attempt they are of, and hold no secrets."""

import logging
import sys
from collections.abc import Callable, Mapping
from traceback import format_exception
from typing import Any


class ToolLogger(logging.LoggerAdapter[logging.Logger]):
    """A logger of one attempt. redact: takes the values of secrets out of text."""

    def __init__(self, logger: logging.Logger, about: Mapping[str, object], redact: Callable[[Any], Any]) -> None:
        super().__init__(logger, about)
        self._redact = redact

    def log(self, level: int, msg: object, *args: object, **kwargs: Any) -> None:
        """Write a line; the text is put together first, so that a secret in an argument is found too."""
        if self.isEnabledFor(level):
            text = str(msg) % args if args else str(msg)
            if told := kwargs.pop("exc_info", None):
                error = told if isinstance(told, BaseException) else sys.exception()
                text += "\n" + "".join(format_exception(error)).rstrip() if error else ""
            kwargs["extra"] = {**(self.extra or {}), **(kwargs.get("extra") or {})}
            kwargs["stacklevel"] = kwargs.get("stacklevel", 1) + 1
            self.logger.log(level, "%s", self._redact(text), **kwargs)
