"""Credit: how many messages each device may send. One protocol under Push, Pull and Demand.

Credit has two ends: this module is the edge's end, which grants. `pratipad_nb.device.credit` is the device's
end, which makes one number of the credit frames that arrive.

Owns the account of every device, the grants, and taking grants back. A grant is a total, counted in the
device's own numbers, so that a lost or repeated credit frame does no harm. The modes differ in the party that
decides on grants:

* Push: nobody; the total is without limit, from the first hello on.
* Demand: the edge, by the room in its pipeline (`Ledger.settle`).
* Pull: the cloud, by requests (`pratipad_nb.runtime.devices.pull`).

Sending the frames is for `signals`, and receiving hellos for `presence`.

Taking back: a message that was granted to one device and is asked of another would come twice if the first
device sent it after all. So a device that is connected is told a lower total by a higher owner, and its
messages count as asked for until its hello says, by that owner, how many of them it has sent: only the rest
is asked of others. A device that doesn't answer, or is gone, can't be waited for. Its numbers become *void*:
they are asked of others at once, and where the cloud has asked for a number of messages, messages with void
numbers that come all the same are not passed on (`Ledger.void`).

With ten thousand devices nothing here may look at all of them. Every event of a device (a hello, a message, a
grant, a farewell, the passing of time) ends in `Ledger._note`. That method brings the sums and queues up to
date for that device alone: how many messages are asked for in all, which devices could send a message and in
which turn, and when time alone will next change the device's standing.

The invariant behind this: `Ledger._lent` is the sum of `Account.owed` over all accounts, as each account
stood when it was noted last. It holds because `_note` adds the difference between `owed` and
`Account.counted`, the account's part of the sum, and every method that changes an account calls `_note`. Time
alone changes no sum, but may make a device late, end its rest, or end the wait for its hello; so `_watch`
holds the next such moment of each device, and `tick` notes the devices whose moment has come.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from heapq import heapify, heappop, heappush
from math import inf
from typing import Literal

from pratipad_nb.transport.frames import MAX_NUMBER, CreditFrame, HelloFrame

__all__ = ["PATIENCE", "UNLIMITED", "Account", "Ledger", "RateLimit", "Turns"]

UNLIMITED = -1

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
#: So many starts of a device are remembered whose messages may be void.
_STARTS = 8


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
    moved: float = 0.0
    since: float = 0.0
    pace: float = 0.0
    taking: float | None = None
    rests: int = 0
    rested: float = -inf
    void: dict[int, tuple[int, int]] = field(default_factory=dict)
    counted: int = 0
    watched: float = inf
    turn: int = 0
    window: int = 1
    _trial: tuple[int, float] | None = None

    @property
    def outstanding(self) -> int:
        """Messages that were granted and have not arrived."""
        return max(0, self.total - self.seen)

    @property
    def owed(self) -> int:
        """Messages that were granted, may yet arrive, and were not taken back."""
        return self.outstanding if self.answers else max(0, min(self.total, self.held) - self.seen)

    @property
    def patience(self) -> float:
        """How long the device may take for its next message, in seconds: by its own pace, within bounds."""
        return min(_LONGEST_PATIENCE, max(PATIENCE, _PACES * self.pace)) if self.connected else PATIENCE

    @property
    def late(self) -> bool:
        """Whether the device was granted messages and has sent none for longer than its `patience`."""
        return self.outstanding > 0 and time.monotonic() >= self.since + self.patience

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
        if not self.answers:
            return self.spare
        ahead = self.window
        if pulled:
            ahead = max(1, int(_AHEAD_SECONDS / self.pace)) if self.pace else _ANY
        return max(0, ahead - self.outstanding)

    def begin(self, epoch: int, sent: int) -> None:
        """Begin anew with a start of the device or of this edge; messages up to `sent` aren't waited for."""
        if self.outstanding:
            self._void()
        self.epoch, self.total, self.seen = epoch, sent, sent
        self.since, self.taking, self.rests = time.monotonic(), None, 0
        self.window, self._trial = 1, None

    def grant(self, count: int) -> range:
        """Allow `count` more messages; return their numbers."""
        start = max(self.total, self.seen)
        self.total = start + count
        now = time.monotonic()
        if self.outstanding == count:  # nothing else is outstanding: the device's time to answer starts now
            self.moved = self.since = now
        if self._trial is None:
            self._trial = (self.total, now)
        return range(start + 1, self.total + 1)

    def arrived(self, number: int) -> None:
        """Note that all messages up to `number` have arrived; adapt the window to the time they took."""
        now = time.monotonic()
        if self.outstanding:
            self._answered(number - max(self.seen, min(self.held, number)), now)
        self.seen, self.moved = number, now
        if self._trial is not None and number >= self._trial[0]:
            took = now - self._trial[1]
            self._trial = None
            if took < PATIENCE / 4:
                self.window = min(MOST_AHEAD, 2 * self.window)
            elif took > PATIENCE:
                self.window = max(1, self.window // 2)

    def holds(self, number: int) -> None:
        """Note that the device holds messages up to `number`, or has sent them."""
        if self.rests and number > self.held:  # the reading that it was asked for has come too late
            self._answered(number - self.held, time.monotonic())
        self.held = number

    def _answered(self, made: int, now: float) -> None:
        """Note that the device has answered, with so many readings that it made for it."""
        if made > 0 and self.answers and self.connected:
            took = (now - self.since) / made
            self.pace = (self.pace + took) / 2 if self.pace else took
        self.since, self.rests = now, 0

    def heed(self, frame: HelloFrame) -> None:
        """Bring the total, and the void numbers, in line with what the device says that it goes by.

        A device that goes by the newest owner, or leaves, sends nothing beyond the messages that it has sent.
        """
        if frame.leaving or frame.owner == self.owner:
            if frame.leaving or self.taking is not None:
                self.total, self.taking = max(self.seen, min(self.total, frame.sent)), None
            if self.epoch in self.void:
                low, high = self.void[self.epoch]
                self.void[self.epoch] = low, min(high, frame.sent)
        # Messages that the device sent before this edge knew the device are not asked for again.
        if frame.sent > self.void.get(self.epoch, (0, 0))[1]:
            self.total = max(self.total, frame.sent)

    def rest(self) -> None:
        """Ask others first for a while: longer each time, unless the device says that it can't answer."""
        self.rests += 1
        doubled = min(_LONGEST_PATIENCE, PATIENCE * 2.0 ** min(self.rests - 1, 10))
        self.rested = time.monotonic() + (doubled if self.answers else PATIENCE)
        self.window, self._trial = 1, None

    def give_up(self) -> None:
        """Take the grant back without waiting for the device."""
        self.rest()
        self._void()
        self.total, self.taking = self.seen, None

    def _void(self) -> None:
        before = self.void.pop(self.epoch, (0, 0))
        self.void[self.epoch] = self.seen, max(self.total, before[1])
        while len(self.void) > _STARTS:
            del self.void[next(iter(self.void))]

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
        if self.resting:
            moments.append(self.rested)
        return min(moments)


class RateLimit:
    """A limit of `allowed` messages in `interval` seconds, as a bucket that fills steadily; see `set`."""

    def __init__(self, allowed: float | None = None, interval: float = 1.0) -> None:
        self.allowed = allowed
        self.interval = interval
        self._tokens = 0.0
        self._filled = time.monotonic()

    def set(self, allowed: float | None, interval: float = 1.0) -> None:
        """Change the limit; None lifts it."""
        self.allowed = allowed
        self.interval = interval
        self._tokens = min(self._tokens, allowed or 0.0)

    def room(self, wanted: int) -> int:
        """Return how many of `wanted` may be granted now."""
        if self.allowed is None:
            return wanted
        now = time.monotonic()
        # Never more than a tenth of a second's messages at once (but one), so that the rate has no bursts.
        most = max(1.0, self.allowed / self.interval / 10)
        self._tokens = min(most, self._tokens + (now - self._filled) * self.allowed / self.interval)
        self._filled = now
        return min(wanted, int(self._tokens))

    def take(self, count: int) -> None:
        """Take `count` granted messages out of the bucket."""
        if self.allowed is not None:
            self._tokens -= count


class Turns:
    """The devices that could send a message if asked; the device that was asked longest ago is first.

    The invariant: every device of `_able` has an entry with its present `Account.turn` in the heap. `put` and
    `asked` push such an entry whenever a device joins or its turn changes. Older entries stay in the heap
    until they come to its top, where `first` drops them: their device has left `_able`, or was asked since.
    So the least entry that is left belongs to the device with the lowest turn, which was asked longest ago.
    """

    def __init__(self) -> None:
        self._able: dict[str, Account] = {}
        self._heap: list[tuple[int, str]] = []
        self._numbers = itertools.count(1)

    def __len__(self) -> int:
        return len(self._able)

    def __contains__(self, device: str) -> bool:
        return device in self._able

    def put(self, account: Account, *, able: bool) -> None:
        """Let a device take part in the turns, or not."""
        if not able:
            self._able.pop(account.device, None)
        elif account.device not in self._able:
            self._able[account.device] = account
            self._push(account)

    def first(self) -> Account | None:
        """Return the device whose turn it is; None if no device could send a message."""
        while self._heap:
            turn, device = self._heap[0]
            account = self._able.get(device)
            if account is not None and account.turn == turn:
                return account
            heappop(self._heap)
        return None

    def asked(self, account: Account) -> None:
        """Put a device at the end of the turns."""
        account.turn = next(self._numbers)
        if account.device in self._able:
            self._push(account)

    def clear(self) -> None:
        """Let no device take part."""
        self._able.clear()
        self._heap.clear()

    def _push(self, account: Account) -> None:
        heappush(self._heap, (account.turn, account.device))
        # Outdated entries would else pile up below an entry that stays at the top.
        if len(self._heap) > 2 * len(self._able) + 64:
            self._heap = [(each.turn, device) for device, each in self._able.items()]
            heapify(self._heap)


class Ledger:
    """All accounts of a flow.

    Parameters
    ----------
    mode
        The flow's input.
    send
        Sends a credit frame to a device.
    in_flight
        Returns how many messages are in the pipeline.
    delivery
        The flow's delivery, which devices are told: ``"fast"`` or ``"durable"``.
    max_demand, min_demand
        Demand: once no more than `min_demand` messages are in flight or asked for, ask for more, up to
        `max_demand`.
    limit
        The limit of the rate at which messages are asked for.
    on_change
        Told of every account that something has happened to.
    """

    def __init__(
        self,
        mode: Literal["Push", "Pull", "Demand"],
        send: Callable[[str, CreditFrame], None],
        in_flight: Callable[[], int],
        *,
        delivery: str,
        max_demand: int,
        min_demand: int,
        limit: RateLimit,
        on_change: Callable[[Account], None] = lambda _: None,
    ) -> None:
        self.mode = mode
        self.owner = time.time_ns() // 1_000_000
        self.accounts: dict[str, Account] = {}
        self.limit = limit
        self.max_demand = max_demand
        self.min_demand = min_demand
        self._delivery = delivery
        self._send = send
        self._in_flight = in_flight
        self._on_change = on_change
        self._turns = Turns()
        #: Devices that are asked only if no other could send a message.
        self._resting = Turns()
        #: Demand: devices whose messages should be asked of others, once others could send them.
        self._stuck: dict[str, Account] = {}
        #: When time will next change a device's standing, and the device.
        self._watch: list[tuple[float, str]] = []
        #: The sum of `Account.counted` over all accounts.
        self._lent = 0

    # -- events of devices -----------------------------------------------------------------------------------

    def hello(self, frame: HelloFrame) -> Account:
        """Take note of a device's hello and answer it with a credit frame; return the device's account."""
        account = self.accounts.get(frame.device)
        if account is None:
            # A new device has turn 0, which comes before all others: the device gets credit at once.
            account = self.accounts[frame.device] = Account(frame.device, owner=self.owner)
        if frame.epoch != account.epoch:
            if frame.leaving:
                return (
                    account  # the farewell of the device's earlier start, overtaken by the hello of its next
                )
            account.begin(frame.epoch, frame.sent)
        if frame.owner > account.owner:  # this edge's clock stands behind that of an earlier edge
            account.owner = min(frame.owner, MAX_NUMBER) + 1
        if not account.connected or frame.leaving:
            account.since, account.rests = time.monotonic(), 0
        account.connected, account.moved = not frame.leaving, time.monotonic()
        account.answers, account.error = frame.answers, frame.error
        account.holds(frame.sent + frame.waiting)
        account.seen = max(account.seen, frame.floor)
        if self.mode == "Push":
            account.total = UNLIMITED
        else:
            account.heed(frame)
        if self._delivery == "fast":  # a message that was sent and hasn't arrived is lost
            account.seen = max(account.seen, frame.sent)
        self._note(account)
        if account.connected:
            self._tell(account)
        self.settle()
        return account

    def arrived(self, device: str, epoch: int, number: int) -> None:
        """Take note that a device's messages up to `number` have arrived."""
        account = self.accounts.get(device)
        if account is None or account.epoch != epoch or number <= account.seen:
            return
        account.arrived(number)
        self._note(account)

    def gone(self, device: str) -> None:
        """Take note that a device is no longer connected: messages that it owes are asked of others."""
        account = self.accounts.get(device)
        if account is not None and account.connected:
            account.connected, account.since = False, -inf
            if account.taking is not None:
                self._give_up(account)
            self._note(account)
            self.settle()

    def void(self, device: str, epoch: int, first: int, last: int) -> int:
        """Return how many of a device's messages from `first` to `last`, the last ones, aren't to pass.

        In Pull mode these are messages that were asked of others since, so that more would come than the
        cloud has asked for.
        """
        account = self.accounts.get(device) if self.mode == "Pull" else None
        return 0 if account is None or not account.void else account.void_of(epoch, first, last)

    def _note(self, account: Account) -> None:
        """Bring the sum of messages that are asked for, and the queues, up to date for one account."""
        if self.mode == "Push":  # no messages are asked for
            return
        owed = account.owed
        self._lent += owed - account.counted
        account.counted = owed
        able = account.responsive and account.wanted(pulled=self.mode == "Pull") > 0
        rests = able and account.resting
        self._turns.put(account, able=able and not rests)
        self._resting.put(account, able=rests)
        if self.mode == "Demand" and account.stuck:
            self._stuck[account.device] = account
        else:
            self._stuck.pop(account.device, None)
        due = account.due
        if due < account.watched:
            account.watched = due
            heappush(self._watch, (due, account.device))
        self._on_change(account)

    def change_mode(self, mode: Literal["Push", "Pull", "Demand"]) -> None:
        """Go on in another mode, as another owner: earlier grants no longer hold."""
        self.mode = mode
        self.owner = max(self.owner + 1, time.time_ns() // 1_000_000)
        self._turns.clear()
        self._resting.clear()
        self._stuck.clear()
        self._lent = 0
        for account in self.accounts.values():
            account.owner = max(account.owner + 1, self.owner)
            account.total, account.counted, account.taking, account.rests = account.seen, 0, None, 0
            account.void.clear()
            self._note(account)

    # -- granting --------------------------------------------------------------------------------------------

    def grant(self, account: Account, count: int) -> range:
        """Let a device send `count` more messages; return their numbers."""
        numbers = account.grant(count)
        (self._turns if account.device in self._turns else self._resting).asked(account)
        self._note(account)
        self._tell(account)
        return numbers

    def take_back(self, account: Account) -> None:
        """Take back what a device was asked for and hasn't sent; `Account.total` tells what is left of it.

        If the device is connected, its total stays as it is until the device has said what it has sent.
        """
        account.owner = min(account.owner + 1, MAX_NUMBER)
        if not account.connected:
            self._give_up(account)
            return
        account.rest()
        account.taking = time.monotonic()
        self._note(account)
        self._tell(account)

    def _give_up(self, account: Account) -> None:
        account.give_up()
        self._note(account)

    def _tell(self, account: Account) -> None:
        total = account.total if account.taking is None else account.seen
        self._send(
            account.device,
            CreditFrame(self.mode.lower(), account.owner, account.epoch, total, self._delivery),
        )

    @property
    def able(self) -> int:
        """How many devices could send a message if they were asked."""
        return len(self._turns)

    def next_able(self, device: str | None = None) -> Account | None:
        """Return the device whose turn it is, or `device` if given; None if it could send no message."""
        if device is None:
            return self._turns.first() or self._resting.first()
        return self.accounts[device] if device in self._turns or device in self._resting else None

    def wanted(self, account: Account) -> int:
        """Return for how many messages a device may be asked now."""
        return account.wanted(pulled=self.mode == "Pull")

    def demand(self, max_demand: int, min_demand: int) -> None:
        """Demand: change both bounds, at once."""
        self.max_demand, self.min_demand = max_demand, min_demand
        self.settle()

    def settle(self) -> None:
        """Demand: ask devices, in turn, for as many messages as there is room for."""
        if self.mode != "Demand":
            return
        while self._stuck and self.able:
            self.take_back(next(iter(self._stuck.values())))
        expected = self._in_flight() + self._lent
        if expected > self.min_demand:
            return
        room = self.limit.room(self.max_demand - expected)
        sharing = self.able
        while room > 0 and (account := self.next_able()) is not None:
            fair = min(-(-room // max(1, sharing)), self.wanted(account))
            self.grant(account, fair)
            self.limit.take(fair)
            room -= fair
            sharing -= 1

    def tick(self) -> None:
        """Note devices whose standing time has changed, and use what the rate limit allows by now.

        Called some twenty times a second.
        """
        now = time.monotonic()
        while self._watch and self._watch[0][0] <= now:
            due, device = heappop(self._watch)
            account = self.accounts[device]
            if account.watched != due:  # the device is looked at sooner
                continue
            account.watched = inf
            if account.taking is not None and now >= account.taking + PATIENCE:
                self._give_up(account)
            else:
                self._note(account)
        self.settle()
