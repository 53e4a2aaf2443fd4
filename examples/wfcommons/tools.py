"""The tool of every task: it does nothing, and says that it was there."""

import os
from pathlib import Path

from perdure import tool


@tool
def noop(task: str) -> str:
    """Return the task's id; append it to the file named by NOOP_LOG, where that is set."""
    if log := os.environ.get("NOOP_LOG"):
        with Path(log).open("a", encoding="utf-8") as file:
            file.write(f"{task}\n")
    return task
