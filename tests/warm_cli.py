"""Commands of the command line, each a process of its own that need not import perdure again.

They are forked from one program a test session (warm_process.py) that has imported it. What is about the start of
`python -m perdure.cli` itself, or about killing it, starts that.
"""

import atexit
import json
import os
import signal
import subprocess
import sys
import tempfile
from functools import cache
from pathlib import Path
from threading import Timer

PROGRAM = Path(__file__).with_name("warm_process.py")


def run_command(
    environment: dict[str, str], *words: str, folder: Path | None = None, timeout: float = 50
) -> subprocess.CompletedProcess[str]:
    """Run `perdure WORDS` to its end; after `timeout` seconds it is killed, which its exit code tells."""
    with tempfile.TemporaryDirectory() as kept:
        out, err = Path(kept, "stdout"), Path(kept, "stderr")
        out.touch()
        err.touch()
        asked = {"words": words, "environment": environment, "folder": str(folder or Path.cwd())}
        code = _ran(json.dumps({**asked, "stdout": str(out), "stderr": str(err)}), timeout)
        return subprocess.CompletedProcess(words, code, out.read_text("utf-8"), err.read_text("utf-8"))


def _ran(asked: str, timeout: float) -> int:
    forks = _program()
    assert forks.stdin is not None
    assert forks.stdout is not None
    forks.stdin.write(asked + "\n")
    forks.stdin.flush()
    late = Timer(timeout, os.kill, (int(forks.stdout.readline()), signal.SIGKILL))
    late.start()
    try:
        return int(forks.stdout.readline())
    finally:
        late.cancel()
        late.join()


@cache
def _program() -> "subprocess.Popen[str]":
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("PERDURE_", "OPENAI_", "RAY_"))}
    program = subprocess.Popen(
        [sys.executable, str(PROGRAM)], env=kept, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    atexit.register(_end, program)
    return program


def _end(program: "subprocess.Popen[str]") -> None:
    assert program.stdin is not None
    program.stdin.close()
    program.wait(10)
    assert program.stdout is not None
    program.stdout.close()
