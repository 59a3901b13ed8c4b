"""The desk of the hunt: a user's service that sends orders to devices, numbered and booked.

The environment names the desk's start (`HUNT_START`), the devices (`HUNT_DEVICES`) and the book
(`HUNT_SENT`). A line of the book is an order whose `send` has returned: a device and a number. An order whose
`send` raised may arrive or not.
"""

import contextlib
import itertools
import os
import signal
import threading

from pratipad_nb import Cloud, PratipadError

START = int(os.environ["HUNT_START"])
ROOMS = os.environ["HUNT_DEVICES"].split(",")
SECONDS_BETWEEN = 0.05


def main():
    ending = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: ending.set())
    book = os.open(os.environ["HUNT_SENT"], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    certs = os.environ["HUNT_CERTS"]
    # `send` connects; while the server is away, `send` raises.
    cloud = Cloud("house", reader="desk", server=os.environ["HUNT_SERVER"], certs=certs)
    for number in itertools.count(1):
        room = ROOMS[number % len(ROOMS)]
        with contextlib.suppress(PratipadError):
            cloud.send({"order": [START, number]}, to=room)
            os.write(book, f"{room} {number}\n".encode())
        if ending.wait(SECONDS_BETWEEN):
            break
    cloud.close()


if __name__ == "__main__":
    main()
