"""What the synchronous client can ask of the read models; see AsyncQueries."""

from collections.abc import Coroutine, Iterable
from datetime import datetime
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from perdure.cluster.queries import AsyncQueries, Fresh

if TYPE_CHECKING:
    from perdure.projections.queries import Page

Result = TypeVar("Result")


class _Runs(Protocol):
    def run(self, work: Coroutine[Any, Any, Result]) -> Result: ...


class Queries:
    """The questions of a client."""

    _client: Any
    _loop: Any

    def executions(
        self, status: str | Iterable[str] | None = None, limit: int = 50, *, fresh: Fresh = True, **query: Any
    ) -> "Page":
        """Return executions, newest first; see AsyncQueries.executions."""
        return self._run(self._asked.executions(status, limit, fresh=fresh, **query))

    def count(self, *, fresh: Fresh = True, **query: Any) -> dict[str, int]:
        """Return how many executions there are in each status; see AsyncQueries.count."""
        return self._run(self._asked.count(fresh=fresh, **query))

    def approvals(
        self, assignee: str | None = None, workflow: str | None = None, limit: int = 50
    ) -> list[dict[str, Any]]:
        """Return what waits for a person; see AsyncQueries.approvals."""
        return self._run(self._asked.approvals(assignee, workflow, limit))

    def dead_letters(self, workflow: str | None = None, limit: int = 50) -> list[dict[str, Any]]:
        """Return what failed, or is stuck on an error, newest first."""
        return self._run(self._asked.dead_letters(workflow, limit))

    def statistics(
        self,
        workflow: str | None = None,
        after: datetime | str | None = None,
        before: datetime | str | None = None,
        *,
        hourly: bool = False,
    ) -> list[dict[str, Any]]:
        """Return counts, failure rates and quantiles of the seconds taken; see AsyncQueries.statistics."""
        return self._run(self._asked.statistics(workflow, after, before, hourly=hourly))

    def timeline(self, execution: str) -> list[dict[str, Any]]:
        """Return what went on in an execution from when to when."""
        return self._run(self._asked.timeline(execution))

    def definitions(self, workflow: str | None = None) -> list[dict[str, Any]]:
        """Return the definitions that have run, and when they were started first and last."""
        return self._run(self._asked.definitions(workflow))

    def catch_up(self) -> int:
        """Bring all projections up to the end of the log, your own too; return the position that they have reached."""
        return self._run(self._asked.catch_up())

    def rebuild(self, names: Iterable[str] | None = None) -> None:
        """Make projections again from the whole log: these, or all of them."""
        self._run(self._asked.rebuild(names))

    def lag(self) -> dict[str, dict[str, Any]]:
        """Return of each projection its version, position, distance from the end of the log, and quarantine."""
        return self._run(self._asked.lag())

    def quarantined(self) -> list[dict[str, Any]]:
        """Return the entries that projections could not fold, each with the error."""
        return self._run(self._asked.quarantined())

    @property
    def _asked(self) -> AsyncQueries:
        client: AsyncQueries = self._client
        return client

    def _run(self, work: Coroutine[Any, Any, Result]) -> Result:
        loop: _Runs = self._loop
        return loop.run(work)
