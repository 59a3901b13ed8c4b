"""Credit: how many messages each device may send. One protocol under Push, Pull and Demand.

Credit has two ends: this module is the edge's end, which grants. `pratipad_nb.device.credit` is the device's
end, which makes one number of the credit frames that arrive.

Owns the account of every device and the grants. A grant is a total, counted in the device's own numbers, so
that a lost or repeated credit frame does no harm. The modes differ in the party that decides on grants:

* Push: nobody; the total is without limit, from the first hello on.
* Demand: the edge, by the room in its pipeline (`Ledger.settle`).
* Pull: the cloud, by requests (`pratipad_nb.runtime.devices.pull`).

Sending the frames is for `signals`, and receiving hellos for `presence`.

With ten thousand devices nothing here may look at all of them. Every event of a device (a hello, a message, a
grant, a farewell, the passing of time) ends in `Ledger._note`. That method brings the sums and queues up to
date for that device alone: how many messages are asked for in all, which devices could send a message and in
which turn, and which device will be late next.

The invariant behind this: `Ledger._lent` is the sum of `Account.owed` over all accounts, as each account
stood when it was noted last. It holds because `_note` adds the difference between `owed` and
`Account.counted`, the account's part of the sum, and every method that changes an account calls `_note`. Time
alone changes `owed` without a method call, when a device becomes late; so `_owing` keeps the devices that may
become late in the order of `moved`, and `tick` notes those at its front.
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

#: A device that was granted messages and has sent none for so many seconds no longer holds up the others.
PATIENCE = 1.0
#: Most numbers that one device is asked for ahead: as many as one frame holds.
MOST_AHEAD = 4096


@dataclass(slots=True)
class Account:
    """One device, and the messages that it was granted. All numbers are the device's own.

    Attributes
    ----------
    epoch
        The device's present start.
    total
        Number up to which the device may send.
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
        device went by before.
    error
        The device's last words on its own failures.
    moved
        When the device last said or sent anything, or was first asked, by the monotonic clock.
    counted
        The device's part of the ledger's sum of messages that are asked for.
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
        """Messages that were granted and may be expected now: none from a device that is away or late."""
        if not self.connected or self.late:
            return 0
        return self.outstanding if self.answers else max(0, min(self.total, self.held) - self.seen)

    @property
    def late(self) -> bool:
        """Whether the device was granted messages and has sent none for `PATIENCE` seconds."""
        return self.outstanding > 0 and time.monotonic() - self.moved > PATIENCE

    @property
    def spare(self) -> int:
        """Messages that the device holds beyond those that it was granted."""
        return max(0, self.held - max(self.total, self.seen))

    @property
    def wanted(self) -> int:
        """Messages that Demand may ask the device for now."""
        return max(0, self.window - self.outstanding) if self.answers else self.spare

    @property
    def answering(self) -> bool:
        """Whether all messages that were granted may be expected to arrive."""
        return self.connected and not self.late and (self.answers or self.owed == self.outstanding)

    def begin(self, epoch: int, sent: int) -> None:
        """Begin anew with a start of the device or of this edge; messages up to `sent` aren't waited for."""
        self.epoch, self.total, self.seen = epoch, sent, sent
        self.window, self._trial = 1, None

    def grant(self, count: int) -> range:
        """Allow `count` more messages; return their numbers."""
        start = max(self.total, self.seen)
        self.total = start + count
        now = time.monotonic()
        if self.outstanding == count:  # nothing else is outstanding: the device's time to answer starts now
            self.moved = now
        if self._trial is None:
            self._trial = (self.total, now)
        return range(start + 1, self.total + 1)

    def arrived(self, number: int) -> None:
        """Note that all messages up to `number` have arrived; adapt the window to the time they took."""
        self.seen, self.moved = number, time.monotonic()
        if self._trial is not None and number >= self._trial[0]:
            took = self.moved - self._trial[1]
            self._trial = None
            if took < PATIENCE / 4:
                self.window = min(MOST_AHEAD, 2 * self.window)
            elif took > PATIENCE:
                self.window = max(1, self.window // 2)


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
        #: Devices that were granted messages and are not late yet, in the order of `Account.moved`.
        self._owing: OrderedDict[str, Account] = OrderedDict()
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
        account.connected = not frame.leaving
        account.held, account.answers, account.error = frame.sent + frame.waiting, frame.answers, frame.error
        account.moved = time.monotonic()
        self._owing.pop(frame.device, None)
        # Messages that the device sent before this edge knew the device are not asked for again.
        account.total = max(account.total, frame.sent) if self.mode != "Push" else UNLIMITED
        account.seen = max(account.seen, frame.floor)
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
        self._owing.pop(device, None)
        self._note(account)

    def gone(self, device: str) -> None:
        """Take note that a device is no longer connected: messages that it owes are asked of others."""
        account = self.accounts.get(device)
        if account is not None and account.connected:
            account.connected = False
            self._note(account)
            self.settle()

    def _note(self, account: Account) -> None:
        """Bring the sum of messages that are asked for, and the queues, up to date for one account."""
        if self.mode == "Push":  # no messages are asked for
            return
        owed = account.owed
        self._lent += owed - account.counted
        account.counted = owed
        responsive = account.connected and not account.late
        if responsive and account.outstanding:
            # Callers that set `moved` take the device out first, so the queue stays in the order of `moved`.
            self._owing.setdefault(account.device, account)
        else:
            self._owing.pop(account.device, None)
        if self.mode == "Demand":
            self._turns.put(account, able=responsive and account.wanted > 0)
        else:
            self._turns.put(account, able=responsive and (account.answers or account.spare > 0))
        self._on_change(account)

    def change_mode(self, mode: Literal["Push", "Pull", "Demand"]) -> None:
        """Go on in another mode, as another owner: earlier grants no longer hold."""
        self.mode = mode
        self.owner = max(self.owner + 1, time.time_ns() // 1_000_000)
        self._turns.clear()
        self._owing.clear()
        self._lent = 0
        for account in self.accounts.values():
            account.owner = max(account.owner + 1, self.owner)
            account.total, account.counted = account.seen, 0
            self._note(account)

    # -- granting --------------------------------------------------------------------------------------------

    def grant(self, account: Account, count: int) -> range:
        """Let a device send `count` more messages; return their numbers."""
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
        """How many devices could send a message if they were asked."""
        return len(self._turns)

    def next_able(self, device: str | None = None) -> Account | None:
        """Return the device whose turn it is, or `device` if given; None if it could send no message."""
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
        expected = self._in_flight() + self._lent
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
        """Note devices that have become late, and use what the rate limit allows by now.

        Called some twenty times a second. The loop may stop at the first device that isn't late, for the
        devices behind it have moved later.
        """
        while self._owing:
            account = next(iter(self._owing.values()))
            if not account.late:
                break
            self._note(account)
        self.settle()
