"""Devices of the hunt, as `pratipad device` runs them: their messages are numbered, their receipts booked.

The environment names the devices (`HUNT_DEVICES`), their start (`HUNT_START`) and the folder of their
outboxes (`HUNT_KEEP`, empty: the devices keep none). Each start of a device writes two books. A line of
DEVICE-START.receipts is a range of numbers that are promised to arrive. A message is promised once its
receipt is done, or, for a device that keeps its outbox, once the message is kept. A line of DEVICE-START.run
is an order, or a processor's answer, that the device has run.
"""

import os
import random
import threading
import time
from collections import deque

from states import POISON_EVERY, value_of

from pratipad_nb import Device
from pratipad_nb.errors import DeviceError

START = int(os.environ["HUNT_START"])
KEEP = os.environ["HUNT_KEEP"] or None


class Book:
    """A file that other processes read while it grows; a line is written whole."""

    def __init__(self, path):
        self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)

    def write(self, *words):
        os.write(self._file, (" ".join(map(str, words)) + "\n").encode())


class Promises:
    """The numbers that are promised to arrive."""

    def __init__(self, book):
        self._book = book
        self._written = 0

    def write(self, last):
        """Note that all numbers up to `last` are promised."""
        if last > self._written:
            self._book.write(self._written + 1, last)
            self._written = last


class Room:
    """A device, and the thread that pushes bursts until the device is closed."""

    def __init__(self, name):
        self._promises = Promises(Book(f"{name}-{START}.receipts"))
        self._orders = Book(f"{name}-{START}.run")
        self._number = 0
        self._promised = 0
        self._receipts = deque()
        self.device = Device(name, keep=KEEP, receive=self._receive)
        threading.Thread(target=self._run).start()

    def _receive(self, order):
        ((kind, (start, number)),) = order.items()
        self._orders.write(kind, start, number)

    def _run(self):
        # `pratipad device` connects the device once this file has run; a full disk takes no message.
        while not self.device.state.startswith("closed"):
            for _ in range(random.randint(1, 12)):
                if not self._push():
                    break
            self._note()
            time.sleep(random.uniform(0.0, 0.2))
        self._note()

    def _push(self):
        """Push the next number; return False if the device takes none."""
        number = self._number + 1
        payload = {"start": START, "n": number, "value": value_of(START, number)}
        try:
            receipt = self.device.push(payload | {"poisoned": number % POISON_EVERY == 0})
        except DeviceError:
            return False
        self._number = number
        self._receipts.append((number, receipt))
        return True

    def _note(self):
        while self._receipts:
            number, receipt = self._receipts[0]
            if not (receipt.kept if KEEP else receipt.done):
                break
            self._promised = number
            self._receipts.popleft()
        self._promises.write(self._promised)


devices = [Room(name).device for name in os.environ["HUNT_DEVICES"].split(",")]
