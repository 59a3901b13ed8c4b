"""Pull: the cloud's requests for readings, tied to the messages that answer them.

Owns the requests. A request is met by *numbers*: for a request a device is granted its next numbers. The
request is done when the positions at Output have passed these numbers, whether the messages were emitted,
filtered or dead-lettered. How many messages a device may send, and telling the device, is for `credit`.

Requests may be many, large, and open for long, and `settle` is called twenty times a second and with every
frame at Output. So nothing here looks at devices or requests that haven't changed:

* A *claim* holds the numbers of one device that are owed to one request. The claims on a device stand in the
  order of their numbers, since numbers only grow, and numbers that have arrived are taken off the first
  claim. Numbers granted one after the other to one request are one claim.
* A request with readings that no device was asked for waits in a queue: one queue for each device that a
  request names, and one for all requests that name none. The askers in a queue take turns, and while they are
  several, each turn asks a device for a part of what it may be asked for. A queue is *ready* while a device
  could answer its requests; the ledger's `on_change` says when that may have changed.
* A device that doesn't answer is *away*: readings that it owes are asked of others as soon as another device
  could answer, and the device can't answer any more: it has said so, or its late answer will not pass
  (`credit`). So as many readings come as were asked for.
* A device's word that messages are sent, or were dropped, leaves claims on them open, for the messages may
  be in the input. Once the input has been emptied after that word, they are not: their readings are asked of
  others (`emptied`).
* A claim holds no number above `Account.total`. Where the total falls, for a grant was taken back, the
  numbers above it go back to their requests.

The invariant: for each open request, `left` is `unclaimed` plus the sizes of its claims, and `owing` has
these sizes by device. It holds because readings move between the three in pairs: `_add` from `unclaimed` to a
claim, `_give_back` from a claim to `unclaimed`, and `_bring` out of a claim and out of `left`.
"""

from __future__ import annotations

import asyncio
import heapq
import time
import uuid
from collections import Counter, deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from itertools import takewhile

from pratipad_nb.errors import DeviceError, FlowError
from pratipad_nb.request import CANCELLED, Standing, checked_pull
from pratipad_nb.runtime.devices.account import Account
from pratipad_nb.runtime.devices.credit import Ledger
from pratipad_nb.settings import gateway_of
from pratipad_nb.transport.frames import Position

__all__ = ["MOST_OPEN", "Claim", "PullRequest", "Requests"]

#: Requests of one asker that may be open at once: a program that pulls on and on while no device is there
#: would else fill the memory.
MOST_OPEN = 1000

#: Requests that are remembered after they were over, so that a late question about a request is answered.
_REMEMBERED = 1000
#: Most names of known devices in an error.
_NAMED = 20


@dataclass(slots=True, eq=False)
class PullRequest:
    """The cloud's request for `wanted` readings, of one `device` or of any.

    Attributes
    ----------
    by
        The reader that asks; empty: the edge's own process.
    close
        Ends the request, for a reason in words; `Requests._close`.
    left
        Readings that are not at Output yet.
    unclaimed
        Readings that no device has been asked for.
    owing
        How many readings each device that was asked has yet to send; 0 if these were asked of others since.
    done
        Set when the request is over: all readings have arrived, or the request ended early.
    ended
        Why the request ended early, in words; empty if it did not.
    """

    id: str
    wanted: int
    device: str | None
    close: Callable[[PullRequest, str], None]
    by: str = ""
    left: int = 0
    unclaimed: int = 0
    owing: dict[str, int] = field(default_factory=dict)
    done: asyncio.Event = field(default_factory=asyncio.Event)
    ended: str = ""

    def __post_init__(self) -> None:
        self.left = self.unclaimed = self.wanted

    @property
    def standing(self) -> Standing:
        """How far the request is."""
        return Standing(self.left, self.silent, self.ended)

    @property
    def silent(self) -> tuple[str, ...]:
        """Devices that were asked and haven't sent all of their readings."""
        if self.left == 0:
            return ()
        return tuple(sorted(self.owing)) or ((self.device,) if self.device else ())

    def cancel(self) -> None:
        """Ask for no more readings. Readings that were granted arrive all the same, and belong to no request.

        A request that is over stays as it is.
        """
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
        """How many numbers the claim holds."""
        return self.high - self.low + 1


class Requests:
    """The requests of one flow: those that are open, and the last `_REMEMBERED` that were over.

    Parameters
    ----------
    admitted
        Returns up to which number the messages of a device's epoch have come.
    """

    def __init__(self, ledger: Ledger, admitted: Callable[[str, int], int] = lambda *_: 0) -> None:
        self._ledger = ledger
        self._admitted = admitted
        self._run = uuid.uuid4().hex
        self._made = 0
        self._open: dict[str, PullRequest] = {}
        self._over: dict[str, PullRequest] = {}
        self._claims: dict[str, deque[Claim]] = {}
        #: The queues of requests with unclaimed readings, by the device that they name, or None.
        #: In a queue are the requests of each asker; the asker whose turn it is comes first.
        self._unasked: dict[str | None, dict[str, dict[str, PullRequest]]] = {}
        #: How many requests of each asker are open.
        self._opened: Counter[str] = Counter()
        #: The queues that a device could answer, by the same key; the queue whose turn it is comes first.
        self._ready: dict[str | None, None] = {}
        self._away: dict[str, None] = {}
        self._changed: dict[str, Account] = {}
        #: Devices by whose word claimed messages are sent or dropped, and since when, by the monotonic clock.
        self._promised: dict[str, float] = {}

    def pull(self, count: int, device: str | None = None, by: str = "") -> PullRequest:
        """Ask for `count` readings, of `device` or of all in turn, for the reader `by`.

        Raises
        ------
        FlowError
            If the flow's input isn't Pull, or `MOST_OPEN` requests of the asker are open.
        SettingsError
            If `count` is no whole number from 1 to `MOST_READINGS`, or `device` can't name a device.
        DeviceError
            If no such device has ever said hello to this run.
        """
        if self._ledger.mode != "Pull":
            raise FlowError(
                f"pull() is for flows that begin with Pull; this one begins with {self._ledger.mode}. "
                "Write `Pull <~> …` to decide here how many readings are sent."
            )
        checked_pull(count, device)
        if device is not None and device not in self._ledger.accounts:
            raise self._unknown(device)
        if (opened := self._opened[by]) >= MOST_OPEN:
            raise FlowError(
                f"pull({count}): {opened:,} requests of this flow are open, and {MOST_OPEN:,} may be. "
                "Wait for some with request.wait(), give up others with request.cancel(), or ask for "
                "more readings in one pull()."
            )
        self._made += 1
        request = PullRequest(f"{self._run}-{self._made}", count, device, self._close, by)
        self._open[request.id] = request
        self._opened[by] += 1
        self._queue(request)
        self.settle()
        return request

    def _unknown(self, device: str) -> DeviceError:
        gateway = gateway_of(device)
        if gateway in self._ledger.accounts:
            return DeviceError(
                f"pull(): {device!r} speaks through the gateway {gateway!r}, and is not asked by itself. "
                f"Ask the gateway: pull(…, device={gateway!r})."
            )
        names = heapq.nsmallest(_NAMED + 1, self._ledger.accounts)
        more = ", …" if len(names) > _NAMED else ""
        known = (", ".join(names[:_NAMED]) or "none yet") + more
        return DeviceError(f"pull(): no device {device!r} has connected to this flow. Known: {known}.")

    def find(self, request: str, by: str = "") -> PullRequest:
        """Return a request of the reader `by` by its id.

        Raises
        ------
        FlowError
            If the request has been over for long, is another reader's, or another run of this edge made it.
        """
        found = self._open.get(request) or self._over.get(request)
        if found is not None and found.by == by:
            return found
        run, _, number = request.rpartition("-")
        known = found is None and run == self._run and number.isdecimal()
        if known and len(number) <= len(str(self._made)) and 0 < int(number) <= self._made:
            raise FlowError(
                f"request {request} has been over for long, and how it ended is forgotten: {_REMEMBERED:,} "
                "others were over since. Ask about a request sooner."
            )
        raise FlowError(f"request {request:.100} is not known: the flow was started anew since. Pull again.")

    def end(self, why: str) -> None:
        """End all open requests, for a reason in words."""
        self._claims.clear()
        for request in list(self._open.values()):
            self._close(request, why)

    # -- events ----------------------------------------------------------------------------------------------

    def stored(self, positions: Iterable[Position]) -> None:
        """Count readings as arrived: messages up to `positions` are at Output."""
        if not self._claims:
            return
        for device, epoch, number in positions:
            claims = self._claims.get(device)
            if claims:
                self._promised.pop(device, None)
            while claims and claims[0].epoch == epoch and claims[0].low <= number:
                self._bring(claims[0], min(number, claims[0].high))
                if not claims[0].size:
                    claims.popleft()
            if claims is not None and not claims:
                self._claims.pop(device, None)

    def _bring(self, claim: Claim, number: int) -> None:
        """Count a claim's messages up to `number` as arrived."""
        request, count = claim.request, number - claim.low + 1
        claim.low += count
        request.left -= count
        request.owing[claim.device] -= count
        if not request.owing[claim.device]:
            del request.owing[claim.device]
        if not request.left:
            self._close(request, "")

    def note(self, account: Account) -> None:
        """Take note that an account has changed: the ledger's `on_change`."""
        if self._open:
            self._changed[account.device] = account

    def settle(self) -> None:
        """Take back readings that devices owe which are away, and ask devices for unclaimed readings."""
        if not self._open:
            return
        self._look()
        if self._away and self._ledger.able:
            away, self._away = self._away, {}
            for device in away:
                self._take_back(device)
            self._look()
        self._grant_ready()

    def _look(self) -> None:
        """Look at the accounts that have changed."""
        changed, self._changed = self._changed, {}
        for account in changed.values():
            self._look_at(account)

    def _look_at(self, account: Account) -> None:
        device = account.device
        claims = self._claims.get(device)
        former = list(takewhile(lambda claim: claim.epoch != account.epoch, claims or ()))
        for claim in former:  # the device numbers anew since
            self._give_back(claim, account.former.get(claim.epoch, 0))
        if claims and not all(claim.size for claim in former):
            self._keep(device, [claim for claim in claims if claim.size])
            claims = self._claims.get(device)
        while claims and claims[-1].epoch == account.epoch and claims[-1].high > account.total:
            self._give_back(claims[-1], account.total)
            if not claims[-1].size:
                claims.pop()
        if not claims:
            self._claims.pop(device, None)
        if claims and (claims[0].epoch != account.epoch or claims[0].low <= account.seen):
            self._promised.setdefault(device, time.monotonic())
        else:
            self._promised.pop(device, None)
        if claims and account.stuck:
            self._away[device] = None
        else:
            self._away.pop(device, None)
        for named in (None, device):
            if named in self._unasked and self._ledger.next_able(device) is not None:
                self._ready.setdefault(named)

    def emptied(self, since: float) -> None:
        """Ask others for messages that are not in the input by now, though their device says so.

        All messages that were stored before `since`, by the monotonic clock, have been admitted.
        """
        for device in [device for device, at in self._promised.items() if at < since]:
            del self._promised[device]
            self._break(self._ledger.accounts[device])
        self.settle()

    def _break(self, account: Account) -> None:
        """Free the claims on messages of a device that are sent or dropped by its word, and haven't come."""
        left: list[Claim] = []
        count = 0
        for claim in self._claims.get(account.device, ()):
            low = max(claim.low, self._admitted(claim.device, claim.epoch) + 1)
            high = claim.high if claim.epoch != account.epoch else min(claim.high, account.seen)
            if low > high:
                left.append(claim)
                continue
            request = claim.request
            request.owing[claim.device] -= high - low + 1
            request.unclaimed += high - low + 1
            count += high - low + 1
            self._queue(request)
            parts = ((claim.low, low - 1), (high + 1, claim.high))
            left += [Claim(request, claim.device, claim.epoch, *part) for part in parts if part[0] <= part[1]]
        if count:
            self._keep(account.device, left)
            self._ledger.broke_word(account, count)

    # -- taking back -----------------------------------------------------------------------------------------

    def _take_back(self, device: str) -> None:
        """Take back what `device`, which is away, failing or silent, owes to requests for any device.

        Nothing is taken back if all requests name the device; else the readings of requests that name it are
        asked of it anew. All claims stand while no other device could answer (`settle`): so the device's
        answers count when it comes back.
        """
        if any(claim.request.device is None for claim in self._claims.get(device, ())):
            self._ledger.take_back(self._ledger.accounts[device])

    def _give_back(self, claim: Claim, last: int) -> None:
        """Free the numbers of a claim that come after `last`."""
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

    # -- asking ----------------------------------------------------------------------------------------------

    def _queue(self, request: PullRequest) -> None:
        queue = self._unasked.setdefault(request.device, {})
        queue.setdefault(request.by, {})[request.id] = request
        self._ready.setdefault(request.device)

    def _unqueue(self, request: PullRequest) -> None:
        queue = self._unasked.get(request.device, {})
        own = queue.get(request.by, {})
        if own.pop(request.id, None) is not None and not own:
            del queue[request.by]
            if not queue:
                del self._unasked[request.device]

    def _grant_ready(self) -> None:
        """Ask for the readings of the requests in ready queues, as far as the rate allows."""
        while self._ready:
            device = next(iter(self._ready))
            queue = self._unasked.get(device)
            if not queue or self._ledger.next_able(device) is None:
                del self._ready[device]
                continue
            by, own = next(iter(queue.items()))
            request = next(iter(own.values()))
            queue[by] = queue.pop(by)
            if not self._claim(request, len(queue)):  # the rate allows no more: another queue is next
                self._ready[device] = self._ready.pop(device)
                return
            if not request.unclaimed:
                self._unqueue(request)

    def _claim(self, request: PullRequest, askers: int) -> bool:
        """Ask devices in turn for a request's unclaimed readings; return False if the rate allows no more.

        With several `askers`, each device is asked once, for a part of what it may be asked for.
        """
        sharing = self._ledger.able if request.device is None else 1
        turns = max(1, sharing)
        while request.unclaimed and (account := self._ledger.next_able(request.device)) is not None:
            fair = -(-request.unclaimed // max(1, sharing))
            count = self._ledger.limit.room(min(fair, -(-self._ledger.wanted(account) // askers)))
            if count <= 0:
                return False
            self._add(request, account, self._ledger.grant(account, count))
            self._ledger.limit.take(count)
            sharing -= 1
            turns -= 1
            if askers > 1 and not turns:
                break
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

    # -- ending ----------------------------------------------------------------------------------------------

    def _close(self, request: PullRequest, ended: str) -> None:
        """Let a request be over: all readings have arrived, or the request `ended` early.

        A request that is over stays as it is.
        """
        if self._open.pop(request.id, None) is None:
            return
        self._opened[request.by] -= 1
        request.ended = ended
        request.done.set()
        self._unqueue(request)
        if request.left:  # readings that arrive for this request all the same belong to no request
            for device in request.owing:
                self._keep(
                    device, [claim for claim in self._claims.get(device, ()) if claim.request is not request]
                )
        self._over[request.id] = request
        if len(self._over) > _REMEMBERED:
            del self._over[next(iter(self._over))]
        if not self._open:
            for each in (self._claims, self._unasked, self._ready, self._away, self._changed, self._promised):
                each.clear()
