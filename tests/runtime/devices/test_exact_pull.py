"""Pull asks for n and gets n, whatever devices and links do: a flow's ledger among devices of a model.

The model has signals that come late or get lost, frames that wait for a link, devices that are slow, frozen,
killed or restarted (with a kept store or without), and the server's word on which devices are connected. The
credit rules of both ends are the real ones.
"""

from __future__ import annotations

import heapq
import itertools
import random

import pytest
from by_clock import by_clock
from hypothesis import given, settings
from hypothesis import strategies as st

from pratipad_nb.device.credit import ANY_EPOCH, Credit
from pratipad_nb.hardware.clock import ManualClock
from pratipad_nb.runtime.devices.credit import Ledger
from pratipad_nb.runtime.devices.pull import Requests
from pratipad_nb.runtime.devices.rate_limit import RateLimit
from pratipad_nb.runtime.positions.positions import Positions
from pratipad_nb.transport.frames import HelloFrame


class Clock(ManualClock):
    """Stands in for the `time` module."""

    def time_ns(self):
        return int((1_000_000 + self.monotonic()) * 1e9)


class World:
    """The clock, what will happen when, and the edge."""

    def __init__(self, chance, clock, mode="Pull", most=20):
        self.chance, self.clock = chance, clock
        self._events, self._order = [], itertools.count()
        self._logged = 0.0
        self.devices = {}
        self.in_flight = self.most_in_flight = 0
        self.ledger = Ledger(
            mode,
            self.tell,
            lambda: self.in_flight,
            delivery="durable",
            max_demand=most,
            min_demand=most // 2,
            limit=RateLimit(),
            on_change=lambda account: self.requests.note(account),
        )
        self.requests = Requests(self.ledger)
        self.positions = Positions()
        self.passed = self.void = self.late_in_flight = 0
        self.after(0.05, self.tick)
        self.after(1.0, self.look)

    def after(self, seconds, happens, *arguments):
        heapq.heappush(
            self._events, (self.clock.monotonic() + seconds, next(self._order), happens, arguments)
        )

    def soon(self, happens, *arguments):
        self.after(self.chance.uniform(0.0005, 0.02), happens, *arguments)

    def run(self, seconds, until=lambda: False):
        end = self.clock.monotonic() + seconds
        while self._events[0][0] <= end and not until():
            at, _, happens, arguments = heapq.heappop(self._events)
            self.clock.advance(max(0.0, at - self.clock.monotonic()))
            happens(*arguments)
        return until()

    # -- the edge --------------------------------------------------------------------------------------------

    def tick(self):
        self.after(0.05, self.tick)
        self.ledger.tick()
        self.requests.settle()

    def look(self):
        self.after(1.0, self.look)
        asked = self.clock.monotonic()
        for name, account in self.ledger.accounts.items():
            if account.connected and not self.devices[name].linked and account.moved < asked:
                self.ledger.gone(name)
        self.requests.settle()

    def tell(self, name, frame):
        self.soon(self.devices[name].hear, frame)

    def hear(self, frame):
        self.ledger.hello(frame)
        self.requests.settle()

    def log(self, *frame):
        """Have the edge receive a frame, after the frames before."""
        now = self.clock.monotonic()
        self._logged = max(self._logged, now + self.chance.uniform(0.0005, 0.02))
        self.after(self._logged - now, self.receive, *frame)

    def receive(self, name, epoch, first, last):
        skip = self.positions.admit(name, epoch, first, last - first + 1).skip
        if skip > last - first:
            return
        void = self.ledger.void(name, epoch, first + skip, last)
        self.positions.advance([(name, epoch, last)])
        count = last - first + 1 - skip
        late = self.ledger.accounts[name].void_of(epoch, first + skip, last)
        self.in_flight += count
        self.late_in_flight += late  # of a phone that was waited for no more
        self.void += void
        self.passed += count - void
        self.ledger.arrived(name, epoch, last)
        asked = self.in_flight - self.late_in_flight + self.ledger._lent
        self.most_in_flight = max(self.most_in_flight, asked)
        self.soon(self.stored, name, epoch, last, count, late)

    def asked(self, phone):
        """Return for how many messages a phone is asked, as it was told.

        A phone that lost the word that its grant was taken back, and its answer too, is waited for no more.
        """
        account = self.ledger.accounts[phone.name]
        if phone.credit.owner < account.owner and account.taking is None:
            return account.outstanding
        return max(0, phone.credit.total - account.seen)

    def stored(self, name, epoch, last, count, late):
        self.in_flight -= count
        self.late_in_flight -= late
        self.requests.stored([(name, epoch, last)])
        self.requests.settle()
        self.ledger.settle()


class Phone:
    """A device of the model, which takes `pace` seconds for a reading."""

    def __init__(self, world, name, pace, *, kept=False):
        self.world, self.name, self.pace, self.kept = world, name, pace, kept
        self.epochs = itertools.count(1)
        self.linked = self.frozen = False
        self.epoch = 0
        self.run = 0
        self.heard = []
        world.devices[name] = self

    def start(self):
        self.run += 1
        if not self.epoch or not self.kept:
            self.epoch, self.last, self.acked = next(self.epochs), 0, 0
        self.taken, self.reading, self.parcel = self.acked, False, None
        self.credit = Credit(self.epoch)
        self.linked, self.frozen, self.heard = True, False, []
        self.hello()
        self.again(self.run)

    def kill(self):
        self.run += 1
        self.linked = False

    def cut(self):
        self.linked = False

    def mend(self):
        self.linked = True
        self.credit.doubt()
        self.hello()
        self.send()

    def freeze(self):
        self.frozen = True

    def thaw(self):
        self.frozen = False
        heard, self.heard = self.heard, []
        if self.world.chance.random() < 0.5:  # what is ready to be sent goes out before the socket is read
            self.send()
        for frame in heard:
            self.hear(frame)
        self.read()
        self.send()

    def hello(self):
        if not self.linked or self.frozen or self.world.chance.random() < 0.03:
            return
        frame = HelloFrame(
            "house",
            self.name,
            self.epoch,
            self.taken,
            self.last - self.taken,
            True,
            owner=self.credit.owner,
        )
        self.world.soon(self.world.hear, frame)

    def again(self, run):
        if run == self.run:
            self.hello()
            self.world.after(2.0, self.again, run)

    def hear(self, frame):
        if not self.linked or self.world.chance.random() < 0.03:
            return
        if self.frozen:
            self.heard.append(frame)
            return
        before = self.credit.total
        changed = self.credit.apply(frame)
        if frame.epoch == ANY_EPOCH or (changed and self.credit.total < before):
            self.hello()
        self.read()
        self.send()

    def read(self):
        if not self.reading and not self.frozen and self.credit.known and self.credit.left(self.last) != 0:
            self.reading = True
            self.world.after(self.pace * self.world.chance.uniform(0.8, 1.2), self.made, self.run)

    def made(self, run):
        if run != self.run:
            return
        if self.frozen:
            self.world.after(0.1, self.made, run)
            return
        self.reading = False
        self.last += 1
        self.send()
        if self.last > self.taken:
            self.hello()
        self.read()

    def send(self):
        if self.parcel is None and not self.frozen:
            count = min(self.credit.may_send(self.taken), self.last - self.taken)
            if count > 0:
                self.parcel = (self.taken + 1, self.taken + count)
                self.taken += count
                self.world.soon(self.append, self.run)

    def append(self, run):
        """Append the parcel to the log; its answer may be lost with the link."""
        if run != self.run:
            return
        if not self.linked or self.frozen:
            self.world.after(0.1, self.append, run)
            return
        self.world.log(self.name, self.epoch, *self.parcel)
        if self.world.chance.random() < 0.1:
            self.world.after(0.1, self.append, run)
            return
        self.acked, self.parcel = self.parcel[1], None
        self.send()


@pytest.fixture
def clock(monkeypatch):
    clock = Clock()
    by_clock(monkeypatch, clock)
    return clock


def all_done(requests):
    return lambda: all(request.done.is_set() for request in requests)


def trouble(world, phone):
    chance = world.chance
    match chance.choice(["cut", "kill", "freeze", "polite"]):
        case "cut" if phone.linked:
            phone.cut()
            world.after(chance.uniform(0.01, 8), mended, phone, phone.run)
        case "kill" if phone.linked:
            phone.kill()
            world.after(chance.uniform(0.01, 8), restarted, phone)
        case "freeze" if not phone.frozen:
            phone.freeze()
            world.after(chance.uniform(0.01, 8), thawed, phone, phone.run)


def mended(phone, run):
    if run == phone.run and not phone.linked:
        phone.mend()


def restarted(phone):
    if not phone.linked:
        phone.start()


def thawed(phone, run):
    if run == phone.run and phone.frozen:
        phone.thaw()


@given(seed=st.integers(0, 2**32))
@settings(max_examples=25, deadline=None)
def test_as_many_pass_as_were_asked_for_whatever_happens_to_devices_and_links(seed):
    with pytest.MonkeyPatch.context() as patch:
        clock, chance = Clock(), random.Random(seed)
        by_clock(patch, clock)
        world, requests = World(chance, clock), []
        for name in "abcd":
            pace = chance.choice([0.001, 0.05, 0.9, 1.5, 4.0])
            Phone(world, name, pace, kept=chance.random() < 0.5).start()
        assert world.run(10, lambda: len(world.ledger.accounts) == 4)
        for _ in range(30):
            if chance.random() < 0.5:
                device = chance.choice("abcd") if chance.random() < 0.3 else None
                requests.append(world.requests.pull(chance.randint(1, 6), device))
            trouble(world, world.devices[chance.choice("abcd")])
            world.run(chance.uniform(0.01, 3))
            assert world.passed <= sum(request.wanted for request in requests)
        assert world.run(600, all_done(requests)), requests
        world.run(60)
        assert world.passed == sum(request.wanted for request in requests)


@pytest.mark.parametrize("pace", [0.6, 1.5, 3.0, 20.0])
def test_a_slow_device_and_a_quick_one_bring_as_many_as_were_asked_for_each_time(pace, clock):
    world = World(random.Random(1), clock)
    Phone(world, "slow", pace).start()
    Phone(world, "quick", 0.001).start()
    world.run(0.5)
    for asked in (6, 12, 18):
        request = world.requests.pull(6)
        assert world.run(60, all_done([request]))
        world.run(40)
        assert (world.passed, world.void) == (asked, 0)


def test_a_slow_device_is_waited_for_at_its_own_pace_once_it_is_known(clock):
    world = World(random.Random(1), clock)
    Phone(world, "slow", 3.0).start()
    Phone(world, "quick", 0.001).start()
    world.run(0.5)
    world.run(60, all_done([world.requests.pull(2)]))
    world.run(10)  # the reading that came too late is held at the device, and its pace is known
    assert 2.0 < world.ledger.accounts["slow"].pace < 4.0
    for _ in range(3):
        request = world.requests.pull(4)
        assert world.run(60, all_done([request]))
    assert world.ledger.accounts["slow"].seen >= 5


def test_a_slow_device_does_not_keep_a_request_from_a_quick_one(clock):
    world = World(random.Random(1), clock)
    Phone(world, "slow", 8.0).start()
    Phone(world, "quick", 0.001).start()
    world.run(0.5)
    for _ in range(3):
        began = clock.monotonic()
        assert world.run(100, all_done([world.requests.pull(100)]))
        assert clock.monotonic() - began < 2.5 * 8.0
        world.run(20)


def test_what_a_killed_device_answers_from_its_store_counts_for_the_next_request(clock):
    world = World(random.Random(1), clock)
    phone = Phone(world, "a", 0.001, kept=True)
    phone.start()
    world.run(0.5)
    phone.cut()
    request = world.requests.pull(4)
    phone.credit.total, phone.last = 4, 4  # it has heard of the grant, and could send nothing
    phone.kill()
    Phone(world, "b", 0.001).start()
    assert world.run(10, all_done([request]))
    phone.start()
    world.run(10)
    assert world.passed == 4
    assert world.run(10, all_done([world.requests.pull(4, "a")]))
    world.run(10)
    assert (world.passed, world.void, phone.last) == (8, 0, 4)


@given(seed=st.integers(0, 2**32))
@settings(max_examples=10, deadline=None)
def test_no_more_are_asked_for_than_demand_says_while_devices_are_slow(seed):
    with pytest.MonkeyPatch.context() as patch:
        clock, chance = Clock(), random.Random(seed)
        by_clock(patch, clock)
        world = World(chance, clock, "Demand", most=20)
        phones = [Phone(world, name, chance.choice([0.001, 0.05, 1.5, 4.0])) for name in "abcd"]
        for phone in phones:
            phone.start()
        assert world.run(10, lambda: len(world.ledger.accounts) == 4)
        for _ in range(100):
            world.run(0.3)
            assert sum(map(world.asked, phones)) + world.in_flight - world.late_in_flight <= 20
        assert world.most_in_flight <= 20
        assert world.passed > 20
