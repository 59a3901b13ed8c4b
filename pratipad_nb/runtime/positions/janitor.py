"""The janitor: keeps the output log within its bounds, and every frame that a named reader has yet to read.

Owns the purging of the output log and the answer to "which reader does the flow wait for". No retention
policy of the server does both: a policy that deletes by age deletes frames that weren't read, a policy that
deletes by interest keeps nothing.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

from pratipad_nb import wording
from pratipad_nb.settings import HANDLE, FlowOptions, Keep, Storage
from pratipad_nb.transport.landmarks import entry_at, first_since
from pratipad_nb.transport.protocol import ConsumerState, Log, LogState

__all__ = ["UPLINK", "Janitor", "ReaderLag"]

#: The reader that forwards to the cloud. Its name begins with an underscore, as no other reader's name may.
UPLINK = "_uplink"

#: At this fraction of the bound, the oldest frames are deleted, down to a little less: little and often, for
#: a large purge keeps appends waiting (40 % of 800 MB: 142 ms).
_FULL, _CUT = 0.80, 0.78
#: So many of the newest frames always stay, for readers that look at the latest results. Of a log of few,
#: large frames only half stay, so that the log can be cut at all. A start needs the checkpoint and the frames
#: behind it, which stay in any case.
_KEPT = 64


@dataclass(frozen=True, slots=True)
class ReaderLag:
    """How far a reader is behind, in frames, and whether the flow waits for it."""

    pending: int
    blocking: bool


@dataclass
class Janitor:
    """Cleans up behind the readers.

    Attributes
    ----------
    checkpointed
        Returns the sequence up to which all positions are in a checkpoint.
    claimed
        Returns whether the named reader has ever begun to read. A reader that was let in and never came holds
        no frame back.
    storage
        How the server's storage stands; a disk that gets full is cleaned up before the log is at its bound.
    readers
        How far each reader was behind in the last round.
    """

    output: Log
    checkpointed: Callable[[], Awaitable[int]]
    keep: Keep
    options: FlowOptions
    claimed: Callable[[str], Awaitable[bool]]
    storage: Callable[[], Storage] = Storage
    readers: dict[str, ReaderLag] = field(default_factory=dict)
    _begun: set[str] = field(default_factory=set, init=False)

    async def sweep(self) -> None:
        """Do one round: look at the log and its readers, and purge the frames that may go."""
        state = await self.output.state()
        # A flow's own handle holds no frame back: it skips the frames that it doesn't take in time.
        consumers = [c for c in await self.output.consumers() if c.name != HANDLE]
        cut = max(await self._too_old(state), self._too_much(state))
        holding = [c for c in consumers if not self._expired(c)]
        if cut > state.first:
            holding = [c for c in holding if await self._has_begun(c.name)]
        floor = min((c.floor + 1 for c in holding), default=state.last + 1)
        full = self._surplus(state) > 0
        if self.options.on_lag == "discard" and full:
            floor, holding = state.last + 1, []
        self._begun &= {c.name for c in consumers}  # a reader may have been forgotten, and let in again
        self.readers = {
            c.name: ReaderLag(c.pending, full and c in holding and c.floor + 1 < cut) for c in consumers
        }
        # The next start needs the frames that the last checkpoint doesn't hold.
        below = min(cut, floor, state.last - min(_KEPT, state.messages // 2))
        if below > state.first and (below := min(below, await self.checkpointed())) > state.first:
            await self.output.purge(below)

    @property
    def blocked_by(self) -> tuple[str, ...]:
        """Why a full log isn't cut: a text for each reader that blocks."""
        return tuple(self._words(name, lag.pending) for name, lag in self.readers.items() if lag.blocking)

    def _words(self, name: str, pending: int) -> str:
        log = f"output log is full ({wording.size(self.keep.bytes)})"
        full = f"{pending} frames behind and the {'disk is full' if self.storage().missing else log}"
        if name == UPLINK:
            return f"the cloud's server is {full}: the link to it is down or too slow"
        return f"reader {name!r} is {full}: let it read, or flow.forget_reader({name!r})"

    async def _has_begun(self, name: str) -> bool:
        if name != UPLINK and name not in self._begun and not await self.claimed(name):
            return False
        self._begun.add(name)
        return True

    def _expired(self, consumer: ConsumerState) -> bool:
        expiry = self.options.reader_expiry
        return expiry is not None and consumer.active is not None and consumer.active > expiry

    def _too_much(self, state: LogState) -> int:
        surplus = self._surplus(state)
        if not surplus:
            return 0
        return state.first + max(1, int(state.messages * surplus / state.bytes))

    def _surplus(self, state: LogState) -> int:
        """Return how many bytes are too many: for the log's bound, or for the disk."""
        bound = min(self.keep.bytes, state.bound)
        beyond = state.bytes - int(bound * _CUT) if state.bytes > bound * _FULL else 0
        return min(state.bytes, max(beyond, self.storage().missing))

    async def _too_old(self, state: LogState) -> int:
        """Return the sequence of the first frame that is young enough."""
        oldest = time.time() - self.keep.seconds
        first = await entry_at(self.output, state.first) if state.messages else None
        if first is None or first.time >= oldest:
            return state.first
        return await first_since(self.output, oldest, state)
