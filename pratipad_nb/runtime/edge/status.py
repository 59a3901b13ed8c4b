"""The status of a run: where in its life the run is, and why it failed.

Owns these two facts and the note of each append, which several parts of a run wait on. Which event changes
the status is for `edge` and `controls`.
"""

from __future__ import annotations

import asyncio
import contextlib
import time

from pratipad_nb.errors import FlowError
from pratipad_nb.runtime.values.stats import FlowState

__all__ = ["Status"]


class Status:
    """Where one run is in its life.

    Parameters
    ----------
    name
        The flow's name, for errors.

    Attributes
    ----------
    state
        The state that users see.
    error
        Why the run failed; empty if the run did not.
    started
        When the run began, by the monotonic clock.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self.state: FlowState = "starting"
        self.error = ""
        self.started = time.monotonic()
        self._appended = asyncio.Event()

    @property
    def takes(self) -> bool:
        """Whether the run takes messages and changes."""
        return self.state in ("running", "paused")

    def check_takes(self, what: str) -> None:
        """Raise `FlowError` unless the run `takes`; `what` says what the run can't do."""
        if not self.takes:
            raise FlowError(f"flow {self.name!r} is {self.state} and {what}.")

    def note_append(self) -> None:
        """Wake all callers that wait in `appended`."""
        self._appended.set()
        self._appended.clear()

    async def appended(self, seconds: float) -> None:
        """Wait until another frame is at Output, or `seconds` have passed."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._appended.wait()
