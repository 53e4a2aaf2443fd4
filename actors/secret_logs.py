"""The log records of a process: the values of its secrets are taken out of them, whichever library writes them."""

import logging
from collections.abc import Callable
from typing import Any, Protocol
from weakref import WeakSet


class Redacts(Protocol):
    """What knows values of secrets."""

    def redact(self, value: Any) -> Any:
        """Return data without them."""


_known: WeakSet[Redacts] = WeakSet()


def guard(secrets: Redacts) -> None:
    """Have the values that these secrets know, now and later, taken out of every record of this process."""
    _known.add(secrets)
    if not isinstance(logging.getLogRecordFactory(), _Guarded):
        logging.setLogRecordFactory(_Guarded(logging.getLogRecordFactory()))


class _Guarded:
    """Makes records as the factory before it does."""

    def __init__(self, inner: Callable[..., logging.LogRecord]) -> None:
        self._inner = inner

    def __call__(self, *args: Any, **named: Any) -> logging.LogRecord:
        record = self._inner(*args, **named)
        for secrets in list(_known):
            _clean(record, secrets.redact)
        return record


def _clean(record: logging.LogRecord, redact: Callable[[Any], Any]) -> None:
    try:
        text = record.getMessage()
    except Exception:  # whoever handles the record says so
        return
    if (clean := redact(text)) != text:
        record.msg, record.args = clean, None
    if record.exc_info:
        told = logging.Formatter().formatException(record.exc_info)
        if (clean := redact(told)) != told:
            record.exc_info, record.exc_text = None, clean
