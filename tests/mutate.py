"""Mutation testing of the deciding core: change one thing at a time, and see whether a test of it fails.

    nice python tests/mutate.py RESULTS.jsonl [--survivors] [actors/FILE.py...] [tests/FILE.py...]

It collects the tests once and forks, puts the changed code into the functions, and runs the tests that come through the
function, the quickest first, up to the first failure. A mutant that was run before is not run again: stop it and go on
at will; `--survivors` runs those again that lived, and no others. The last line of a mutant counts. Without files it
takes all of the core, and all of the tests of it that need no server. What is changed is in `mutants.py`. (mutmut finds
no test for a module with another name than its path, such as actors/flow.py, which is perdure.actors.flow; cosmic-ray
starts Python for each mutant, which takes 2 s, and deletes no statements.)
"""

import gc
import json
import os
import random
import resource
import signal
import sys
import threading
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from inspect import iscoroutinefunction
from itertools import zip_longest
from pathlib import Path
from types import CodeType, FrameType, FunctionType
from typing import Any

import pytest
from mutants import Mutant, mutants_of

ROOT = Path(__file__).parent.parent
CORE = ("decisions", "evolve", "flow", "joins", "failures", "compensation", "compensated", "containers", "controls",
        "timers", "children", "ends", "answers", "signals", "mending", "tree", "kinds", "draft")  # fmt: skip
TESTS = ("decisions", "failures", "controls", "kinds", "mending", "edges", "fine_data", "fine_errors", "fine_children",
         "fine_commands", "decided_semantics", "semantics_docs", "playing", "children", "child_compensation", "secrets",
         "retry_after", "own_kinds", "engine_oracle", "engine_properties")  # fmt: skip
EXTRA, TIMES = 2, 2
"""The seconds that a test of a mutant has, and how often the time that it took, before it counts as hung."""


class Mutating:
    """A pytest plugin that runs the collected tests once, and then again for every mutant."""

    def __init__(self, results: Path, files: list[Path], *, survivors: bool) -> None:
        self.results = results
        self.survivors = survivors
        self.files = files
        self.took: dict[Any, float] = {}
        self.through: dict[tuple[str, int], list[Any]] = defaultdict(list)
        self.functions: dict[tuple[str, int], list[FunctionType]] = {}

    def pytest_collection(self) -> None:
        """Let hypothesis try the same each time, and not look for a smaller example of what fails."""
        from hypothesis import Phase, settings  # not before pytest, which rewrites its assertions

        settings.register_profile("mutants", database=None, derandomize=True, phases=[Phase.explicit, Phase.generate])
        settings.load_profile("mutants")

    def pytest_collection_modifyitems(self, items: list[Any]) -> None:
        """Leave out what needs a server, or a loop."""
        items[:] = [item for item in items if not iscoroutinefunction(item.function)]

    def pytest_runtestloop(self, session: pytest.Session) -> bool:
        if session.testsfailed:
            raise session.Failed("the tests cannot be collected")
        self._measure(session)
        self.functions = _functions_in(set(self.files))
        gc.collect()
        gc.freeze()  # what is there already is not copied into each process by looking at it
        known = {each["mutant"]: each["outcome"] for each in map(json.loads, _lines(self.results))}
        for mutant in self._in_order():
            if known.get(mutant.name, "").startswith("lived") if self.survivors else mutant.name not in known:
                self._record(mutant, self._try(session, mutant))
        return True

    def _measure(self, session: pytest.Session) -> None:
        """Run all tests unchanged: how long each takes, and which functions it comes through."""
        for item in session.items:
            began, seen = time.monotonic(), set[tuple[str, int]]()
            with _watched({str(file) for file in self.files}, seen):
                ended = _ends(session, item)
            if ended != 0:
                raise session.Failed(f"{item.nodeid} fails without a mutant")
            self.took[item] = time.monotonic() - began
            for place in seen:
                self.through[place].append(item)

    def _in_order(self) -> Iterator[Mutant]:
        """Yield mutants of all files in turn, so that those run first are a sample of all."""
        rows = []
        for file in self.files:
            row = list(mutants_of(file))
            random.Random(file.name).shuffle(row)
            rows.append(row)
        for turn in zip_longest(*rows):
            yield from filter(None, turn)

    def _try(self, session: pytest.Session, mutant: Mutant) -> str:
        items = sorted(self.through.get((str(mutant.file), mutant.line), []), key=self.took.__getitem__)
        if not items:
            return "lived: no test comes through it"
        sys.stdout.flush()
        child = os.fork()
        if not child:
            os._exit(self._fails(session, mutant, items))
        _, status = os.waitpid(child, 0)
        return "lived" if status == 0 else "killed" if os.WIFEXITED(status) else "killed: hung"

    def _fails(self, session: pytest.Session, mutant: Mutant, items: list[Any]) -> int:
        """Return 1 where a test fails of the mutant, else 0; a test that takes too long ends the process."""
        resource.setrlimit(resource.RLIMIT_AS, (4 << 30, 4 << 30))
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        os.dup2(1, 2)
        try:
            self._put_in(mutant)
            for item in items:
                signal.setitimer(signal.ITIMER_REAL, EXTRA + TIMES * self.took[item])
                if _ends(session, item):
                    return 1
        except BaseException:  # such as pytest's Failed, or no memory
            return 1
        return 0

    def _put_in(self, mutant: Mutant) -> None:
        """Give the functions that stand at the mutant's place its code."""
        code = _code_at(mutant.code(), mutant.line)
        found = [each for each in self.functions[str(mutant.file), mutant.line]
                 if code is not None and each.__code__.co_qualname == code.co_qualname]  # fmt: skip
        assert code is not None, mutant
        assert found, mutant
        for function in found:
            function.__code__ = code

    def _record(self, mutant: Mutant, outcome: str) -> None:
        with self.results.open("a") as out:
            out.write(json.dumps({"mutant": mutant.name, "outcome": outcome}) + "\n")


def _lines(file: Path) -> list[str]:
    return file.read_text().splitlines() if file.exists() else []


@contextmanager
def _watched(files: set[str], seen: set[tuple[str, int]]) -> Iterator[None]:
    """Put down the functions of these files that are called."""
    codes: dict[int, CodeType] = {}

    def called(frame: FrameType, event: str, _: Any) -> None:
        if event == "call":
            codes[id(frame.f_code)] = frame.f_code

    threading.setprofile(called)
    sys.setprofile(called)
    yield
    sys.setprofile(None)
    threading.setprofile(None)
    for code in codes.values():
        if (file := str(Path(code.co_filename).resolve())) in files:
            seen.add((file, code.co_firstlineno))


def _ends(session: pytest.Session, item: Any) -> int:
    """Run one test; return how many have failed."""
    item.config.hook.pytest_runtest_protocol(item=item, nextitem=None)
    return session.testsfailed


def _functions_in(files: set[Path]) -> dict[tuple[str, int], list[FunctionType]]:
    """Return the functions of these files by their file and first line."""
    found: dict[tuple[str, int], list[FunctionType]] = defaultdict(list)
    for each in gc.get_objects():
        if isinstance(each, FunctionType) and each.__code__.co_filename.endswith(tuple(file.name for file in files)):
            file = Path(each.__code__.co_filename).resolve()
            if file in files:
                found[str(file), each.__code__.co_firstlineno].append(each)
    return found


def _code_at(code: CodeType, line: int) -> CodeType | None:
    inner = [each for each in code.co_consts if isinstance(each, CodeType)]
    here = next((each for each in inner if each.co_firstlineno == line and not each.co_name.startswith("<")), None)
    return here or next((found for each in inner if (found := _code_at(each, line))), None)


def main(results: str, *words: str) -> int:
    """Run the mutants, as told above; return pytest's exit code."""
    files = [ROOT / word for word in words if word.startswith("actors/")] or [
        ROOT / f"actors/{name}.py" for name in CORE
    ]
    tests = [word for word in words if word.startswith("tests/")] or [f"tests/test_{name}.py" for name in TESTS]
    arguments = ["-q", "-p", "no:cacheprovider", "--timeout=0", *(str(ROOT / test) for test in tests)]
    mutating = Mutating(Path(results).absolute(), files, survivors="--survivors" in words)
    return pytest.main(arguments, plugins=[mutating])


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
