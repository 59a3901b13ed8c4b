"""How long a test waits for a condition: the one place where time-outs are scaled to the machine.

`factor` is how many times longer than a quiet machine this machine takes for a fixed piece of work, measured
once in a test session. `until` and `eventually` wait on a condition that long, and pytest's own time-outs
grow by the same factor. A time-out that a test wants to see expire isn't scaled.
"""

from __future__ import annotations

import asyncio
import functools
import inspect
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

#: What one `_piece` takes on a quiet machine with two cores, in seconds.
_QUIET = 0.12
#: How many pieces are measured: the slowest counts, since a busy machine has quiet moments.
_PIECES = 4
_MOST = 10.0
#: How long a condition is waited for on a quiet machine, in seconds: a generous wait costs nothing where the
#: condition comes true.
SECONDS = 30.0


@functools.cache
def factor() -> float:
    """Return how much more patience than on a quiet machine is needed here: from 1 to 10."""
    return min(_MOST, max(1.0, max(_piece() for _ in range(_PIECES)) / _QUIET))


def _piece() -> float:
    """Start a process with the imports of most tests' processes, wake a loop up, return the seconds."""
    began = time.monotonic()
    subprocess.run([sys.executable, "-c", "import asyncio, ssl, json, email.message"], check=True)
    loop = asyncio.new_event_loop()
    try:
        for _ in range(10):
            loop.run_until_complete(asyncio.sleep(0.001))
    finally:
        loop.close()
    return time.monotonic() - began


def patient(seconds: float) -> float:
    """Return how long to wait here for what comes within `seconds` on a quiet machine."""
    return seconds * factor()


def until(condition: Callable[[], Any], seconds: float = SECONDS) -> None:
    """Wait in this thread until `condition` holds."""
    end = time.monotonic() + patient(seconds)
    while not condition():
        assert time.monotonic() < end, _missed(condition, seconds)
        time.sleep(0.005)


async def eventually(condition: Callable[[], Any], seconds: float = SECONDS) -> None:
    """Wait in the event loop until `condition` holds; it may be a coroutine function."""
    end = time.monotonic() + patient(seconds)
    while not await _outcome(condition):
        assert time.monotonic() < end, _missed(condition, seconds)
        await asyncio.sleep(0.005)


async def _outcome(condition: Callable[[], Any]) -> Any:
    outcome = condition()
    return await outcome if inspect.isawaitable(outcome) else outcome


def _missed(condition: Callable[[], Any], seconds: float) -> str:
    try:
        source = inspect.getsource(condition).strip()
    except (OSError, TypeError):
        source = repr(condition)
    return f"not so within {patient(seconds):.0f} s: {source}"
