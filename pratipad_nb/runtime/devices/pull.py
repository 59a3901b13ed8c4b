"""Pull: the cloud's requests for readings, tied to the messages that answer them.

Owns the requests. A request is met by *numbers*: what a device is granted for it are its next numbers, and it is done
when the positions at Output have passed them, whether the messages were emitted, filtered or dead-lettered.

Requests may be many, large, and open for long, and settling comes twenty times a second and with every frame at Output. So
nothing here looks at what hasn't changed:

* A *claim* holds the numbers of one device that are owed to one request. Numbers only grow, so that the claims on a device
  stand in a row, and what has come is taken off its front. Numbers granted one after the other to one request are one claim.
* Requests with readings that nobody was asked for wait in a row for each device that is named, and in one for all others.
  A row is *ready* while a device could answer it, which `Ledger.on_change` tells.
* A device that doesn't answer is *away*: what it owes is asked of others as soon as there is another.
"""

from __future__ import annotations

import asyncio
import uuid
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from pratipad_nb.errors import DeviceError, FlowError
from pratipad_nb.request import CANCELLED, Standing, checked_pull
from pratipad_nb.runtime.devices.credit import Account, Ledger
from pratipad_nb.settings import gateway_of
from pratipad_nb.transport.frames import Position

__all__ = ["MOST_OPEN", "Claim", "PullRequest", "Requests"]

#: Requests that may be open at once: a program that pulls on and on while no device is there would else fill the memory.
MOST_OPEN = 1000

#: Requests that are remembered after they were over, so that a late question about one is answered.
_REMEMBERED = 1000


@dataclass(slots=True, eq=False)
class PullRequest:
    """The cloud's wish for `wanted` readings, of one `device` or of any.

    Attributes
    ----------
    left
        Readings that have not left the pipeline.
    unclaimed
        Readings that nobody has been asked for.
    owing
        How many each device that was asked has yet to bring; 0 if that was asked of others since.
    done
        Set when the request is over: all readings have come, or it ended early.
    ended
        Why it ended early, in words.
    """

    id: str
    wanted: int
    device: str | None
    close: Callable[[PullRequest, str], None]
    left: int = 0
    unclaimed: int = 0
    owing: dict[str, int] = field(default_factory=dict)
    done: asyncio.Event = field(default_factory=asyncio.Event)
    ended: str = ""

    def __post_init__(self) -> None:
        self.left = self.unclaimed = self.wanted

    @property
    def standing(self) -> Standing:
        """How far it is."""
        return Standing(self.left, self.silent, self.ended)

    @property
    def silent(self) -> tuple[str, ...]:
        """Devices that were asked and haven't brought all of it."""
        if self.left == 0:
            return ()
        return tuple(sorted(self.owing)) or ((self.device,) if self.device else ())

    def cancel(self) -> None:
        """Ask for no more of it: what was granted can't be taken back, and comes. One that is over stays as it is."""
        self.close(self, CANCELLED)


@dataclass(slots=True)
class Claim:
    """Numbers of a device, from `low` to `high`, that are owed to a request."""

    request: PullRequest
    device: str
    epoch: int
    low: int
    high: int

    @property
    def size(self) -> int:
        """How many there are."""
        return self.high - self.low + 1


class Requests:
    """The requests of one flow, open ones and the last that were over."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self._run = uuid.uuid4().hex
        self._made = 0
        self._open: dict[str, PullRequest] = {}
        self._over: dict[str, PullRequest] = {}
        self._claims: dict[str, deque[Claim]] = {}
        #: Requests with readings that nobody was asked for, by the device that is named: None for all others.
        self._unasked: dict[str | None, dict[str, PullRequest]] = {}
        self._ready: dict[str | None, None] = {}
        self._away: dict[str, None] = {}
        self._changed: dict[str, Account] = {}
        ledger.on_change = self._note

    def pull(self, count: int, device: str | None = None) -> PullRequest:
        """Ask for `count` readings, of `device` or of all in turn.

        Raises
        ------
        FlowError
            If the flow's input isn't Pull, or `MOST_OPEN` requests are open.
        SettingsError
            If `count` is no whole number from 1 to `MOST_READINGS`, or `device` can't name a device.
        DeviceError
            If no such device has ever been there.
        """
        if self._ledger.mode != "Pull":
            raise FlowError(
                f"pull() is for flows that begin with Pull; this one begins with {self._ledger.mode}. "
                "Write `Pull <~> …` to decide here how many readings are sent."
            )
        checked_pull(count, device)
        if device is not None and device not in self._ledger.accounts:
            raise self._unknown(device)
        if len(self._open) >= MOST_OPEN:
            raise FlowError(
                f"pull({count}): {len(self._open):,} requests of this flow are open, and {MOST_OPEN:,} may be. Wait for "
                "some with request.wait(), give up others with request.cancel(), or ask for more readings in one pull()."
            )
        self._made += 1
        request = PullRequest(f"{self._run}-{self._made}", count, device, self._close)
        self._open[request.id] = request
        self._queue(request)
        self.settle()
        return request

    def _unknown(self, device: str) -> DeviceError:
        gateway = gateway_of(device)
        if gateway in self._ledger.accounts:
            return DeviceError(
                f"pull(): {device!r} speaks through the gateway {gateway!r}, and is not asked by itself. Ask the gateway: "
                f"pull(…, device={gateway!r})."
            )
        known = ", ".join(sorted(self._ledger.accounts)) or "none yet"
        return DeviceError(f"pull(): no device {device!r} has connected to this flow. Known: {known}.")

    def find(self, request: str) -> PullRequest:
        """Return a request by its id.

        Raises
        ------
        FlowError
            If it has been over for long, or another run of this edge made it.
        """
        found = self._open.get(request) or self._over.get(request)
        if found is not None:
            return found
        run, _, number = request.rpartition("-")
        if run == self._run and number.isdecimal() and 0 < int(number) <= self._made:
            raise FlowError(
                f"request {request} has been over for long, and how it ended is forgotten: {_REMEMBERED:,} others were "
                "over since. Ask about a request sooner."
            )
        raise FlowError(f"request {request} is not known: the flow was started anew since. Pull again.")

    def end(self, why: str) -> None:
        """End all open requests, for a reason in words."""
        self._claims.clear()
        for request in list(self._open.values()):
            self._close(request, why)

    # -- what happens -------------------------------------------------------------------------------------------

    def stored(self, positions: Iterable[Position]) -> None:
        """Count what has come: messages up to `positions` are at Output."""
        if not self._claims:
            return
        for device, epoch, number in positions:
            claims = self._claims.get(device)
            while claims and claims[0].epoch == epoch and claims[0].low <= number:
                self._bring(claims[0], min(number, claims[0].high))
                if not claims[0].size:
                    claims.popleft()
            if claims is not None and not claims:
                self._claims.pop(device, None)

    def _bring(self, claim: Claim, number: int) -> None:
        """Count that a device's messages up to `number` have come for a request."""
        request, count = claim.request, number - claim.low + 1
        claim.low += count
        request.left -= count
        request.owing[claim.device] -= count
        if not request.owing[claim.device]:
            del request.owing[claim.device]
        if not request.left:
            self._close(request, "")

    def _note(self, account: Account) -> None:
        """Take note that something has happened to a device; `Ledger.on_change`."""
        if self._open:
            self._changed[account.device] = account

    def settle(self) -> None:
        """Take back what devices that went away still owe, and ask for what nobody was."""
        if not self._open:
            return
        changed, self._changed = self._changed, {}
        for account in changed.values():
            self._look_at(account)
        if self._away and self._ledger.able:
            away, self._away = self._away, {}
            for device in away:
                self._take_back(device)
        self._ask()

    def _look_at(self, account: Account) -> None:
        device = account.device
        claims = self._claims.get(device)
        while claims and claims[0].epoch != account.epoch:  # it has started again, and numbers anew
            claim = claims.popleft()
            self._give_back(claim, claim.low - 1)
        if not claims:
            self._claims.pop(device, None)
        if not claims or account.answering:
            self._away.pop(device, None)
        else:
            self._away[device] = None
        if self._ledger.next_able(device) is not None:
            for row in (None, device):
                if row in self._unasked:
                    self._ready.setdefault(row)

    # -- taking back --------------------------------------------------------------------------------------------

    def _take_back(self, device: str) -> None:
        """Free what a device owes that is away, failing or silent, but for requests that name it.

        With nobody else to ask a claim stands, so that the device's answers count when it comes back.
        """
        claims, seen = self._claims.get(device, deque()), self._ledger.accounts[device].seen
        for claim in claims:
            if claim.request.device is None:
                self._give_back(claim, seen)
        self._keep(device, (claim for claim in claims if claim.size))

    def _give_back(self, claim: Claim, last: int) -> None:
        """Free the numbers of a claim behind `last`."""
        high = min(claim.high, max(last, claim.low - 1))
        freed, claim.high = claim.high - high, high
        if freed:
            claim.request.owing[claim.device] -= freed
            claim.request.unclaimed += freed
            self._queue(claim.request)

    def _keep(self, device: str, claims: Iterable[Claim]) -> None:
        self._claims[device] = deque(claims)
        if not self._claims[device]:
            del self._claims[device]

    # -- asking -------------------------------------------------------------------------------------------------

    def _queue(self, request: PullRequest) -> None:
        self._unasked.setdefault(request.device, {})[request.id] = request
        self._ready.setdefault(request.device)

    def _unqueue(self, request: PullRequest) -> None:
        row = self._unasked.get(request.device)
        if row is not None and row.pop(request.id, None) is not None and not row:
            del self._unasked[request.device]

    def _ask(self) -> None:
        """Ask devices for what the first request of each ready row wants, as far as the rate allows."""
        while self._ready:
            device = next(iter(self._ready))
            row = self._unasked.get(device)
            if not row or self._ledger.next_able(device) is None:
                del self._ready[device]
                continue
            request = next(iter(row.values()))
            if not self._claim(request):  # next time it is another row's turn
                self._ready[device] = self._ready.pop(device)
                return
            if not request.unclaimed:
                self._unqueue(request)

    def _claim(self, request: PullRequest) -> bool:
        """Ask devices in turn for what nobody was; return False if the rate allows no more now."""
        sharing = self._ledger.able if request.device is None else 1
        while request.unclaimed and (account := self._ledger.next_able(request.device)) is not None:
            share = -(-request.unclaimed // max(1, sharing))
            count = self._ledger.limit.room(share if account.answers else min(share, account.spare))
            if count <= 0:
                return False
            self._add(request, account, self._ledger.grant(account, count))
            self._ledger.limit.take(count)
            sharing -= 1
        return True

    def _add(self, request: PullRequest, account: Account, numbers: range) -> None:
        request.unclaimed -= len(numbers)
        request.owing[account.device] = request.owing.get(account.device, 0) + len(numbers)
        claims = self._claims.setdefault(account.device, deque())
        last = claims[-1] if claims else None
        if (
            last is not None
            and last.request is request
            and (last.epoch, last.high) == (account.epoch, numbers[0] - 1)
        ):
            last.high = numbers[-1]
        else:
            claims.append(Claim(request, account.device, account.epoch, numbers[0], numbers[-1]))

    # -- ending -------------------------------------------------------------------------------------------------

    def _close(self, request: PullRequest, ended: str) -> None:
        """Let a request be over: all has come, or it `ended` early. One that is over stays as it is."""
        if self._open.pop(request.id, None) is None:
            return
        request.ended = ended
        request.done.set()
        self._unqueue(request)
        if request.left:  # what comes for it all the same is nobody's
            for device in request.owing:
                self._keep(
                    device, [claim for claim in self._claims.get(device, ()) if claim.request is not request]
                )
        self._over[request.id] = request
        if len(self._over) > _REMEMBERED:
            del self._over[next(iter(self._over))]
        if not self._open:
            for each in (self._claims, self._unasked, self._ready, self._away, self._changed):
                each.clear()
