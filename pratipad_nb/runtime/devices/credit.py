"""Credit: how many messages each device may send. One protocol under Push, Pull and Demand.

Credit has two ends: this module is the edge's end, which grants. `pratipad_nb.device.credit` is the device's
end, which makes one number of the credit frames that arrive.

Owns the grants, and taking grants back. The account of one device is for `account`. A grant is a total,
counted in the device's own numbers, so that a lost or repeated credit frame does no harm. The modes differ in
the party that decides on grants:

* Push: nobody; the total is without limit, from the first hello on.
* Demand: the edge, by the room in its pipeline (`Ledger.settle`).
* Pull: the cloud, by requests (`pratipad_nb.runtime.devices.pull`).

Sending the frames is for `signals`, and receiving hellos for `hellos`.

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
stood when it was noted last, and `Ledger._idling` the sum over the idle accounts among them. It holds because
`_note` adds the difference between `owed` and `Account.counted`, the account's part of the sum, and every
method that changes an account calls `_note`. Time alone may make a device idle or late, end its rest, or end
the wait for its hello; so `_watch` holds the next such moment of each device, and `tick` notes the devices
whose moment has come.

What a device says in its hellos harms no other device, whatever it says: its share of the room is that of
each other device, no word of its own keeps a grant alive that it doesn't answer, and what it is asked for
next goes by what it has sent before (`Account.trusted`).
"""

from __future__ import annotations

import time
from collections.abc import Callable
from heapq import heappop, heappush
from math import inf
from typing import Literal

from pratipad_nb.runtime.devices.account import PATIENCE, Account
from pratipad_nb.runtime.devices.rate_limit import RateLimit
from pratipad_nb.runtime.devices.turns import Turns
from pratipad_nb.transport.frames import MAX_NUMBER, CreditFrame, HelloFrame

__all__ = ["UNLIMITED", "Ledger"]

UNLIMITED = -1


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
        #: The sums of `Account.counted` and of `Account.idling` over all accounts.
        self._lent = self._idling = 0

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
            # What a device has sent of its epoch before is in the input log: a durable frame has its receipt.
            sure = self._delivery == "durable" and frame.former == account.epoch
            account.begin(frame.epoch, frame.sent, sure=frame.former_sent if sure else 0)
        if frame.owner > account.owner:  # this edge's clock stands behind that of an earlier edge
            account.owner = min(frame.owner, MAX_NUMBER) + 1
        if not account.connected or frame.leaving:
            account.since = time.monotonic()
            account.forgive()
        account.connected, account.moved = not frame.leaving, time.monotonic()
        account.answers, account.error, account.until = frame.answers, frame.error, frame.until
        account.holds(frame.sent + frame.waiting)
        account.drops(frame.floor)
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
        idling = owed if account.idle else 0
        self._idling += idling - account.idling
        account.idling = idling
        able = account.responsive and self._may_be_asked(account)
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

    def _may_be_asked(self, account: Account) -> bool:
        """Return whether a device could be asked for a message.

        In Demand mode a device that owes messages is asked for more once it owes no more than
        `min_demand` : `max_demand` of what it owed after the last grant. Without that, a device that sends
        slowly, or nothing, would gather the room of all others, share by share.
        """
        if account.wanted(pulled=self.mode == "Pull") <= 0:
            return False
        owed = account.outstanding
        return self.mode != "Demand" or owed * self.max_demand <= account.topped * self.min_demand or not owed

    def change_mode(self, mode: Literal["Push", "Pull", "Demand"]) -> None:
        """Go on in another mode, as another owner: earlier grants no longer hold."""
        self.mode = mode
        self.owner = max(self.owner + 1, time.time_ns() // 1_000_000)
        self._turns.clear()
        self._resting.clear()
        self._stuck.clear()
        self._lent = self._idling = 0
        for account in self.accounts.values():
            account.owner = max(account.owner + 1, self.owner)
            account.total, account.taking = account.seen, None
            account.counted = account.idling = account.rests = 0
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

    def broke_word(self, account: Account, count: int) -> None:
        """Note that `count` messages, which a device says are sent or dropped, are not in the input."""
        account.rest(count)
        self._note(account)

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
        # What idle devices owe keeps no other device from being asked, as long as there is room.
        if expected - self._idling > self.min_demand:
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
