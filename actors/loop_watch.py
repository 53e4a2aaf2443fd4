"""The watch over an event loop: code that blocks it is named in a warning, for everything else waits meanwhile."""

import asyncio
import logging
import sys
import threading
import time
from types import FrameType
from weakref import WeakKeyDictionary

_log = logging.getLogger("perdure.loop")
_AGAIN_AFTER = 60.0  # seconds until the same code is named again

_watched: WeakKeyDictionary[asyncio.AbstractEventLoop, threading.Thread] = WeakKeyDictionary()


def watch_loop(seconds: float) -> None:
    """Watch the running loop from a thread: warn when nothing gets its turn there for so many seconds; 0: never.

    It costs the loop an empty callback every half of those seconds. A loop is watched once.
    """
    loop = asyncio.get_running_loop()
    if not seconds or loop in _watched:
        return
    watch = _Watch(loop, seconds, threading.get_ident())
    _watched[loop] = thread = threading.Thread(target=watch.run, name="perdure-loop-watch", daemon=True)
    thread.start()


class _Watch:
    def __init__(self, loop: asyncio.AbstractEventLoop, seconds: float, thread: int) -> None:
        self._loop = loop
        self._seconds = seconds
        self._thread = thread
        self._warned: dict[str, float] = {}

    def run(self) -> None:
        """Watch until the loop is closed."""
        while True:
            turn = threading.Event()
            try:
                self._loop.call_soon_threadsafe(turn.set)
            except RuntimeError:
                return
            while not turn.wait(self._seconds):
                if not self._loop.is_running():
                    return
                self._warn()
            time.sleep(self._seconds / 2)

    def _warn(self) -> None:
        task = asyncio.current_task(self._loop)
        who = task.get_name() if task is not None else "a callback"
        if time.monotonic() - self._warned.get(who, float("-inf")) < _AGAIN_AFTER:
            return
        self._warned[who] = time.monotonic()
        _log.warning(
            "%s blocks the event loop for more than %g s, %s; every other execution of this process waits. Await what "
            "takes long, make the tool a plain def, or set 'run_on: actor' on its node",
            who, self._seconds, _place(sys._current_frames().get(self._thread)),
        )  # fmt: skip


def _place(frame: FrameType | None) -> str:
    """Say where the thread is: the innermost code that is not of the standard library, or of perdure itself."""
    innermost = frame
    while frame is not None:
        name = frame.f_globals.get("__name__", "")
        top = name.partition(".")[0]
        if top not in sys.stdlib_module_names and top not in ("pydantic", "ray") and not _is_ours(name):
            break
        frame = frame.f_back
    frame = frame or innermost
    return f"at {frame.f_code.co_filename}:{frame.f_lineno} in {frame.f_code.co_name}" if frame else "at its end"


def _is_ours(module: str) -> bool:
    return module.startswith(("perdure.actors", "perdure.cluster", "perdure.events", "perdure.definitions"))
