"""Dropped messages are not waited for: the room lent for them is free again at the device's next hello."""

from __future__ import annotations

from pratipad_nb.runtime.devices.credit import Ledger
from pratipad_nb.runtime.devices.rate_limit import RateLimit
from pratipad_nb.transport.frames import CreditFrame, HelloFrame


def test_numbers_that_were_dropped_hold_no_room() -> None:
    sent: list[tuple[str, CreditFrame]] = []
    ledger = Ledger(
        "Demand", lambda device, frame: sent.append((device, frame)), lambda: 0,
        delivery="durable", max_demand=1000, min_demand=500, limit=RateLimit(),
    )  # fmt: skip
    ledger.hello(HelloFrame("house", "room1", 7, sent=0, waiting=5000))
    assert sent[-1][1].total == 1000
    # Its link was down: all that it was asked for and more has made room for newer messages.
    ledger.hello(HelloFrame("house", "room1", 7, sent=4000, waiting=1000, floor=4000))
    assert sent[-1][1].total == 5000
