"""What a client can do to many executions at once."""

from typing import TYPE_CHECKING, Any

from perdure.cluster.queries import AsyncQueries
from perdure.cluster.users import user_of
from perdure.errors import BadInput

if TYPE_CHECKING:
    from perdure.cluster.batch_records import Action, Batch
    from perdure.cluster.batches import Batches, Told

RATE = 50.0
"""Executions a second, where nothing else is said."""


class AsyncBatching(AsyncQueries):
    """The batches of a client."""

    async def batch(
        self,
        action: "Action",
        *,
        signal: str = "",
        data: Any = None,
        reason: str = "",
        by: str = "",
        rate: float = RATE,
        dry_run: bool = False,
        every: bool = False,
        told: "Told | None" = None,
        **query: Any,
    ) -> "Batch":
        """Cancel, terminate, pause, resume, retry, signal or purge what a query finds; return the batch.

        query: as of `executions`; those of a fitting status where none is said. signal, data: of a signal. by: who
        (the setting `user`, or the system's user, where absent). rate: executions a second. dry_run: only return what
        it would do. every: allow a query that says nothing. told: called with the batch after some executions.
        It is recorded, and goes on with `resume_batch` where it was broken off. Raises BadInput, TakenOver.
        """
        from perdure.cluster.batches import said

        if not every and not said(query):
            raise BadInput("this would be all executions; say which, or that you mean all: every=True, --all")
        planned = await self._batches.plan(
            action, query, by or user_of(self._settings), rate, signal=signal, data=data, reason=reason
        )  # fmt: skip
        return planned if dry_run else await self._batches.begin(planned, told)

    async def begin_batch(self, planned: "Batch", told: "Told | None" = None) -> "Batch":
        """Do what a preview has shown; return how it went."""
        return await self._batches.begin(planned, told)

    async def batches(self) -> "list[Batch]":
        """Return the batches that are recorded, newest first."""
        return await self._batches.records.all()

    async def get_batch(self, id: str) -> "Batch":
        """Return a batch. Raises BadInput where there is none of this id."""
        return (await self._batches.records.read(id))[0]

    async def resume_batch(self, id: str, told: "Told | None" = None) -> "Batch":
        """Go on with a batch that was broken off or stopped; commands that were given already count once."""
        return await self._batches.resume(id, told)

    async def stop_batch(self, id: str) -> "Batch":
        """Have a batch do no more."""
        return await self._batches.records.stop(id)

    @property
    def _batches(self) -> "Batches":
        from perdure.cluster.batches import Batches

        return Batches(self._connection, self._projections)
