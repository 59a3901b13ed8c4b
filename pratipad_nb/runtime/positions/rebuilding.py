"""Rebuilding: messages whose results are at Output pass the processors again, for the sake of their state.

A checkpoint is up to a second old when an edge is killed: the positions at Output have moved on since, the
states in the checkpoint have not. Owns the account of the messages between the two, and how far they have
passed the processors again. Finding these messages in the input is for `gatekeeper`, keeping them there until
a checkpoint covers them is for `upkeep`, dropping their results is for `outputs`.

The invariant: a processor's state is that of exactly the messages up to the positions at Output, but for the
messages in `Rebuild.behind`. It holds for these reasons:

* A checkpoint holds the states and positions of one moment (see `pratipad_nb.runtime.values.batch.Barrier`).
* The input's entries behind the checkpoint's floor stay in the log. The floor is the server's own account of
  what was acknowledged, as it was before the checkpoint's barrier was put in. An entry is acknowledged once
  all its messages are at Output, and have passed the processors again. So every message that the states of
  the checkpoint lack lies behind the floor, whatever the server or the client has lost on the way.
* At a start the input is set back to the floor. Of each device, the messages up to the states' position are
  repeats. Those from there to the position at Output pass again, in the log's order. All others are new.

The states are exact as far as they depend on messages alone. What a processor's timers, orders on their way
back, clocks or random numbers have changed since the checkpoint is not rebuilt. Nor are messages that were
replayed from a tape, and what an instance did that was left behind in a call that hung.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from pratipad_nb.runtime.positions.positions import Positions
from pratipad_nb.runtime.values.batch import Failed
from pratipad_nb.transport.frames import Position
from pratipad_nb.transport.protocol import ConsumerState

__all__ = ["REPLAYED", "Behind", "Gap", "Place", "Rebuild"]

log = logging.getLogger(__name__)

#: The name in the device's place in a replay's positions; no device can be called so.
REPLAYED = "#replay"
#: Where messages are counted: a device, or the place of retried dead letters, and an epoch.
Place = tuple[str, int]
#: For places whose messages at Output a state lacks: the number of the last message that the state has.
Behind = dict[Place, int]


@dataclass(slots=True)
class Gap:
    """The messages of one place that the states lack.

    Attributes
    ----------
    seen
        The last message that was admitted again.
    passed
        The last message that has passed all processors again.
    until
        The last message of the gap.
    """

    seen: int
    passed: int
    until: int


class Rebuild:
    """The messages at Output that the restored states lack.

    Parameters
    ----------
    flow
        The flow's name, for the log.
    behind
        Where the restored states stand, for each place at which they may lack messages.
    stored
        The positions at Output.
    floor
        The input's sequence up to which earlier runs have acknowledged all entries; -1: no entry that was
        acknowledged comes again.
    last
        The sequence of the input's last entry at the start.
    """

    def __init__(
        self, flow: str, behind: Mapping[Place, int], stored: Positions, *, floor: int = -1, last: int = -1
    ) -> None:
        self._flow = flow
        self._floor = floor
        self._last = last
        self.gaps = {
            place: Gap(number, number, until)
            for place, number in behind.items()
            if (until := stored.number(*place)) > number and not place[0].startswith(REPLAYED)
        }
        #: Of the messages that pass again, those that failed the first time. They pass the processors before,
        #: and no further, whatever has become of the cause: they go on when their dead letters are retried.
        self.failed: Failed = {}
        self.messages = sum(gap.until - gap.passed for gap in self.gaps.values())
        if self.gaps:
            log.info("%s: %d messages at Output pass again to rebuild the state", flow, self.messages)

    @property
    def going(self) -> bool:
        """Whether messages are yet to pass again."""
        return bool(self.gaps)

    @property
    def behind(self) -> Behind:
        """Where the states stand, for the places at which they lack messages."""
        return {place: gap.passed for place, gap in self.gaps.items()}

    def comes_again(self, sequence: int) -> bool:
        """Return whether an earlier run has acknowledged the input's entry `sequence`: it has nothing new."""
        return sequence <= self._floor

    def has_passed(self, device: str, epoch: int, number: int) -> bool:
        """Return whether the states have the message `number`, if it is at Output."""
        gap = self.gaps.get((device, epoch))
        return gap is None or gap.passed >= min(number, gap.until)

    def passed(self, positions: Iterable[Position]) -> None:
        """Note that the messages up to `positions` have passed all processors again."""
        for device, epoch, number in positions:
            gap = self.gaps.get((device, epoch))
            if gap is not None and number > gap.passed:
                gap.passed = number
                if number >= gap.until:
                    self._close((device, epoch))

    def give_up(self, place: Place) -> None:
        """Rebuild no more at `place`, for its messages can't pass again."""
        if gap := self.gaps.get(place):
            log.warning(
                "%s: %d messages of %s are gone from the input, and the state of processors lacks them",
                self._flow,
                gap.until - gap.passed,
                place[0],
            )
            self._close(place)

    def _close(self, place: Place) -> None:
        del self.gaps[place]
        if not self.gaps:
            log.info("%s: %d messages have rebuilt the state", self._flow, self.messages)

    def caught_up(self, progress: ConsumerState) -> None:
        """Note how far the input was acknowledged before all that has passed by now.

        Once no entry is left that was there at the start, messages of devices that haven't come won't come.
        """
        if not progress.pending or progress.floor >= self._floor:
            self._floor = -1
        if not progress.pending or progress.floor >= self._last:
            for place in [place for place in self.gaps if not place[0].startswith("#")]:
                self.give_up(place)
