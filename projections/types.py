"""How values are stored in SQLite and PostgreSQL alike: times in UTC, JSON as text, text without NUL, positions."""

from datetime import UTC, datetime
from typing import Any

import msgspec
from sqlalchemy import BigInteger, DateTime, Dialect, Integer, Text
from sqlalchemy.types import TypeDecorator, TypeEngine

Position = BigInteger().with_variant(Integer, "sqlite")
"""A position of the log; as SQLite's only key it is the row's own number, and every index holds it."""


SHORT = 200


class Moment(TypeDecorator[datetime]):
    """A time with a zone, UTC on the way out; SQLite keeps none, so it is taken off on the way in."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """Bring it to UTC; a time without a zone is an error of the program."""
        if value is None:
            return None
        if value.tzinfo is None:
            raise ValueError(f"{value} has no time zone")
        value = value.astimezone(UTC)
        return value.replace(tzinfo=None) if dialect.name == "sqlite" else value

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """Give the zone back."""
        if value is None:
            return None
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


class Json(TypeDecorator[Any]):
    """JSON data, as text: PostgreSQL's own type takes no NUL within."""

    impl = Text
    cache_ok = True

    def process_bind_param(self, value: Any, dialect: Dialect) -> str | None:
        """Encode."""
        return None if value is None else msgspec.json.encode(value).decode()

    def process_result_value(self, value: str | None, dialect: Dialect) -> Any:
        """Decode."""
        return None if value is None else msgspec.json.decode(value)


class Words(TypeDecorator[str]):
    """Text of people and programs; NUL, which PostgreSQL takes nowhere, becomes the replacement character.

    It is compared by its bytes everywhere, as SQLite does: ranges of it mean the same, and what begins so is a range.
    """

    impl = Text
    cache_ok = True

    def load_dialect_impl(self, dialect: Dialect) -> TypeEngine[Any]:
        """Give PostgreSQL's text the collation that compares bytes."""
        return dialect.type_descriptor(Text(collation="C") if dialect.name == "postgresql" else Text())

    def process_bind_param(self, value: str | None, dialect: Dialect) -> str | None:
        """Replace what cannot be stored."""
        return None if value is None else value.replace("\x00", "\ufffd")


class Short(Words):
    """Words in an index, where PostgreSQL takes no long ones: their first characters are stored, and compared."""

    cache_ok = True

    def process_bind_param(self, value: str | None, dialect: Dialect) -> str | None:
        """Cut it."""
        return super().process_bind_param(None if value is None else value[:SHORT], dialect)
