"""How long a user's function may take: `Processor.timeout`.

Owns when each call of the user's function began, and the decision on a late call: either its thread comes
back in time, or the event loop leaves the instance behind. The lock lets one of the two decide first, and the
other one follows (`_end` raises, or `expire` returns False). So the results of a call are taken once. Without
a `timeout` there is no limit.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable
from typing import Any

from pratipad_nb.calls.call import is_async
from pratipad_nb.calls.call_errors import LeftBehind, TookTooLong

__all__ = ["TimeLimit"]


class TimeLimit:
    """The time limit of one instance's calls.

    Parameters
    ----------
    seconds
        How long one call of a user's function may take.
    owner
        The instance's name in words, for errors.

    Attributes
    ----------
    rescue
        Returns the outcome that a call of many rows has so far; rows of the late call fail with the given
        error.
    rescued
        The outcome that `rescue` returned when the instance was left behind.
    """

    def __init__(self, seconds: float, owner: str) -> None:
        self.seconds = seconds
        self._owner = owner
        self._lock = threading.Lock()
        self._began: float | None = None
        self._left = False
        self.rescue: Callable[[Exception], Any] | None = None
        self.rescued: Any = None

    def timed(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """Return a method of either kind of ``def``, each call of which is timed."""
        return self.timed_coroutine(function) if is_async(function) else self.timed_plain(function)

    def timed_plain(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """Return the ``def`` `function`, each call of which is timed."""

        def timed(*arguments: Any) -> Any:
            self._begin()
            try:
                return function(*arguments)
            finally:
                self._end()

        return timed

    def timed_coroutine(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """Return the ``async def`` `function`, each call of which is timed, and cancelled when late."""

        async def timed(*arguments: Any) -> Any:
            self._begin()
            try:
                async with asyncio.timeout(self.seconds) as scope:
                    return await function(*arguments)
            except TimeoutError as error:
                if not scope.expired():
                    raise
                raise self.late() from error
            finally:
                self._end()

        return timed

    def _begin(self) -> None:
        with self._lock:
            self._check()
            self._began = time.monotonic()

    def _end(self) -> None:
        with self._lock:
            self._began = None
            self._check()

    def _check(self) -> None:
        if self._left:
            raise LeftBehind(f"{self._owner} was left behind in a call that took too long.")

    def late(self) -> TookTooLong:
        """Return the error of a call that took too long."""
        return TookTooLong(
            f"{self._owner} took more than {self.seconds:g} s for a call (timeout = {self.seconds:g}). Mend "
            "it, or allow it more time; then retry_dead_letters() puts the message through again."
        )

    def left(self, grace: float = 0.0) -> float:
        """Return how many seconds are left for the call in flight."""
        began = self._began
        return self.seconds + grace - (0.0 if began is None else time.monotonic() - began)

    def expire(self, error: Exception, grace: float = 0.0) -> bool:
        """Return whether the call is late; if so, leave the instance behind and rescue the call's outcome."""
        with self._lock:
            if self._began is None or self.left(grace) > 0:
                return False
            self._left = True
            if self.rescue is not None:
                self.rescued = self.rescue(error)
            return True
