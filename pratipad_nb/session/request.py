"""Requests for readings to a flow of this process, as `Flow.pull` makes them.

A request is followed from two places: this module looks at an edge in the same process, and
`pratipad_nb.cloud.request` asks an edge in another process. `pratipad_nb.request` is their common face, which
the user sees: it owns waiting for a request and the words about it.

Owns learning how far such a request is: the running edge counts it, and the end of the flow's run ends it.
"""

from __future__ import annotations

import asyncio

import msgspec

from pratipad_nb.request import FLOW_ENDED, Standing
from pratipad_nb.runtime.devices.pull import PullRequest
from pratipad_nb.session.ends import unless_ended

__all__ = ["AskedHere"]


class AskedHere:
    """A request to an edge of this process, whose run is `run`; see `pratipad_nb.request.Asked`."""

    def __init__(self, request: PullRequest, run: asyncio.Task[None]) -> None:
        self._request = request
        self._run = run

    @property
    def standing(self) -> Standing:
        """How far the request is now."""
        standing = self._request.standing
        if self._run.done() and not standing.over:
            return msgspec.structs.replace(standing, ended=FLOW_ENDED)
        return standing

    async def look(self, seconds: float | None) -> None:
        """Wait at most `seconds` until the request is over."""
        await unless_ended(self._request.done.wait(), self._run, seconds)

    async def cancel(self) -> None:
        """Let the edge ask devices for no more of the request."""
        self._request.cancel()
