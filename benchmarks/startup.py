"""Cold starts of the command line, as whole processes: the median of several runs, in seconds."""

import argparse
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.measuring import as_installed

HELLO = str(Path(__file__).parent.parent / "examples" / "hello.yaml")
COMMANDS = {
    "perdure --help": ["--help"],
    "perdure run hello.yaml --local": ["run", HELLO, "--local"],
    "perdure list": ["list"],
    "perdure run hello.yaml (with a local Ray)": ["run", HELLO],
}


def seconds(words: list[str], store: str) -> float:
    """Return the wall time of one command; the first one on a store compiles what the next ones have."""
    began = time.perf_counter()
    command = [sys.executable, "-m", "perdure.cli", *words, *(["--store", store] if "--help" not in words else [])]
    subprocess.run(command, check=True, capture_output=True, env=as_installed(Path(store)))
    return time.perf_counter() - began


def main() -> None:
    """Measure every command, after one run that is not counted."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeat", type=int, default=5, help="counted runs of each command")
    repeat = parser.parse_args().repeat
    for name, words in COMMANDS.items():
        with tempfile.TemporaryDirectory() as store:
            seconds(words, store)
            runs = [seconds(words, store) for _ in range(repeat)]
        print(f"{name:45} median {statistics.median(runs):5.2f}  min {min(runs):5.2f}  max {max(runs):5.2f}")


if __name__ == "__main__":
    main()
