"""What the synchronous client can do to many executions at once; see AsyncBatching."""

from typing import TYPE_CHECKING, Any

from perdure.cluster.batching import AsyncBatching

if TYPE_CHECKING:
    from perdure.cluster.batch_records import Action, Batch


class Batching:
    """The batches of a client."""

    _client: Any
    _loop: Any

    def batch(self, action: "Action", **given: Any) -> "Batch":
        """Do something to the executions that a query finds; see AsyncBatching.batch."""
        return self._work(self._batching.batch(action, **given))

    def begin_batch(self, planned: "Batch") -> "Batch":
        """Do what a preview has shown; return how it went."""
        return self._work(self._batching.begin_batch(planned))

    def batches(self) -> "list[Batch]":
        """Return the batches that are recorded, newest first."""
        found: list[Batch] = self._loop.run(self._batching.batches())
        return found

    def get_batch(self, id: str) -> "Batch":
        """Return a batch."""
        return self._work(self._batching.get_batch(id))

    def resume_batch(self, id: str) -> "Batch":
        """Go on with a batch that was broken off or stopped."""
        return self._work(self._batching.resume_batch(id))

    def stop_batch(self, id: str) -> "Batch":
        """Have a batch do no more."""
        return self._work(self._batching.stop_batch(id))

    @property
    def _batching(self) -> AsyncBatching:
        client: AsyncBatching = self._client
        return client

    def _work(self, work: Any) -> "Batch":
        batch: Batch = self._loop.run(work)
        return batch
