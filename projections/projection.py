"""A projection: folds events into tables of its own, and nothing else. perdure's and users' have the same form."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import ClassVar

from sqlalchemy import Connection, Table, delete

from perdure.events.entry import Happened


class Projection(ABC):
    """Subclass it, name it, give it tables, and fold; see docs/projections.md.

    name: what it is called everywhere; it never changes. version: raise it when the tables, or what is folded into
    them, change: then they are made again from the log. tables: SQLAlchemy's; nobody else writes to them.
    """

    name: ClassVar[str]
    version: ClassVar[int] = 1
    tables: ClassVar[Sequence[Table]] = ()

    @abstractmethod
    def fold(self, connection: Connection, events: Sequence[Happened]) -> None:
        """Fold events, in the order of the log, into the rows.

        Every event comes once: the rows and the position are committed together, outside of this method. An error that
        it raises puts the entry in quarantine, with all that it did for that entry undone.
        """

    def create(self, connection: Connection) -> None:
        """Make the tables where they are not there."""
        for table in self.tables:
            table.create(connection, checkfirst=True)

    def clear(self, connection: Connection) -> None:
        """Take all rows away; tables that may be of another version are made again."""
        for table in reversed(self.tables):
            table.drop(connection, checkfirst=True)
        self.create(connection)


class BuiltIn(Projection):
    """One of perdure's own, whose tables the migrations make."""

    def create(self, connection: Connection) -> None:
        """Leave it to the migrations."""

    def clear(self, connection: Connection) -> None:
        """Take all rows away."""
        for table in reversed(self.tables):
            connection.execute(delete(table))
