"""A device of `rounds.py`, as `pratipad device` runs it: its messages are numbered, its receipts booked.

The environment names the device (`HUNT_DEVICE`), its start (`HUNT_START`), the folder of its outbox
(`HUNT_KEEP`, empty: the device keeps none) and the book (`HUNT_RECEIPTS`). A line of the book is a range of
numbers that are promised to arrive. For a device that keeps its outbox a returned `push` is that promise, for
another device a receipt that is done.
"""

import os
import random
import threading
import time
from collections import deque

from pratipad_nb import Device
from pratipad_nb.errors import DeviceError

START = int(os.environ["HUNT_START"])
KEEP = os.environ["HUNT_KEEP"] or None

device = Device(os.environ["HUNT_DEVICE"], keep=KEEP)


class Book:
    """The numbers that are promised to arrive, in a file that is forced to the disk."""

    def __init__(self, path):
        self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        self._written = 0

    def write(self, last):
        """Note that all numbers up to `last` are promised."""
        if last > self._written:
            os.write(self._file, f"{self._written + 1} {last}\n".encode())
            os.fsync(self._file)
            self._written = last


class Room:
    """Pushes bursts until the device is closed."""

    def __init__(self, book):
        self._book = book
        self._number = 0
        self._promised = 0
        self._receipts = deque()

    def run(self):
        while not self._push():  # `pratipad device` connects the device once this file has run
            time.sleep(0.02)
        while all(self._push() for _ in range(random.randint(1, 20))):
            self._note()
            time.sleep(random.uniform(0.0, 0.05))
        while self._receipts and not device.state.startswith("closed"):
            self._note()
            time.sleep(0.02)
        self._note()

    def _push(self):
        """Push the next number; return False if the device takes none."""
        try:
            receipt = device.push({"start": START, "n": self._number + 1})
        except DeviceError:
            return False
        self._number += 1
        if KEEP is None:
            self._receipts.append(receipt)
        else:
            self._promised = self._number
        return True

    def _note(self):
        while self._receipts and self._receipts[0].done:
            self._promised = self._receipts.popleft().number
        self._book.write(self._promised)


threading.Thread(target=Room(Book(os.environ["HUNT_RECEIPTS"])).run).start()
