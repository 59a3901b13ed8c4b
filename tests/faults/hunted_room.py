"""A device of the hunt, as `pratipad device` runs it: its messages are numbered, its receipts are booked.

The environment names the device (`HUNT_DEVICE`), its start (`HUNT_START`), the folder of its outbox
(`HUNT_KEEP`, empty: the device keeps none), every how many messages a message is poisoned
(`HUNT_POISON_EVERY`), and two books. A line of `HUNT_RECEIPTS` is a range of numbers that are promised to
arrive. For a device that keeps its outbox a returned `push` is that promise, for another device a receipt
that is done. A line of `HUNT_RUN` is an order, or a processor's answer, that the device has run.
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
POISON_EVERY = int(os.environ["HUNT_POISON_EVERY"])


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
    """Pushes bursts until the device is closed."""

    def __init__(self, promises):
        self._promises = promises
        self._number = 0
        self._promised = 0
        self._receipts = deque()

    def run(self):
        # `pratipad device` connects the device once this file has run; a full disk takes no message.
        while not device.state.startswith("closed"):
            for _ in range(random.randint(1, 12)):
                if not self._push():
                    break
            self._note()
            time.sleep(random.uniform(0.0, 0.1))
        self._note()

    def _push(self):
        """Push the next number; return False if the device takes none."""
        number = self._number + 1
        payload = {"start": START, "n": number, "value": random.randrange(1000)}
        try:
            receipt = device.push(payload | {"poisoned": number % POISON_EVERY == 0})
        except DeviceError:
            return False
        self._number = number
        if KEEP is None:
            self._receipts.append(receipt)
        else:
            self._promised = number
        return True

    def _note(self):
        while self._receipts and self._receipts[0].done:
            self._promised = self._receipts.popleft().number
        self._promises.write(self._promised)


run = Book(os.environ["HUNT_RUN"])


def receive(order):
    ((kind, (start, number)),) = order.items()
    run.write(kind, start, number)


device = Device(os.environ["HUNT_DEVICE"], keep=KEEP, receive=receive)
threading.Thread(target=Room(Promises(Book(os.environ["HUNT_RECEIPTS"]))).run).start()
