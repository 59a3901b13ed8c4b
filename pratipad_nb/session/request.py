"""Requests for readings, as `Flow.pull` and `AsyncFlow.pull` return them.

Owns waiting for one, and the words when it takes too long. Counting what is left is `pratipad_nb.runtime.devices.pull`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

from pratipad_nb.errors import FlowError, WaitTimeout
from pratipad_nb.runtime.devices.pull import PullRequest
from pratipad_nb.session.ends import ended_meanwhile, unless_ended
from pratipad_nb.settings import checked_wait

__all__ = ["AsyncRequest", "Request"]


class AsyncRequest:
    """A request for readings; see `Flow.pull`."""

    def __init__(self, flow: str, request: PullRequest, run: asyncio.Task[None]) -> None:
        self._flow = flow
        self._request = request
        self._run = run

    def __repr__(self) -> str:
        return f"<{type(self).__name__} to {self._flow!r}: {self.state}>"

    @property
    def left(self) -> int:
        """Readings that have not left the pipeline."""
        return max(0, self._request.left)

    @property
    def done(self) -> bool:
        """Whether all have."""
        return self.left == 0

    @property
    def state(self) -> str:
        """One phrase: "done", "3 of 5 readings left", or that and "cancelled" or "the flow ended"."""
        if self.done:
            return "done"
        over = ", cancelled" if self._request.cancelled else ", the flow ended" if self._run.done() else ""
        return f"{self.left} of {self._request.wanted} readings left{over}"

    async def wait(self, timeout: float | None = 10.0) -> None:
        """Wait until all readings have left the pipeline: emitted, filtered or dead-lettered.

        Raises
        ------
        WaitTimeout
            If they have not within `timeout` seconds; it names the devices that owe some.
        FlowError
            If the flow ends before, or the request is cancelled.
        """
        seconds = checked_wait(timeout, "wait: timeout")
        if not self._over:
            await unless_ended(self._request.done.wait(), self._run, seconds)
        self._check_done(seconds)

    @property
    def _over(self) -> bool:
        """Whether it makes no difference any more to wait for it or to cancel it."""
        return self.done or self._run.done()

    def _check_done(self, seconds: float | None) -> None:
        """Raise what `wait` does for a request that isn't done, after so many seconds."""
        if self.done:
            return
        readings = f"{self.left} of {self._request.wanted} readings"
        if self._request.cancelled:
            raise FlowError(f"the request was cancelled before {readings} had come. Pull again for more.")
        if self._run.done():
            raise ended_meanwhile(self._flow, f"{readings} were", "Start it with start(), and pull again.")
        silent = ", ".join(self._request.silent) or "no device is connected"
        raise WaitTimeout(f"{readings} have not come in {seconds:g} s; silent: {silent}.")

    async def cancel(self) -> None:
        """Ask for no more of it. What devices were asked for already still comes; one that is over stays as it is."""
        if not self._over:
            self._request.cancel()


class Request:
    """A request for readings, made by `Flow.pull`."""

    def __init__(self, run: Callable[[Coroutine[Any, Any, None]], None], request: AsyncRequest) -> None:
        self._run = run
        self._request = request

    def __repr__(self) -> str:
        return repr(self._request).replace("AsyncRequest", "Request", 1)

    @property
    def left(self) -> int:
        """Readings that have not left the pipeline."""
        return self._request.left

    @property
    def done(self) -> bool:
        """Whether all have."""
        return self._request.done

    @property
    def state(self) -> str:
        """One phrase: "done", "3 of 5 readings left", or that and "cancelled" or "the flow ended"."""
        return self._request.state

    def wait(self, timeout: float | None = 10.0) -> None:
        """Wait until all readings have left the pipeline: emitted, filtered or dead-lettered.

        Raises
        ------
        WaitTimeout
            If they have not within `timeout` seconds; it names the devices that owe some.
        FlowError
            If the flow ends before, or the request is cancelled.
        """
        seconds = checked_wait(timeout, "wait: timeout")
        if self._request._over:  # noqa: SLF001 - one handle; the loop it could be asked on may be closed
            self._request._check_done(seconds)  # noqa: SLF001
        else:
            self._run(self._request.wait(timeout))

    def cancel(self) -> None:
        """Ask for no more of it. What devices were asked for already still comes; one that is over stays as it is."""
        if not self._request._over:  # noqa: SLF001 - one handle
            self._run(self._request.cancel())
