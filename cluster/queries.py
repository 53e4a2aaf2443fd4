"""What a client can ask of the read models; each question brings what it reads up to the end of the log first."""

from collections.abc import Callable, Iterable
from contextlib import AsyncExitStack
from datetime import datetime
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any, TypeVar

from perdure.cluster.connection import Connection
from perdure.cluster.settings import Settings
from perdure.errors import BadInput

if TYPE_CHECKING:
    from sqlalchemy import Connection as SqlConnection

    from perdure.projections.queries import Page, Query
    from perdure.projections.runner import Projections

_T = TypeVar("_T")
Fresh = bool | int
"""True: of all that the log holds now. A position: of all up to there. False: as the rows are, at once."""


class AsyncQueries:
    """The questions of a client."""

    _settings: Settings
    _connection: Connection
    _closing: AsyncExitStack

    async def executions(
        self, status: str | Iterable[str] | None = None, limit: int = 50, *, fresh: Fresh = True, **query: Any
    ) -> "Page":
        """Return executions, newest first: those for which all that is given holds; `cursor` gives the next page.

        query: see perdure.projections.queries.Query. Raises BadInput for a query that makes no sense.
        """
        from perdure.projections.queries import page

        return await self._ask("executions", fresh, partial(page, query=_query(status=status, limit=limit, **query)))

    async def count(self, *, fresh: Fresh = True, **query: Any) -> dict[str, int]:
        """Return how many executions there are in each status, of those for which the query holds; see `executions`."""
        from perdure.projections.queries import counts

        return await self._ask("executions", fresh, partial(counts, query=_query(**query)))

    async def approvals(
        self, assignee: str | None = None, workflow: str | None = None, limit: int = 50
    ) -> list[dict[str, Any]]:
        """Return what waits for a person, longest first: for this assignee, or for nobody in particular."""
        from perdure.projections.inboxes import open_approvals

        question = partial(open_approvals, assignee=assignee, workflow=workflow, limit=limit)
        return await self._ask("approvals", True, question, "executions")

    async def dead_letters(self, workflow: str | None = None, limit: int = 50) -> list[dict[str, Any]]:
        """Return what failed, or is stuck on an error, newest first."""
        from perdure.projections.inboxes import dead

        return await self._ask("dead_letters", True, partial(dead, workflow=workflow, limit=limit), "executions")

    async def statistics(
        self,
        workflow: str | None = None,
        after: datetime | str | None = None,
        before: datetime | str | None = None,
        *,
        hourly: bool = False,
    ) -> list[dict[str, Any]]:
        """Return counts, failure rates and quantiles of the seconds taken, of executions (node "") and of each node.

        after, before: times; of hours that begin within them.
        """
        from perdure.projections.filters import moment
        from perdure.projections.inboxes import summed

        first = None if after is None else moment(after, "after")
        last = None if before is None else moment(before, "before")
        return await self._ask(
            "statistics", True, partial(summed, workflow=workflow, after=first, before=last, hourly=hourly)
        )

    async def timeline(self, execution: str) -> list[dict[str, Any]]:
        """Return what went on in an execution from when to when: nodes, attempts, waits, timers, states."""
        from perdure.projections.inboxes import timeline

        return await self._ask("timeline", True, partial(timeline, execution=execution))

    async def definitions(self, workflow: str | None = None) -> list[dict[str, Any]]:
        """Return the definitions that have run, by digest, and when they were started first and last."""
        from perdure.projections.inboxes import known_definitions

        return await self._ask("definitions", True, partial(known_definitions, workflow=workflow))

    async def catch_up(self) -> int:
        """Bring all projections up to the end of the log, your own too; return the position that they have reached."""
        projections = self._with_own()
        try:
            return await projections.catch_up(self._connection.log)
        finally:
            projections.close()

    async def rebuild(self, names: Iterable[str] | None = None) -> None:
        """Make projections again from the whole log: these, or all of them. Raises BadInput."""
        projections = self._with_own()
        try:
            await projections.rebuild(self._connection.log, projections.names if names is None else names)
        finally:
            projections.close()

    async def lag(self) -> dict[str, dict[str, Any]]:
        """Return of each projection its version, position, distance from the end of the log, and quarantine."""
        return await self._projections.lag(self._connection.log)

    async def quarantined(self) -> list[dict[str, Any]]:
        """Return the entries that projections could not fold, each with the error."""
        return await self._projections.quarantined(self._connection.log)

    async def _ask(self, name: str, fresh: Fresh, question: "Callable[[SqlConnection], _T]", *others: str) -> _T:
        """Answer a question to the tables of one projection, which are brought up to date first where asked for."""
        if type(fresh) not in (bool, int) or fresh < 0:
            raise BadInput(f"fresh={fresh!r}: it is True, False, or a position of the log")
        projections, log = self._projections, self._connection.log
        if fresh is True or (await projections.prepare(log))[name] < fresh:
            reached = await projections.catch_up(log, [name, *others])
            if fresh is not True and reached < fresh:
                raise BadInput(f"fresh={fresh}: the log ends at position {reached}")
        return await projections.read(question)

    @cached_property
    def _projections(self) -> "Projections":
        from perdure.projections.runner import Projections

        projections = Projections(self._settings.projections_at)
        self._closing.callback(projections.close)
        return projections

    def _with_own(self) -> "Projections":
        from perdure.projections.loading import own_projections
        from perdure.projections.runner import Projections

        return Projections(self._settings.projections_at, own_projections(self._settings.projections))


def _query(**given: Any) -> "Query":
    from perdure.projections.queries import Query

    unknown = given.keys() - set(Query.__struct_fields__)
    if unknown:
        raise BadInput(f"executions cannot be asked for by {min(unknown)!r}; by {', '.join(Query.__struct_fields__)}")
    return Query(**given)
