"""Pull: the cloud's requests for readings, tied to the messages that answer them.

Owns the requests. A request is met by *numbers*: what a device is granted for it are its next numbers, and it is done
when the positions at Output have passed them, whether the messages were emitted, filtered or dead-lettered.
"""

from __future__ import annotations

import asyncio
import uuid
from dataclasses import dataclass, field

from pratipad_nb.errors import DeviceError, FlowError
from pratipad_nb.runtime.devices.credit import Account, Ledger
from pratipad_nb.runtime.positions.position import Positions
from pratipad_nb.settings import checked_count

__all__ = ["MOST", "Claim", "PullRequest", "Requests"]

#: Most readings that one request may ask for: a quarter of an hour at a thousand a second. A slip of the keyboard would
#: otherwise keep devices reading for years.
MOST = 1_000_000

#: Requests that are remembered after they were done, so that a late question about one is answered.
_REMEMBERED = 1000


@dataclass(slots=True)
class Claim:
    """Numbers of a device, from `low` to `high`, that answer a request."""

    device: str
    epoch: int
    low: int
    high: int

    def met(self, positions: Positions) -> int:
        """Return how many of them are at Output."""
        return min(max(0, positions.number(self.device, self.epoch) - self.low + 1), self.size)

    @property
    def size(self) -> int:
        """How many there are."""
        return self.high - self.low + 1


@dataclass(slots=True)
class PullRequest:
    """The cloud's wish for `wanted` readings, of one `device` or of any."""

    id: str
    wanted: int
    device: str | None
    claims: list[Claim] = field(default_factory=list)
    left: int = 0
    owing: set[str] = field(default_factory=set)
    #: Set when it is over: all readings have come, or it was cancelled.
    done: asyncio.Event = field(default_factory=asyncio.Event)
    cancelled: bool = False

    @property
    def unclaimed(self) -> int:
        """Readings that nobody has been asked for."""
        return self.wanted - sum(claim.size for claim in self.claims)

    @property
    def silent(self) -> list[str]:
        """Devices that were asked and haven't brought all of it."""
        return sorted(self.owing) or ([self.device] if self.device else [])

    def cancel(self) -> None:
        """Ask for no more of it: what was granted can't be taken back, and comes. One that is done stays so."""
        if not self.done.is_set():
            self.cancelled = True
            self.done.set()


class Requests:
    """The requests of one flow, open ones and the last that were done."""

    def __init__(self, ledger: Ledger, positions: Positions) -> None:
        self._ledger = ledger
        self._positions = positions
        self._open: dict[str, PullRequest] = {}
        self._done: dict[str, PullRequest] = {}

    def pull(self, count: int, device: str | None = None) -> PullRequest:
        """Ask for `count` readings, of `device` or of all in turn.

        Raises
        ------
        FlowError
            If the flow's input isn't Pull.
        SettingsError
            If `count` is no whole number from 1 to `MOST`.
        DeviceError
            If no such device has ever been there.
        """
        if self._ledger.mode != "Pull":
            raise FlowError(
                f"pull() is for flows that begin with Pull; this one begins with {self._ledger.mode}. "
                "Write `Pull <~> …` to decide here how many readings are sent."
            )
        checked_count(count, "pull: n", most=MOST)
        if device is not None and device not in self._ledger.accounts:
            known = ", ".join(sorted(self._ledger.accounts)) or "none yet"
            raise DeviceError(f"pull(): no device {device!r} has connected to this flow. Known: {known}.")
        request = PullRequest(uuid.uuid4().hex, count, device, left=count)
        self._open[request.id] = request
        self.settle()
        return request

    def find(self, request: str) -> PullRequest | None:
        """Return a request by its id, None if there is none (any more), or another run of this edge made it."""
        return self._open.get(request) or self._done.get(request)

    def settle(self) -> None:
        """Count what has come, take back what a device that went away still owes, and ask for what nobody was."""
        for request in list(self._open.values()):
            if not request.cancelled:
                self._take_back(request)
                if request.unclaimed > 0:
                    self._ask(request)
                self._measure(request)
            if request.left <= 0 or request.cancelled:
                request.done.set()
                del self._open[request.id]
                self._done[request.id] = request
                while len(self._done) > _REMEMBERED:
                    del self._done[next(iter(self._done))]

    def _measure(self, request: PullRequest) -> None:
        met = 0
        for claim in request.claims:
            here = claim.met(self._positions)
            met += here
            if here == claim.size > 0:
                request.owing.discard(claim.device)
            elif claim.size:
                request.owing.add(claim.device)
        request.left = request.wanted - met

    def _take_back(self, request: PullRequest) -> None:
        """Free what a device owes that is away, failing or silent, if there are others to ask.

        With nobody else to ask the claim stands, so that the device's answers count when it comes back.
        """
        for claim in request.claims:
            account = self._ledger.accounts.get(claim.device)
            current = account is not None and account.epoch == claim.epoch
            if account is not None and current:
                if request.device is not None or _answering(account) or not self._able(request):
                    continue
                seen = account.seen
            else:  # it has started again, and numbers anew
                seen = self._positions.number(claim.device, claim.epoch)
            claim.high = min(claim.high, max(seen, claim.low - 1))

    def _able(self, request: PullRequest) -> list[Account]:
        return [a for a in self._ledger.able() if request.device in (None, a.device)]

    def _ask(self, request: PullRequest) -> None:
        able = self._able(request)
        asked: list[Account] = []
        while request.unclaimed > 0 and able:
            share = -(-request.unclaimed // len(able))
            account = able.pop(0)
            count = min(share, self._ledger.limit.room(share))
            if not account.answers:
                count = min(count, account.spare)
            if count <= 0:
                continue
            numbers = self._ledger.grant(account, count)
            self._ledger.limit.take(count)
            request.claims.append(Claim(account.device, account.epoch, numbers[0], numbers[-1]))
            asked.append(account)
        if asked:
            self._ledger.served(asked)


def _answering(account: Account) -> bool:
    return account.connected and not account.late and (account.answers or account.owed == account.outstanding)
