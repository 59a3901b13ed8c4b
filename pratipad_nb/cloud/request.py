"""Requests for readings to the edge of a flow in another process, as `Cloud.pull` makes them.

A request is followed from two places: this module asks the edge over the connection, and
`pratipad_nb.session.request` looks at an edge in the same process. `pratipad_nb.request` is their common
face, which the user sees: it owns waiting for a request and the words about it.

Owns learning how far such a request is: the edge is asked, and asked again while it is away.
"""

from __future__ import annotations

import asyncio

import msgspec

from pratipad_nb.backoff import Backoff
from pratipad_nb.cloud.control import Control
from pratipad_nb.errors import FlowError, WaitTimeout
from pratipad_nb.request import Standing

__all__ = ["AskedThere"]

#: A question about a request waits at the edge for at most this long, in seconds. Then the question is asked
#: again, so that an edge that was started anew is noticed.
_QUESTION = 5.0
#: First and longest pause before an edge that is away is asked again, in seconds.
_FIRST_PAUSE, _LONGEST_PAUSE = 0.1, 1.0


class AskedThere:
    """The request `id` for `n` readings, at the edge that `control` asks; see `pratipad_nb.request.Asked`.

    Attributes
    ----------
    standing
        How far the request was when the edge was heard last.
    """

    def __init__(self, control: Control, id: str, n: int) -> None:  # noqa: A002 - its name everywhere
        self._control = control
        self._id = id
        self._backoff = Backoff(_FIRST_PAUSE, _LONGEST_PAUSE)
        self.standing = Standing(n)

    async def look(self, seconds: float | None) -> None:
        """Ask the edge, which answers once the request is over, or after `seconds`, at most `_QUESTION`."""
        patience = _QUESTION if seconds is None else min(seconds, _QUESTION)
        try:
            self.standing = await self._control.progress(self._id, patience)
        except WaitTimeout:  # the edge is away, and may come back
            await asyncio.sleep(min(self._backoff.next(), patience))
        except FlowError:  # the edge that answers doesn't know the request, and says why
            self.standing = msgspec.structs.replace(self.standing, ended="the edge doesn't know it any more")
            raise
        else:
            self._backoff.reset()

    async def cancel(self) -> None:
        """Let the edge ask devices for no more of the request."""
        self.standing = await self._control.cancel(self._id)
