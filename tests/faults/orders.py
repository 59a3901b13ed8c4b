"""The ledger of orders: what the desk sent, what processors answered, and what each device has run.

An order is sent once `send` has returned. A device runs each order once and in order. A device that starts
again may run the orders again that its last start had not confirmed, and no other. An answer is run at least
once.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import NamedTuple, Protocol

from states import Key


class Order(NamedTuple):
    """An order of the desk: the device, the start of the desk's process, and the number in that start."""

    device: str
    start: int
    number: int


class OrderBook(Protocol):
    """A file that the desk writes, as orders."""

    def new(self) -> Iterator[Order]:
        """Give the orders that were written since the last call."""


class RunLines(Protocol):
    """A file that a device writes, as what it has run."""

    def new(self) -> Iterator[tuple[str, int, int]]:
        """Give what was written since the last call: its kind, the sender's start, the number."""


class OrderLedger:
    """What was sent to devices, and what devices have run."""

    def __init__(self) -> None:
        self._sent: list[OrderBook] = []
        self._run: list[tuple[str, RunLines]] = []
        self._known: set[Order] = set()
        self._answers: set[Key] = set()
        self._resumed: set[str] = set()
        #: The orders that were sent and not run yet.
        self.owed: set[Order] = set()
        self.doubled: set[Order] = set()
        self.reordered: set[Order] = set()
        self.sent = 0
        #: The latest order that each device has run.
        self.latest: dict[str, Order] = {}

    def expect(self, book: OrderBook) -> None:
        """Read the orders of one more start of the desk from now on."""
        self._sent.append(book)

    def follow(self, device: str, book: RunLines) -> None:
        """Read what one more start of a device runs, from now on."""
        self._run.append((device, book))
        self._resumed.add(device)

    def update(self) -> None:
        """Read what is new in all books."""
        for sent in self._sent:
            for order in sent.new():
                self.sent += 1
                if order not in self._known:
                    self.owed.add(order)
        for device, run in self._run:
            for kind, start, number in run.new():
                if kind == "answer":
                    self._answers.add(Key(device, start, number))
                else:
                    self._add(Order(device, start, number))

    def _add(self, order: Order) -> None:
        if order in self._known:
            if order.device not in self._resumed:
                self.doubled.add(order)
            return
        self._resumed.discard(order.device)
        self._known.add(order)
        self.owed.discard(order)
        if order < self.latest.get(order.device, order):
            self.reordered.add(order)
        else:
            self.latest[order.device] = order

    def overtaken(self) -> set[Order]:
        """Return the owed orders of which the device has run a later one: they come too late, or never."""
        return {order for order in self.owed if order < self.latest.get(order.device, order)}

    def unanswered(self, results: Iterable[Key]) -> set[Key]:
        """Return the results whose answers did not come to their devices."""
        return set(results) - self._answers
