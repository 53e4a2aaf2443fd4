"""Run as a program: fork a process for each command of the command line that is asked for, and tell how it ended."""

import gc
import json
import os
import signal
import sys

import perdure.actors.chat
import perdure.actors.responses
import perdure.cluster.checks
import perdure.cluster.client
import perdure.cluster.hosting
import perdure.cluster.projecting
import perdure.cluster.status
import perdure.cluster.wiring
import perdure.cluster.workflow_versions
import perdure.console
import perdure.projections.queries
import perdure.testing  # noqa: F401 (what commands import when they run: paid once, before the forks)
from perdure.cli import main


def become(asked: dict[str, object]) -> None:
    """Make this process the one that was asked for: its words, folder, environment and files."""
    for number, (file, flags) in enumerate(
        ((os.devnull, os.O_RDONLY), (asked["stdout"], os.O_WRONLY), (asked["stderr"], os.O_WRONLY | os.O_APPEND))
    ):
        opened = os.open(str(file), flags)
        os.dup2(opened, number)
        os.close(opened)
    os.chdir(str(asked["folder"]))
    os.environ.clear()
    os.environ.update(asked["environment"])  # type: ignore[call-overload]
    sys.argv = ["perdure", *asked["words"]]  # type: ignore[misc]
    signal.signal(signal.SIGINT, signal.default_int_handler)


def serve() -> None:
    """Answer each line with the process's id, and with its exit code once it has ended, until there are no more."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for who runs the tests
    gc.freeze()  # what is imported is not looked through again by each process
    for line in sys.stdin:
        child = os.fork()
        if child == 0:
            become(json.loads(line))
            main()  # and the process ends as any other Python does
            return
        print(child, flush=True)  # noqa: T201 (the answer)
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)  # noqa: T201


if __name__ == "__main__":
    serve()
