"""The lineage of a run's logs: whether they are still those that the run's positions were read from.

Owns the comparison after each reconnect, and the pause until it is done. A server may come up with an older
store (a restored backup, a power cut), or with none. Then the positions in this process are ahead of the
logs: messages that came back with the input would be taken for repeats and acknowledged, although their
results are lost; and appends would fail as if another edge had taken over. So nothing is admitted and nothing
acknowledged between a reconnect and the comparison; and a run whose logs went back ends with `WentBack`, and
is begun anew from the logs as they are now (`pratipad_nb.runtime.edge.edge`).
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

from pratipad_nb.backoff import Backoff
from pratipad_nb.errors import TransportError, WaitTimeout
from pratipad_nb.transport.landmarks import Landmark, holds, landmark_of
from pratipad_nb.transport.protocol import Connection, Log, Record

__all__ = ["Footprint", "Holder", "Lineage", "WentBack"]

#: First and longest pause before a comparison that got no answer is tried again, in seconds.
_FIRST_PAUSE, _LONGEST_PAUSE = 0.05, 1.0


class WentBack(TransportError):
    """A log of the run went back."""


@dataclass(frozen=True, slots=True)
class Holder:
    """A part of the run that holds a position in the log called `log`.

    `difference` returns how that log differs from the log that the position is of, in words; empty if the log
    goes on from there.
    """

    log: str
    difference: Callable[[], Awaitable[str]]


class Footprint:
    """The newest entry that was read from a log, by which the log is recognised."""

    def __init__(self, log: Log) -> None:
        self._log = log
        self._newest: Landmark | None = None

    def note(self, record: Record) -> None:
        """Take note that `record` was read."""
        if self._newest is None or record.sequence > self._newest.sequence:
            self._newest = landmark_of(record)

    @property
    def holder(self) -> Holder:
        """The log and its footprint, for a `Lineage`."""
        return Holder(self._log.spec.name, self._difference)

    async def _difference(self) -> str:
        if self._newest is None:
            return ""
        state = await self._log.state()
        if await holds(self._log, self._newest, state):
            return ""
        return f"log {self._log.spec.name} was read up to {self._newest.sequence} and is now at {state.last}"


class Lineage:
    """Compares the logs of one run with the run's positions, after each reconnect."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._holders: list[Holder] = []
        #: Set while the logs are known to be those that the positions are of.
        self._known = asyncio.Event()
        self._known.set()
        self._reconnected = asyncio.Event()
        self._forget_callback = connection.on_reconnect(self._on_reconnect)

    def add(self, holders: Sequence[Holder]) -> None:
        """Compare the positions of `holders`, too."""
        self._holders += holders

    def _on_reconnect(self) -> None:
        self._known.clear()
        self._reconnected.set()

    @property
    def known(self) -> bool:
        """Whether the logs are known to be those that the positions are of: no comparison is due."""
        return self._known.is_set()

    async def compared(self) -> None:
        """Wait until no comparison is due."""
        await self._known.wait()

    async def run(self) -> None:
        """Compare after each reconnect, until cancelled.

        Raises
        ------
        WentBack
            If a log went back.
        TransportError
            If a log can't be read any more, or another edge has taken the output over.
        """
        while True:
            await self._reconnected.wait()
            while not self.known:
                if difference := await self.difference():
                    raise WentBack(difference)
                if not self._reconnected.is_set():
                    self._known.set()

    async def difference(self) -> str:
        """Return how a log differs from what its holder has read, in words; empty if none does.

        Waits for a server that is away. A log that is missing after a reconnect differs; a log that is
        deleted while the link stands was deleted by a user.
        """
        backoff = Backoff(_FIRST_PAUSE, _LONGEST_PAUSE)
        while True:
            self._reconnected.clear()
            try:
                for holder in self._holders:
                    if not self.known and await self._connection.find_log(holder.log) is None:
                        return f"log {holder.log} is gone"
                    if difference := await holder.difference():
                        return difference
            except WaitTimeout:
                await asyncio.sleep(backoff.next())
            else:
                return ""

    async def close(self) -> None:
        """Take note of reconnects no longer."""
        self._forget_callback()
