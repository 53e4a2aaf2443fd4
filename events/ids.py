"""Ids that nobody else makes: random ones, as uuid4's are, without asking the system for each."""

import os
from random import Random

_random = Random()  # noqa: S311 (no secrets; the system seeds it)
os.register_at_fork(after_in_child=_random.seed)


def new_id() -> str:
    """Return 128 random bits as 32 hexadecimal digits. They tell things apart; they are no secrets."""
    return f"{_random.getrandbits(128):032x}"
