"""What a node's code may know of its run."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Context:
    """The attempt that code runs for; `idempotency_key` is the same for all attempts at one effect."""

    execution: str
    node: str
    attempt: int
    idempotency_key: str
