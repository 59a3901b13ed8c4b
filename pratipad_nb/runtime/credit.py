"""Credit: how many messages each device may send. One protocol under Push, Pull and Demand.

Owns the account of every device and the grants. A grant is a total, counted in the device's own numbers, so that a
lost or repeated one does no harm. What the modes differ in is who decides when to grant how much:

* Push: nobody; the total is without limit, from the first hello on.
* Demand: the edge, for the room it has (`Ledger.settle`).
* Pull: the cloud, by requests (`pratipad_nb.runtime.pull`).

Sending and receiving the frames is for `pratipad_nb.runtime.edge`.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from pratipad_nb.transport.frames import CreditFrame, HelloFrame

__all__ = ["UNLIMITED", "Account", "Ledger", "RateLimit"]

UNLIMITED = -1

#: A device that was granted messages and sent none for so long, in seconds, no longer keeps others from being asked.
PATIENCE = 1.0


@dataclass(slots=True)
class Account:
    """What is known of one device, and what it was granted.

    `seen` is its last number that arrived; `waiting` are the messages it holds, `answers` says that it makes
    readings when asked; `moved` is when it last said or sent anything.
    """

    device: str
    epoch: int = 0
    total: int = 0
    seen: int = 0
    waiting: int = 0
    answers: bool = False
    connected: bool = False
    error: str = ""
    moved: float = 0.0
    counted: int = 0

    @property
    def outstanding(self) -> int:
        """Messages that were granted and have not arrived."""
        return max(0, self.total - self.seen)

    @property
    def able(self) -> bool:
        """Whether a grant could bring a message now."""
        return self.connected and not self.error and (self.answers or self.waiting > self.outstanding)


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


class Ledger:
    """All accounts of a flow.

    Parameters
    ----------
    mode
        The flow's input.
    send
        Sends a credit frame to a device.
    in_hand
        Says how many messages are in the pipeline.
    max_demand, min_demand
        Demand: ask for more when no more than `min_demand` messages are in hand or asked for, up to `max_demand`.
    """

    def __init__(
        self,
        mode: Literal["Push", "Pull", "Demand"],
        send: Callable[[str, CreditFrame], None],
        in_hand: Callable[[], int],
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
        self._in_hand = in_hand
        self._turns: deque[str] = deque()
        self._lent = 0

    # -- what devices do ----------------------------------------------------------------------------------------

    def hello(self, frame: HelloFrame) -> Account:
        """Take note of a device's hello and answer it."""
        account = self.accounts.get(frame.device)
        if account is None:
            account = self.accounts[frame.device] = Account(frame.device)
            # Its turn comes first: a new device gets its share at once.
            self._turns.appendleft(frame.device)
        if frame.epoch != account.epoch:
            account.epoch, account.total, account.seen = frame.epoch, 0, 0
        account.connected = not frame.leaving
        account.waiting, account.answers, account.error = frame.waiting, frame.answers, frame.error
        account.moved = time.monotonic()
        # What it sent before this edge knew it is not asked for again.
        account.total = max(account.total, frame.sent) if self.mode != "Push" else UNLIMITED
        account.seen = max(account.seen, 0)
        self._count(account)
        if account.connected:
            self._tell(account)
        self.settle()
        return account

    def arrived(self, device: str, epoch: int, number: int) -> None:
        """Take note that messages up to `number` have arrived."""
        account = self.accounts.get(device)
        if account is None or account.epoch != epoch or number <= account.seen:
            return
        account.waiting = max(0, account.waiting - (number - account.seen))
        account.seen = number
        account.moved = time.monotonic()
        self._count(account)

    def gone(self, device: str) -> None:
        """Take note that a device is no longer connected: what was asked of it is asked of others."""
        account = self.accounts.get(device)
        if account is not None and account.connected:
            account.connected = False
            self._count(account)
            self.settle()

    def _count(self, account: Account) -> None:
        """Keep the sum of what is asked for, over the devices that may still bring it."""
        late = time.monotonic() - account.moved > PATIENCE
        owed = account.outstanding if account.connected and not account.error and not late else 0
        self._lent += owed - account.counted
        account.counted = owed

    def change_mode(self, mode: Literal["Push", "Pull", "Demand"]) -> None:
        """Go on in another mode, as another owner: what was granted before no longer holds."""
        self.mode = mode
        self.owner = max(self.owner + 1, time.time_ns() // 1_000_000)
        for account in self.accounts.values():
            account.total = account.seen

    # -- granting -----------------------------------------------------------------------------------------------

    def grant(self, account: Account, count: int) -> range:
        """Let a device send `count` more; return their numbers."""
        start = max(account.total, account.seen)
        account.total = start + count
        if account.outstanding == count:  # nothing was asked of it: its time to answer starts now
            account.moved = time.monotonic()
        self._count(account)
        self._tell(account)
        return range(start + 1, account.total + 1)

    def _tell(self, account: Account) -> None:
        self._send(
            account.device,
            CreditFrame(self.mode.lower(), self.owner, account.epoch, account.total, self._delivery),
        )

    def able(self) -> list[Account]:
        """Return the devices that could bring messages, in turn."""
        return [self.accounts[device] for device in self._turns if self.accounts[device].able]

    def served(self, accounts: list[Account]) -> None:
        """Put those that were asked at the end of the turn."""
        asked = {account.device for account in accounts}
        self._turns = deque(
            [d for d in self._turns if d not in asked] + [account.device for account in accounts]
        )

    def settle(self) -> None:
        """Demand: ask devices, in turn, for as many messages as there is room for."""
        if self.mode != "Demand":
            return
        expected = self._in_hand() + self._lent
        if expected > self.min_demand:
            return
        room = self.limit.room(self.max_demand - expected)
        asked: list[Account] = []
        able = self.able()
        while room > 0 and able:
            share = -(-room // len(able))
            account = able.pop(0)
            fair = (
                min(share, room)
                if account.answers
                else min(share, room, account.waiting - account.outstanding)
            )
            if fair > 0:
                self.grant(account, fair)
                self.limit.take(fair)
                asked.append(account)
                room -= fair
        if asked:
            self.served(asked)

    def tick(self) -> None:
        """Let time have its effect: late devices, and the rate limit. Called some twenty times a second."""
        for account in self.accounts.values():
            if account.counted:
                self._count(account)
        self.settle()
