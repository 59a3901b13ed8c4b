"""Credit: how many messages each device may send. One protocol under Push, Pull and Demand.

Owns the account of every device and the grants. A grant is a total, counted in the device's own numbers, so that a
lost or repeated one does no harm. What the modes differ in is who decides when to grant how much:

* Push: nobody; the total is without limit, from the first hello on.
* Demand: the edge, for the room it has (`Ledger.settle`).
* Pull: the cloud, by requests (`pratipad_nb.runtime.devices.pull`).

Sending and receiving the frames is for `pratipad_nb.runtime.edge.edge`.

With ten thousand devices nothing here may look at all of them. Whatever concerns a device (a hello, a message, a grant,
its going, time) ends in `Ledger._note`, which brings the sums and queues up to date for that device alone: what is asked
for in all, which devices could bring something and whose turn it is, and who is the next to be late.
"""

from __future__ import annotations

import itertools
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from heapq import heapify, heappop, heappush
from typing import Literal

from pratipad_nb.transport.frames import MAX_NUMBER, CreditFrame, HelloFrame

__all__ = ["UNLIMITED", "Account", "Ledger", "RateLimit", "Turns"]

UNLIMITED = -1

#: A device that was granted messages and sent none for so long, in seconds, no longer keeps others from being asked.
PATIENCE = 1.0
#: Most numbers that one device is asked for ahead: a frame of them.
MOST_AHEAD = 4096


@dataclass(slots=True)
class Account:
    """What is known of one device, and what it was granted. All numbers are the device's own.

    Attributes
    ----------
    total
        Number up to which it may send.
    seen
        Its last number that arrived.
    held
        Number of the last message that it was known to hold or to have sent.
    answers
        Whether it makes readings when asked: then it may be granted numbers that it doesn't hold yet.
    owner
        The number of this edge's run as the device is told: higher than that of any edge whose grants the
        device went by before.
    moved
        When it last said or sent anything, or was first asked.
    window
        Most numbers that a device which makes readings is asked for ahead. It grows while answers come quickly and
        shrinks when they don't, so that one slow device doesn't take up all the room there is.
    counted
        What the ledger counts of it in the sum of what is asked for.
    turn
        Grows with every grant: of several devices, the one with the lowest was asked longest ago.
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
    counted: int = 0
    turn: int = 0
    window: int = 1
    _trial: tuple[int, float] | None = None

    @property
    def outstanding(self) -> int:
        """Messages that were granted and have not arrived."""
        return max(0, self.total - self.seen)

    @property
    def owed(self) -> int:
        """Messages that were granted and may be expected now: none of a device that is away or late."""
        if not self.connected or self.late:
            return 0
        return self.outstanding if self.answers else max(0, min(self.total, self.held) - self.seen)

    @property
    def late(self) -> bool:
        """Whether it was granted messages and has sent none for `PATIENCE` seconds."""
        return self.outstanding > 0 and time.monotonic() - self.moved > PATIENCE

    @property
    def spare(self) -> int:
        """Messages that it holds beyond what it was granted."""
        return max(0, self.held - max(self.total, self.seen))

    @property
    def wanted(self) -> int:
        """Messages that Demand may ask it for now."""
        return max(0, self.window - self.outstanding) if self.answers else self.spare

    @property
    def answering(self) -> bool:
        """Whether all that was granted may be expected to come."""
        return self.connected and not self.late and (self.answers or self.owed == self.outstanding)

    def begin(self, epoch: int, sent: int) -> None:
        """Begin anew: the device has started again, or this edge has. What it sent so far isn't waited for."""
        self.epoch, self.total, self.seen = epoch, sent, sent
        self.window, self._trial = 1, None

    def grant(self, count: int) -> range:
        """Allow `count` more; return their numbers."""
        start = max(self.total, self.seen)
        self.total = start + count
        now = time.monotonic()
        if self.outstanding == count:  # nothing was asked of it: its time to answer starts now
            self.moved = now
        if self._trial is None:
            self._trial = (self.total, now)
        return range(start + 1, self.total + 1)

    def arrived(self, number: int) -> None:
        """Note that all up to `number` is here, and judge by the time it took how much to ask for ahead."""
        self.seen, self.moved = number, time.monotonic()
        if self._trial is not None and number >= self._trial[0]:
            took = self.moved - self._trial[1]
            self._trial = None
            if took < PATIENCE / 4:
                self.window = min(MOST_AHEAD, 2 * self.window)
            elif took > PATIENCE:
                self.window = max(1, self.window // 2)


class RateLimit:
    """At most `allowed` messages an `interval` of seconds, as a bucket that fills steadily; both may be changed."""

    def __init__(self, allowed: float | None = None, interval: float = 1.0) -> None:
        self._tokens = 0.0
        self._filled = time.monotonic()
        self.set(allowed, interval)

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
        # Never more than a tenth of a second's worth at once (but one), so that a rate is smooth and not in bursts.
        most = max(1.0, self.allowed / self.interval / 10)
        self._tokens = min(most, self._tokens + (now - self._filled) * self.allowed / self.interval)
        self._filled = now
        return min(wanted, int(self._tokens))

    def take(self, count: int) -> None:
        """Count `count` messages as granted."""
        if self.allowed is not None:
            self._tokens -= count


class Turns:
    """The devices that could bring a message if they were asked, the one that was asked longest ago first.

    A heap, whose entries are dropped when they come to its top and hold no more: a device that left, or was asked since.
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
        """Return the device whose turn it is, None if there is none."""
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
        # Entries that hold no more would else pile up below one that stays at the top.
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
        Says how many messages are in the pipeline.
    max_demand, min_demand
        Demand: ask for more when no more than `min_demand` messages are in flight or asked for, up to `max_demand`.
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
    ) -> None:
        self.mode = mode
        self.owner = time.time_ns() // 1_000_000
        self.accounts: dict[str, Account] = {}
        self.limit = limit
        self.max_demand = max_demand
        self.min_demand = min_demand
        self._delivery = delivery
        self._send = send
        self._in_hand = in_flight
        self._turns = Turns()
        #: Devices that were granted messages and are not late yet, the one that moved longest ago first.
        self._owing: OrderedDict[str, Account] = OrderedDict()
        self._lent = 0
        #: Told of every account that something has happened to.
        self.on_change: Callable[[Account], None] = lambda _: None

    # -- what devices do ----------------------------------------------------------------------------------------

    def hello(self, frame: HelloFrame) -> Account:
        """Take note of a device's hello and answer it."""
        account = self.accounts.get(frame.device)
        if account is None:
            # It has never been asked, so its turn comes first: a new device gets its share at once.
            account = self.accounts[frame.device] = Account(frame.device, owner=self.owner)
        if frame.epoch != account.epoch:
            if frame.leaving:
                return account  # the farewell of an earlier run of it, overtaken by the next one's hello
            account.begin(frame.epoch, frame.sent)
        if frame.owner > account.owner:  # this edge's clock stands behind that of an earlier edge
            account.owner = min(frame.owner, MAX_NUMBER) + 1
        account.connected = not frame.leaving
        account.held, account.answers, account.error = frame.sent + frame.waiting, frame.answers, frame.error
        account.moved = time.monotonic()
        self._owing.pop(frame.device, None)
        # What it sent before this edge knew it is not asked for again.
        account.total = max(account.total, frame.sent) if self.mode != "Push" else UNLIMITED
        account.seen = max(account.seen, frame.floor)
        if self._delivery == "fast":  # what was sent and isn't here is lost
            account.seen = max(account.seen, frame.sent)
        self._note(account)
        if account.connected:
            self._tell(account)
        self.settle()
        return account

    def arrived(self, device: str, epoch: int, number: int) -> None:
        """Take note that messages up to `number` have arrived."""
        account = self.accounts.get(device)
        if account is None or account.epoch != epoch or number <= account.seen:
            return
        account.arrived(number)
        self._owing.pop(device, None)
        self._note(account)

    def gone(self, device: str) -> None:
        """Take note that a device is no longer connected: what was asked of it is asked of others."""
        account = self.accounts.get(device)
        if account is not None and account.connected:
            account.connected = False
            self._note(account)
            self.settle()

    def _note(self, account: Account) -> None:
        """Bring the sum of what is asked for, and the queues, up to date for one account that has changed."""
        if self.mode == "Push":  # nothing is asked for
            return
        owed = account.owed
        self._lent += owed - account.counted
        account.counted = owed
        here = account.connected and not account.late
        if here and account.outstanding:
            # Whoever has moved was taken out of the queue before, so that the order of the queue is that of `moved`.
            self._owing.setdefault(account.device, account)
        else:
            self._owing.pop(account.device, None)
        if self.mode == "Demand":
            self._turns.put(account, able=here and account.wanted > 0)
        else:
            self._turns.put(account, able=here and (account.answers or account.spare > 0))
        self.on_change(account)

    def change_mode(self, mode: Literal["Push", "Pull", "Demand"]) -> None:
        """Go on in another mode, as another owner: what was granted before no longer holds."""
        self.mode = mode
        self.owner = max(self.owner + 1, time.time_ns() // 1_000_000)
        self._turns.clear()
        self._owing.clear()
        self._lent = 0
        for account in self.accounts.values():
            account.owner = max(account.owner + 1, self.owner)
            account.total, account.counted = account.seen, 0
            self._note(account)

    # -- granting -----------------------------------------------------------------------------------------------

    def grant(self, account: Account, count: int) -> range:
        """Let a device send `count` more; return their numbers."""
        numbers = account.grant(count)
        self._turns.asked(account)
        self._note(account)
        self._tell(account)
        return numbers

    def _tell(self, account: Account) -> None:
        self._send(
            account.device,
            CreditFrame(self.mode.lower(), account.owner, account.epoch, account.total, self._delivery),
        )

    @property
    def able(self) -> int:
        """How many devices could bring a message if they were asked."""
        return len(self._turns)

    def next_able(self, device: str | None = None) -> Account | None:
        """Return the device whose turn it is, or `device` if that is meant; None if it could bring nothing."""
        if device is None:
            return self._turns.first()
        return self.accounts[device] if device in self._turns else None

    def demand(self, max_demand: int, min_demand: int) -> None:
        """Demand: change both bounds, at once."""
        self.max_demand, self.min_demand = max_demand, min_demand
        self.settle()

    def settle(self) -> None:
        """Demand: ask devices, in turn, for as many messages as there is room for."""
        if self.mode != "Demand":
            return
        expected = self._in_hand() + self._lent
        if expected > self.min_demand:
            return
        room = self.limit.room(self.max_demand - expected)
        sharing = self.able
        while room > 0 and (account := self.next_able()) is not None:
            fair = min(-(-room // max(1, sharing)), account.wanted)
            self.grant(account, fair)
            self.limit.take(fair)
            room -= fair
            sharing -= 1

    def tick(self) -> None:
        """Let time have its effect: late devices, and the rate limit. Called some twenty times a second."""
        while self._owing:
            account = next(iter(self._owing.values()))
            if not account.late:
                break
            self._note(account)
        self.settle()
