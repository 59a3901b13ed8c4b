"""The account of one device: how many messages were granted to the device, and how many have come.

Owns a device's own pace, and what the pace says: how long the device is waited for, and how many messages it
is asked for ahead. Which device is granted messages, and when, is for `credit`.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from math import inf
from typing import TypeVar

from pratipad_nb.transport.frames import HelloFrame

__all__ = ["MOST_AHEAD", "PATIENCE", "Account"]

#: A device that was asked for messages and has sent none for so many seconds no longer holds up the others,
#: if its own pace is no slower.
PATIENCE = 1.0
#: A device is waited for by so many times its own pace, and no longer than so many seconds.
_PACES = 2.0
_LONGEST_PATIENCE = 30.0
#: A device is asked in Pull mode for as many readings ahead as it makes in so many seconds.
_AHEAD_SECONDS = 10.0
#: Most numbers that one device is asked for ahead in Demand mode: as many as one frame holds. In Pull mode a
#: request sets the bound.
MOST_AHEAD = 4096
_ANY = 1 << 40
#: A device that owes messages and has sent none for so many seconds is idle: others are asked meanwhile.
_IDLE = PATIENCE / 4
#: From so many lapses in a row on, a device is asked for less, and a message alone ends its rest, no word of
#: the device's. One lapse is any device's that is restarted, or whose link breaks.
_FORGIVEN = 2
#: So many starts of a device are remembered.
_STARTS = 8

Value = TypeVar("Value")


@dataclass(slots=True)
class Account:
    """One device, and the messages that it was granted. All numbers are the device's own.

    Attributes
    ----------
    epoch
        The device's present start.
    total
        Number up to which the device's messages are asked for.
    seen
        The device's last number that arrived.
    held
        Number of the last message that the device held or had sent, by its last hello.
    answers
        Whether the device makes readings when asked: then it may be granted numbers that it doesn't hold yet.
    connected
        Whether the device has said hello, and neither said farewell nor lost its connection since.
    owner
        The number of this edge's run as the device is told: higher than that of any edge whose grants the
        device went by before. Taking a grant back raises it.
    error
        The device's last words on its own failures.
    until
        When the device's certificate ends, by the device's last hello; 0.0: not known.
    moved
        When the device last said or sent anything, or was first asked, by the monotonic clock.
    since
        When the device last answered, or was first asked, by the monotonic clock.
    pace
        Seconds that the device takes for a reading, as measured; 0.0 before the first.
    taking
        When the device was told that its grant is taken back; None while it is not being taken back.
    rests
        How many times in a row grants were taken back from the device; 0 once it has answered.
    rested
        Until when the device is asked only if no other can be, by the monotonic clock.
    void
        By a start of the device, the numbers whose grant it may answer though they were asked of others:
        those above the first number, up to the second one.
    former
        By an earlier start of the device, the number up to which the start's messages have come, or come for
        certain.
    counted
        The device's part of the ledger's sum of messages that are asked for.
    watched
        When the ledger will next look at the device because of time alone.
    turn
        Grows with every grant: of several devices, the device with the lowest turn was asked longest ago.
    window
        Most numbers that a device which makes readings is asked for ahead. The window grows while answers
        come quickly and shrinks when they don't, so that one slow device doesn't take up all of the edge's
        room.
    trusted
        Most numbers that the device may owe: half of what it owed when a second grant in a row came to
        nothing, and one more for each number that has come since. What a device says that it holds is no
        proof, so a device that claims much and sends nothing is soon asked for one message at a time.
    lapses
        How many grants in a row came to nothing: none of their messages came before the grant was taken
        back, the device left, or began anew.
    topped
        What the device owed right after its last grant.
    idling
        The device's part of the ledger's sum of messages that idle devices owe.
    """

    device: str
    epoch: int = 0
    total: int = 0
    seen: int = 0
    held: int = 0
    answers: bool = False
    connected: bool = False
    owner: int = 0
    error: str = ""
    until: float = 0.0
    moved: float = 0.0
    since: float = 0.0
    pace: float = 0.0
    taking: float | None = None
    rests: int = 0
    rested: float = -inf
    void: dict[int, tuple[int, int]] = field(default_factory=dict)
    former: dict[int, int] = field(default_factory=dict)
    counted: int = 0
    watched: float = inf
    turn: int = 0
    window: int = 1
    trusted: int = _ANY
    lapses: int = 0
    topped: int = 0
    idling: int = 0
    _trial: tuple[int, float] | None = None

    @property
    def outstanding(self) -> int:
        """Messages that were granted and have not arrived."""
        return max(0, self.total - self.seen)

    @property
    def owed(self) -> int:
        """Messages that were granted, may yet arrive, and were not taken back.

        Messages that the device has sent without a grant, or says so, are no part of them.
        """
        coming = self.outstanding if self.answers else max(0, min(self.total, self.held) - self.seen)
        return min(coming, self.topped)

    @property
    def patience(self) -> float:
        """How long the device may take for its next message, in seconds: by its own pace, within bounds."""
        return min(_LONGEST_PATIENCE, max(PATIENCE, _PACES * self.pace)) if self.connected else PATIENCE

    @property
    def late(self) -> bool:
        """Whether the device was granted messages and has sent none for longer than its `patience`."""
        return self.outstanding > 0 and time.monotonic() >= self.since + self.patience

    @property
    def idle(self) -> bool:
        """Whether the device owes messages, and none has come for a while, or instead of the last grant."""
        return self.outstanding > 0 and (self.lapses > 0 or time.monotonic() >= self.since + _IDLE)

    @property
    def stuck(self) -> bool:
        """Whether messages that were granted should be asked of others, if there are any."""
        if not self.outstanding or self.taking is not None:
            return False
        return self.late or (self.connected and not self.answers and self.owed < self.outstanding)

    @property
    def responsive(self) -> bool:
        """Whether the device could be asked for messages."""
        return self.connected and self.taking is None and not self.late

    @property
    def resting(self) -> bool:
        """Whether the device is asked only if no other can be."""
        return self.rests > 0 and time.monotonic() < self.rested

    @property
    def spare(self) -> int:
        """Messages that the device holds beyond those that it was granted."""
        return max(0, self.held - max(self.total, self.seen))

    def wanted(self, *, pulled: bool) -> int:
        """Return for how many messages the device may be asked now, in Pull mode or in Demand mode.

        A device that has let its patience run out is asked for one message, until it has sent one.
        """
        if self.rests:
            return 1 if (self.answers or self.spare) and not self.outstanding else 0
        left = max(0, self.trusted - self.outstanding)
        if not self.answers:
            return min(self.spare, left)
        ahead = self.window
        if pulled:
            ahead = max(1, int(_AHEAD_SECONDS / self.pace)) if self.pace else _ANY
        return min(max(0, ahead - self.outstanding), left)

    def begin(self, epoch: int, sent: int, *, sure: int = 0) -> None:
        """Begin anew with a start of the device or of this edge; messages up to `sent` aren't waited for.

        Messages of the start before come for certain up to number `sure`.
        """
        self._lapse(self.outstanding)
        sure = max(self.seen, min(self.total, sure))
        _put(self.former, self.epoch, sure)
        if self.total > sure or self.epoch in self.void:
            self._void(sure)  # what is sure to come was asked for again, if it was ever asked of others
        self.epoch, self.total, self.seen, self.topped = epoch, sent, sent, 0
        self.since, self.taking = time.monotonic(), None
        self.forgive()
        self.window, self._trial = 1, None

    def forgive(self) -> None:
        """Ask the device in its turn again, unless its grants have come to nothing several times in a row."""
        if self.lapses < _FORGIVEN:
            self.rests = 0

    def _lapse(self, unpaid: int) -> None:
        """Note that `unpaid` messages of a grant haven't come, and don't come any more or only by a word."""
        if unpaid > 0:
            self.lapses += 1
            if self.lapses >= _FORGIVEN:
                self.trusted = max(1, min(self.trusted, self.topped, unpaid) // 2)
                self._ask_later()

    def grant(self, count: int) -> range:
        """Allow `count` more messages; return their numbers."""
        start = max(self.total, self.seen)
        self.total = start + count
        now = time.monotonic()
        if self.outstanding == count:  # nothing else is outstanding: the device's time to answer starts now
            self.moved = self.since = now
        self.topped = self.outstanding
        if self._trial is None:
            self._trial = (self.total, now)
        return range(start + 1, self.total + 1)

    def arrived(self, number: int) -> None:
        """Note that all messages up to `number` have arrived; adapt the window to the time they took."""
        now = time.monotonic()
        if self.outstanding:
            self._answered(number - max(self.seen, min(self.held, number)), now)
        self.rests = self.lapses = 0
        self.trusted = min(_ANY, self.trusted + number - self.seen)
        self.seen, self.moved = number, now
        if self._trial is not None and number >= self._trial[0]:
            took = now - self._trial[1]
            self._trial = None
            if took < PATIENCE / 4:
                self.window = min(MOST_AHEAD, 2 * self.window)
            elif took > PATIENCE:
                self.window = max(1, self.window // 2)

    def drops(self, number: int) -> None:
        """Note that of the messages up to `number` none comes any more that hasn't come."""
        if number > self.seen:
            self._lapse(min(number, self.total) - self.seen)
            self.seen = number

    def holds(self, number: int) -> None:
        """Note that the device holds messages up to `number`, or has sent them."""
        late = self.rests and self.lapses < _FORGIVEN
        if late and number > self.held:  # the reading that it was asked for has come too late
            self._answered(number - self.held, time.monotonic())
        self.held = number

    def _answered(self, made: int, now: float) -> None:
        """Note that the device has answered, with so many readings that it made for it."""
        if made > 0 and self.answers and self.connected:
            took = (now - self.since) / made
            self.pace = (self.pace + took) / 2 if self.pace else took
        self.since = now
        self.forgive()

    def heed(self, frame: HelloFrame) -> None:
        """Bring the total, and the void numbers, in line with what the device says that it goes by.

        A device that goes by the newest owner, or leaves, sends nothing beyond the messages that it has sent.
        """
        if frame.leaving or frame.owner == self.owner:
            if frame.leaving and self.taking is None:
                self._lapse(self.total - max(self.seen, frame.sent))
            if frame.leaving or self.taking is not None:
                self.total, self.taking = max(self.seen, min(self.total, frame.sent)), None
            if self.epoch in self.void:
                low, high = self.void[self.epoch]
                self.void[self.epoch] = low, min(high, frame.sent)
        # Messages that the device sent before this edge knew the device are not asked for again.
        if frame.sent > self.void.get(self.epoch, (0, 0))[1]:
            self.total = max(self.total, frame.sent)

    def rest(self, unpaid: int = 0) -> None:
        """Ask others first for a while: longer each time, unless the device says that it can't answer.

        Beside what the device owes, `unpaid` messages don't come that it has said to be sent or dropped.
        """
        before = self.rests
        if self.taking is None:
            self._lapse(self.outstanding + unpaid)
        if self.rests == before:
            self._ask_later()
        self.window, self._trial = 1, None

    def _ask_later(self) -> None:
        self.rests += 1
        doubled = min(_LONGEST_PATIENCE, PATIENCE * 2.0 ** min(self.rests - 1, 10))
        waits = self.answers or self.lapses >= _FORGIVEN
        self.rested = time.monotonic() + (doubled if waits else PATIENCE)

    def give_up(self) -> None:
        """Take the grant back without waiting for the device."""
        self.rest()
        self._void(self.seen)
        self.total, self.taking, self.topped = self.seen, None, 0

    def _void(self, low: int) -> None:
        before = self.void.get(self.epoch, (0, 0))
        _put(self.void, self.epoch, (low, max(self.total, before[1])))

    def void_of(self, epoch: int, first: int, last: int) -> int:
        """Return how many of the messages from `first` to `last`, the last ones, have void numbers."""
        low, high = self.void.get(epoch, (0, 0))
        if epoch == self.epoch:
            low = max(low, self.total)
        return max(0, last - max(low, first - 1)) if last <= high else 0

    @property
    def due(self) -> float:
        """When time alone will next change the device's standing; infinity if it won't."""
        moments = [inf]
        if self.taking is not None:
            moments.append(self.taking + PATIENCE)
        elif self.outstanding and not self.late:
            moments.append(self.since + self.patience)
        if self.outstanding and not self.idle:
            moments.append(self.since + _IDLE)
        if self.resting:
            moments.append(self.rested)
        return min(moments)


def _put(starts: dict[int, Value], epoch: int, value: Value) -> None:
    """Put `value` last into `starts`, and forget the starts beyond the limit."""
    starts.pop(epoch, None)
    starts[epoch] = value
    while len(starts) > _STARTS:
        del starts[next(iter(starts))]
