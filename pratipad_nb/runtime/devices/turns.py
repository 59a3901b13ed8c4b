"""Turns: the order in which devices are asked for messages.

Owns the queue alone. Which devices could send a message is for `account`, and granting for `credit`.
"""

from __future__ import annotations

import itertools
from heapq import heapify, heappop, heappush

from pratipad_nb.runtime.devices.account import Account

__all__ = ["Turns"]


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
