"""A request for readings, of a flow that pulls, and the wait for them.

Owns how far a request is as seen from the cloud. Making one is `AsyncCloud.pull`; counting is the edge's.
"""

from __future__ import annotations

import asyncio
import time

from pratipad_nb.cloud.control import Control
from pratipad_nb.errors import WaitTimeout
from pratipad_nb.portal import Portal

__all__ = ["AsyncRequest", "Request"]

#: One question about a request stands at the edge for at most this long, in seconds, then it is asked again: an edge
#: that is started anew is noticed so.
_QUESTION = 5.0
#: Pause before an edge that is away is asked again, in seconds.
_POLL = 0.1


class AsyncRequest:
    """Readings that were asked for.

    Attributes
    ----------
    id
        What the edge knows it by.
    n
        How many readings were asked for.
    left
        How many of them had not left the pipeline when this was last known.
    silent
        Devices that owe them, as of then.
    """

    def __init__(self, control: Control, request: str, n: int) -> None:
        self._control = control
        self.id = request
        self.n = n
        self.left = n
        self.silent: tuple[str, ...] = ()

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.id!r}: {self.left} of {self.n} readings left>"

    @property
    def done(self) -> bool:
        """Whether all readings had left the pipeline when this was last known."""
        return self.left == 0

    async def wait(self, timeout: float = 30.0) -> None:
        """Wait until `n` readings have left the pipeline: emitted, filtered or dead-lettered.

        Raises
        ------
        WaitTimeout
            If they haven't in `timeout` seconds; it names the devices that are silent.
        """
        end = time.monotonic() + timeout
        while not self.done:
            left = end - time.monotonic()
            if left <= 0:
                raise WaitTimeout(self._late(timeout))
            try:
                progress = await self._control.progress(self.id, min(left, _QUESTION))
            except WaitTimeout:  # the edge is away; it may come back
                await asyncio.sleep(min(_POLL, left))
                continue
            self.left = 0 if progress.done else max(1, progress.left)
            self.silent = tuple(progress.silent)

    def _late(self, timeout: float) -> str:
        who = f"silent: {', '.join(self.silent)}" if self.silent else "no device is known to owe them"
        return (
            f"{self.left} of {self.n} readings that were pulled have not left the pipeline in {timeout:g} s; {who}. "
            "See whether the devices are connected and can read."
        )


class Request:
    """Readings that were asked for: the synchronous twin of `AsyncRequest`."""

    def __init__(self, portal: Portal, twin: AsyncRequest) -> None:
        self._portal = portal
        self._twin = twin

    def __repr__(self) -> str:
        return repr(self._twin).replace("AsyncRequest", "Request")

    @property
    def id(self) -> str:
        """What the edge knows it by."""
        return self._twin.id

    @property
    def done(self) -> bool:
        """Whether all readings had left the pipeline when this was last known."""
        return self._twin.done

    @property
    def left(self) -> int:
        """How many readings had not left the pipeline when this was last known."""
        return self._twin.left

    @property
    def silent(self) -> tuple[str, ...]:
        """Devices that owed them, as of then."""
        return self._twin.silent

    def wait(self, timeout: float = 30.0) -> None:
        """Wait until all have left the pipeline; see `AsyncRequest.wait`."""
        self._portal.run(self._twin.wait(timeout))
