"""Whatever a device says in its hellos, an honest device is asked for its messages, and requests are met."""

from __future__ import annotations

import pytest
from by_clock import by_clock
from hostile import HELLOS

from pratipad_nb.hardware.clock import ManualClock
from pratipad_nb.runtime.devices.credit import Ledger
from pratipad_nb.runtime.devices.pull import Requests
from pratipad_nb.runtime.devices.rate_limit import RateLimit
from pratipad_nb.transport.frames import HelloFrame

_STEP = 0.01


class Clock(ManualClock):
    """Stands in for the `time` module."""

    def time_ns(self):
        return int((1_000_000 + self.monotonic()) * 1e9)


class House:
    """A ledger among an honest device, which sends what it is asked for at once, and hostile devices."""

    def __init__(self, mode, clock, hostile, most=40, least=20):
        self.clock, self.hostile, self.turn = clock, hostile, 0
        self.ledger = Ledger(
            mode,
            lambda *_: None,
            lambda: 0,
            delivery="durable",
            max_demand=most,
            min_demand=least,
            limit=RateLimit(),
            on_change=lambda account: self.requests.note(account),
        )
        self.requests = Requests(self.ledger, self.admitted)
        for name in hostile:  # so that these have all room when the honest device comes
            self.ledger.hello(HELLOS[name]("house", name, 0))
        self.ledger.hello(HelloFrame("house", "honest", 1, 0, 1_000_000))

    @property
    def honest(self):
        return self.ledger.accounts["honest"]

    def admitted(self, device, epoch):
        return self.honest.seen if device == "honest" else 0

    def run(self, seconds, until=lambda: False):
        """Let time pass, with a hundred hellos a second of each hostile device."""
        end = self.clock.monotonic() + seconds
        while self.clock.monotonic() < end and not until():
            self.clock.advance(_STEP)
            self.turn += 1
            for name in self.hostile:
                self.ledger.hello(HELLOS[name]("house", name, self.turn))
            self.ledger.tick()
            self.requests.settle()
            while self.honest.outstanding:
                self.ledger.arrived("honest", 1, self.honest.total)
                self.requests.stored([("honest", 1, self.honest.seen)])
                self.requests.settle()
                self.ledger.settle()
                if self.ledger.mode == "Demand":
                    break  # a round trip takes a step
            if self.turn % 50 == 0:
                self.requests.emptied(self.clock.monotonic())
        return until()


@pytest.fixture
def clock(monkeypatch):
    clock = Clock()
    by_clock(monkeypatch, clock)
    return clock


#: Each of the hostile devices alone, and all at once.
PARTIES = [*([name] for name in HELLOS), list(HELLOS)]


@pytest.mark.parametrize("hostile", PARTIES, ids="+".join)
@pytest.mark.parametrize(("most", "least"), [(40, 20), (40, 0), (40, 39)])
def test_demand_asks_an_honest_device_at_its_pace_from_the_first_seconds_on(hostile, most, least, clock):
    house = House("Demand", clock, hostile, most, least)
    house.run(3.0)
    before = house.honest.seen
    house.run(2.0)
    steps = 2.0 / _STEP
    assert house.honest.seen - before > steps * most / 4


@pytest.mark.parametrize("hostile", PARTIES, ids="+".join)
def test_demand_for_one_message_at_a_time_is_not_spent_on_hostile_devices(hostile, clock):
    house = House("Demand", clock, hostile, 1, 0)
    house.run(40.0, lambda: house.honest.seen > 300 * len(hostile))
    assert house.honest.seen > 300


@pytest.mark.parametrize("hostile", PARTIES, ids="+".join)
def test_a_request_is_met_by_an_honest_device(hostile, clock):
    house = House("Pull", clock, hostile)
    first = house.requests.pull(1000)
    assert house.run(10.0, lambda: not first.left)
    for _ in range(20):
        request = house.requests.pull(10)
        assert house.run(5.0, lambda: not request.left)  # noqa: B023 - called at once


def test_a_device_that_sends_what_it_owes_now_and_then_does_not_gather_the_room_of_others(clock):
    house = House("Demand", clock, ["much"])
    slow = house.ledger.accounts["much"]
    for _ in range(10):
        house.run(0.9)
        house.ledger.arrived("much", 1, slow.total)
    before = house.honest.seen
    for _ in range(5):
        house.run(0.9)
        house.ledger.arrived("much", 1, slow.total)
    assert house.honest.seen - before > 0.5 * 4.5 / _STEP * 10


def test_a_device_that_was_hostile_is_asked_as_others_are_once_it_sends(clock):
    house = House("Demand", clock, ["much"])
    house.run(20.0)
    account = house.ledger.accounts["much"]
    assert account.trusted == 1
    for _ in range(1000):  # its rest has to end first
        house.run(5 * _STEP)
        house.ledger.arrived("much", 1, account.total)
    assert account.trusted > 40
