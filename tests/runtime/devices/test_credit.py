"""Credit: who may send how much, and that what a lost device was asked for is asked of others."""

from __future__ import annotations

import random

import pytest
from by_clock import by_clock
from hypothesis import given, settings
from hypothesis import strategies as st

from pratipad_nb.device.credit import Credit
from pratipad_nb.hardware.clock import ManualClock
from pratipad_nb.runtime.devices.account import PATIENCE, Account
from pratipad_nb.runtime.devices.credit import UNLIMITED, Ledger
from pratipad_nb.runtime.devices.rate_limit import RateLimit
from pratipad_nb.runtime.devices.turns import Turns
from pratipad_nb.transport.codec import encode
from pratipad_nb.transport.frames import HelloFrame


class Clock(ManualClock):
    """Stands in for the `time` module: it goes on when told to."""

    def time(self):
        return 1_000_000.0 + self.monotonic()

    def time_ns(self):
        return int(self.time() * 1e9)


class Yard:
    """A ledger with its devices: what they are granted, and what is in the pipeline."""

    def __init__(self, mode="Demand", *, most=100, least=50, rate=None, delivery="durable"):
        self.sent = []
        self.in_flight = 0
        self.limit = RateLimit(rate)
        self.ledger = Ledger(
            mode,
            lambda device, frame: self.sent.append((device, frame)),
            lambda: self.in_flight,
            delivery=delivery,
            max_demand=most,
            min_demand=least,
            limit=self.limit,
        )

    def hello(self, device, *, sent=0, waiting=0, answers=True, epoch=1, **more):
        return self.ledger.hello(HelloFrame("house", device, epoch, sent, waiting, answers, **more))

    def heed(self, device, sent=0):
        """Let a device say hello that has heard all that it was told."""
        account = self.ledger.accounts[device]
        waiting, owner = account.held - sent, account.owner
        return self.hello(
            device, sent=sent, waiting=waiting, answers=account.answers, epoch=account.epoch, owner=owner
        )

    def arrive(self, device, count=None):
        """Let a device send what it was granted, or `count` of it, and the pipeline finish it at once."""
        account = self.ledger.accounts[device]
        count = account.outstanding if count is None else count
        self.ledger.arrived(device, account.epoch, account.seen + count)

    @property
    def asked(self):
        return {name: account.outstanding for name, account in self.ledger.accounts.items()}


@pytest.fixture
def clock(monkeypatch):
    clock = Clock()
    by_clock(monkeypatch, clock)
    return clock


def warm(yard, *devices, rounds=12):
    """Let devices answer at once until they are asked for much ahead."""
    for _ in range(rounds):
        for device in devices:
            yard.arrive(device)
        yard.ledger.settle()


class TestPush:
    def test_a_device_may_send_as_much_as_it_likes_from_its_hello_on(self):
        yard = Yard("Push")
        yard.hello("room1")
        ((device, frame),) = yard.sent
        assert (device, frame.mode, frame.total) == ("room1", "push", UNLIMITED)

    def test_time_grants_nothing(self):
        yard = Yard("Push")
        yard.hello("room1", waiting=5)
        yard.ledger.tick()
        assert len(yard.sent) == 1


class TestOwner:
    def test_an_edge_whose_clock_stands_behind_is_heeded_by_devices_that_an_edge_before_it_has_granted(
        self, clock
    ):
        device, yards = Credit(1), [Yard(), Yard(), Yard()]
        for total, (yard, behind) in enumerate(zip(yards, (0, 3600, 7200), strict=True), 1):
            yard.ledger.owner -= behind * 1000
            for _ in range(2):  # as the first answer is lost
                yard.hello("room1", waiting=total, answers=False, owner=device.owner)
            assert device.apply(yard.sent[-1][1])
            assert device.total == total

    def test_a_change_of_mode_is_heeded_too(self, clock):
        device, before, yard = Credit(1), Yard(), Yard()
        yard.ledger.owner -= 3_600_000
        for each in (before, yard):
            each.hello("room1", waiting=5, answers=False, owner=device.owner)
            device.apply(each.sent[-1][1])
        yard.ledger.change_mode("Pull")
        yard.hello("room1", waiting=5, answers=False, owner=device.owner)
        assert device.apply(yard.sent[-1][1])
        assert (device.mode, device.total) == ("pull", 0)

    def test_a_device_that_claims_the_highest_owner_there_is_harms_itself_alone(self, clock):
        yard = Yard("Push")
        yard.hello("hostile", owner=1 << 63)
        yard.hello("room1")
        assert encode(yard.sent[0][1])
        assert yard.sent[1][1].owner == yard.ledger.owner


class TestDemand:
    def test_a_new_device_is_asked_at_its_hello(self, clock):
        yard = Yard()
        yard.hello("room1", waiting=10, answers=False)
        assert yard.asked == {"room1": 10}

    def test_a_device_is_asked_for_no_more_than_it_holds(self, clock):
        yard = Yard(most=100)
        yard.hello("room1", waiting=3, answers=False)
        assert yard.asked == {"room1": 3}

    def test_no_more_is_asked_for_than_there_is_room(self, clock):
        yard = Yard(most=100, least=50)
        yard.in_flight = 30
        yard.hello("room1", waiting=1000, answers=False)
        assert yard.asked == {"room1": 70}

    def test_nothing_is_asked_for_before_no_more_than_min_demand_is_left(self, clock):
        yard = Yard(most=100, least=50)
        yard.hello("room1", waiting=1000, answers=False)
        yard.arrive("room1", 49)
        yard.ledger.settle()
        assert yard.asked == {"room1": 51}
        yard.arrive("room1", 1)
        yard.ledger.settle()
        assert yard.asked == {"room1": 100}

    def test_devices_share_the_room_in_turn(self, clock):
        yard = Yard(most=90, least=0)
        yard.in_flight = 90
        for name in ("a", "b", "c"):
            yard.hello(name, waiting=1000, answers=False)
        yard.in_flight = 0
        yard.ledger.settle()
        assert yard.asked == {"a": 30, "b": 30, "c": 30}

    def test_what_a_device_that_is_gone_owes_is_asked_of_others_at_once(self, clock):
        yard = Yard(most=100, least=50)
        yard.hello("gone", waiting=1000, answers=False)
        yard.hello("here", waiting=1000, answers=False)
        assert yard.asked == {"gone": 100, "here": 0}
        yard.ledger.gone("gone")
        assert yard.asked["here"] == 100

    def test_what_a_silent_device_owes_is_asked_of_others_after_a_while(self, clock):
        yard = Yard(most=100, least=50)
        yard.hello("silent", waiting=1000, answers=False)
        yard.hello("here", waiting=1000, answers=False)
        clock.advance(PATIENCE / 2)
        yard.ledger.tick()
        assert yard.asked["here"] == 0
        clock.advance(PATIENCE)
        yard.ledger.tick()
        assert yard.asked["here"] == 0  # the silent device may be about to send
        yard.heed("silent")
        assert yard.asked == {"silent": 0, "here": 100}
        yard.arrive("here")
        yard.ledger.settle()
        assert yard.asked == {"silent": 0, "here": 100}
        clock.advance(PATIENCE)
        yard.arrive("here")
        yard.ledger.tick()
        assert yard.asked == {"silent": 1, "here": 99}

    def test_what_a_silent_device_has_sent_by_then_is_not_asked_of_others(self, clock):
        yard = Yard(most=100, least=50)
        yard.hello("silent", waiting=1000, answers=False)
        yard.hello("here", waiting=1000, answers=False)
        clock.advance(1.5 * PATIENCE)
        yard.ledger.tick()
        yard.heed("silent", sent=60)
        assert yard.asked == {"silent": 60, "here": 40}
        yard.arrive("silent", 60)
        yard.arrive("here")
        yard.ledger.settle()
        assert yard.asked["here"] > 40

    def test_the_word_of_a_silent_device_is_not_waited_for_for_ever(self, clock):
        yard = Yard(most=100, least=50)
        yard.hello("frozen", waiting=1000, answers=False)
        yard.hello("here", waiting=1000, answers=False)
        for _ in range(3):
            clock.advance(PATIENCE)
            yard.ledger.tick()
        assert yard.asked == {"frozen": 0, "here": 100}

    def test_a_device_that_takes_two_seconds_for_a_reading_is_waited_for_as_long(self, clock):
        yard = Yard(most=1, least=0)
        yard.hello("slow")
        for _ in range(3):
            clock.advance(2.0)
            yard.ledger.tick()
            yard.arrive("slow", 1)
            yard.ledger.settle()
        yard.hello("here", waiting=9, answers=False)
        clock.advance(3.0)
        yard.ledger.tick()
        assert yard.ledger.accounts["slow"].taking is None
        clock.advance(1.5)
        yard.ledger.tick()
        assert yard.ledger.accounts["slow"].taking is not None

    def test_a_device_that_was_late_is_asked_again_once_it_answers(self, clock):
        yard = Yard(most=100, least=50)
        yard.hello("room1", waiting=1000, answers=False)
        clock.advance(2 * PATIENCE)
        yard.ledger.tick()
        assert yard.asked == {"room1": 100}
        yard.arrive("room1")
        yard.ledger.tick()
        assert yard.asked == {"room1": 100}

    def test_a_device_that_makes_readings_is_asked_for_more_ahead_the_quicker_it_answers(self, clock):
        yard = Yard(most=1000, least=500)
        yard.hello("quick")
        assert yard.asked == {"quick": 1}
        warm(yard, "quick")
        assert yard.asked["quick"] > 100

    def test_a_slow_one_is_asked_for_less_so_that_it_holds_up_no_room(self, clock):
        yard = Yard(most=1000, least=999)
        yard.hello("slow")
        warm(yard, "slow", rounds=5)
        before = yard.asked["slow"]
        for _ in range(4):
            clock.advance(PATIENCE * 1.5)
            yard.arrive("slow")
            yard.ledger.tick()
        assert yard.asked["slow"] < before

    def test_a_new_device_gets_its_share_at_once_though_another_has_all_the_room(self, clock):
        yard = Yard(most=100, least=99)
        yard.hello("old", waiting=1000, answers=False)
        yard.hello("new", waiting=1000, answers=False)
        yard.arrive("old", 1)
        yard.ledger.settle()
        assert yard.asked["new"] == 1

    def test_a_device_that_starts_again_is_not_waited_for_what_its_last_run_owes(self, clock):
        yard = Yard(most=100, least=50)
        yard.hello("room1", waiting=1000, answers=False, epoch=1)
        yard.hello("room1", waiting=5, answers=False, epoch=2)
        assert yard.asked == {"room1": 5}

    def test_the_farewell_of_an_earlier_run_does_not_send_the_new_one_away(self, clock):
        yard = Yard()
        yard.hello("room1", epoch=1)
        yard.hello("room1", epoch=2)
        yard.hello("room1", epoch=1, leaving=True)
        assert yard.ledger.accounts["room1"].connected

    def test_a_repeat_of_what_has_arrived_changes_nothing(self, clock):
        yard = Yard(most=100, least=50)
        yard.hello("room1", waiting=1000, answers=False)
        yard.arrive("room1", 10)
        before = yard.asked
        yard.ledger.arrived("room1", 1, 4)
        yard.ledger.arrived("room1", 9, 400)
        yard.ledger.arrived("stranger", 1, 1)
        assert yard.asked == before

    def test_grants_are_totals_so_that_a_lost_or_repeated_one_does_no_harm(self, clock):
        yard = Yard(most=10, least=9)
        yard.hello("room1", waiting=1000, answers=False)
        for _ in range(5):
            yard.arrive("room1", 2)
            yard.ledger.settle()
        totals = [frame.total for _, frame in yard.sent]
        assert totals == sorted(totals)
        assert totals[-1] == 20

    @given(st.integers(0, 2**32))
    @settings(max_examples=40, deadline=None)
    def test_whatever_devices_do_demand_is_never_below_zero_and_never_stalls(self, seed):
        with pytest.MonkeyPatch.context() as patch:
            clock = Clock()
            by_clock(patch, clock)
            self._live(random.Random(seed), clock)

    def _live(self, chance, clock):
        yard, epochs = Yard(most=20, least=10), dict.fromkeys("abcd", 0)
        for _ in range(150):
            device = chance.choice("abcd")
            account = yard.ledger.accounts.get(device)
            match chance.choice(["hello", "arrive", "arrive", "gone", "silence", "leave"]):
                case "hello":
                    epochs[device] += 1
                    yard.hello(device, answers=chance.random() < 0.5, waiting=50, epoch=epochs[device])
                case "arrive" if account and account.outstanding:
                    yard.arrive(device, chance.randint(1, account.outstanding))
                case "gone":
                    yard.ledger.gone(device)
                case "leave" if account:
                    yard.hello(device, epoch=account.epoch, leaving=True, sent=account.seen)
                case "silence":
                    clock.advance(PATIENCE * 1.1)
            yard.ledger.tick()
            ledger = yard.ledger
            assert ledger._lent >= 0
            assert ledger._lent == sum(a.owed for a in ledger.accounts.values())
        # Whatever came before: with one device there that answers, messages flow.
        yard.hello("saviour", waiting=1000, answers=False)
        clock.advance(PATIENCE * 1.1)
        yard.hello("saviour", waiting=1000, answers=False, sent=yard.ledger.accounts["saviour"].seen)
        yard.ledger.tick()
        assert any(a.outstanding for a in yard.ledger.accounts.values() if a.connected)


class TestFast:
    def test_what_was_sent_and_did_not_arrive_is_not_waited_for(self, clock):
        yard = Yard(most=100, least=50, delivery="fast")
        yard.hello("room1", waiting=1000, answers=False)
        yard.hello("room1", sent=100, waiting=900, answers=False)
        assert yard.asked == {"room1": 100}
        assert yard.ledger.accounts["room1"].total == 200


class TestRateLimit:
    def test_without_a_limit_all_may_be_granted(self):
        assert RateLimit().room(1000) == 1000

    def test_it_fills_steadily_and_is_never_below_zero(self, clock):
        limit, granted = RateLimit(100.0), 0
        for _ in range(1000):
            clock.advance(0.01)
            room = limit.room(1000)
            assert room >= 0
            limit.take(room)
            granted += room
        assert granted == pytest.approx(1000, abs=2)

    def test_after_a_pause_a_tenth_of_a_second_is_made_up_for_at_most(self, clock):
        limit = RateLimit(100.0)
        clock.advance(60)
        assert limit.room(1000) == 10

    def test_a_slow_rate_lets_whole_messages_pass(self, clock):
        limit, granted = RateLimit(1.0, interval=10.0), 0
        for _ in range(1000):
            clock.advance(0.1)
            room = limit.room(5)
            limit.take(room)
            granted += room
        assert granted in (9, 10)

    def test_it_is_changed_while_it_runs(self, clock):
        limit = RateLimit(1.0)
        limit.set(1000.0)
        clock.advance(0.05)
        assert limit.room(1000) == 50
        limit.set(None)
        assert limit.room(1000) == 1000

    def test_demand_asks_for_no_more_than_it_allows(self, clock):
        yard = Yard(most=1000, least=999, rate=100.0)
        yard.hello("room1", waiting=100_000, answers=False)
        for _ in range(100):
            clock.advance(0.05)
            yard.ledger.tick()
            yard.arrive("room1")
        assert yard.ledger.accounts["room1"].seen == pytest.approx(500, abs=10)


@pytest.fixture
def looked_at(monkeypatch):
    """The devices whose account is judged by the time, which every use of an account begins with."""
    devices, late = [], Account.late.fget

    def noting(account):
        devices.append(account.device)
        return late(account)

    monkeypatch.setattr(Account, "late", property(noting))
    return devices


@pytest.mark.parametrize("mode", ["Push", "Pull", "Demand"])
@pytest.mark.parametrize("room", [True, False])
class TestManyDevices:
    """A thousand devices: an event of a device looks at it, at the devices asked now, and at no others."""

    @pytest.fixture
    def yard(self, mode, room, clock):
        yard = Yard(mode, most=10_000, least=9_999)
        for number in range(1000):
            yard.hello(f"room{number}")
        yard.in_flight = 0 if room else 10_000
        yard.sent.clear()
        return yard

    @pytest.mark.parametrize(
        "happens",
        [
            lambda yard: yard.hello("room7"),
            lambda yard: yard.hello("new"),
            lambda yard: yard.hello("room7", epoch=2),
            lambda yard: yard.hello("room7", leaving=True),
            lambda yard: yard.ledger.gone("room7"),
            lambda yard: yard.ledger.arrived("room7", 1, 1),
            lambda yard: yard.ledger.settle(),
            lambda yard: yard.ledger.tick(),
        ],
        ids=["hello", "first hello", "restart", "farewell", "gone", "arrived", "settle", "tick"],
    )
    def test_one_thing_that_happens_concerns_few(self, yard, looked_at, happens):
        happens(yard)
        told = {device for device, _ in yard.sent}
        assert set(looked_at) <= {"room7", "new", "room0"} | told
        assert len(told) <= 2
        assert len(looked_at) <= 20


class TestLate:
    def test_who_is_late_is_found_by_the_time_at_which_each_answered_last(self, clock):
        yard = Yard(most=3, least=2)
        for name in ("a", "b", "c"):
            yard.hello(name)
            clock.advance(PATIENCE / 4)
        yard.hello("here", waiting=9, answers=False)
        yard.hello("b")  # saying hello is no answer
        yard.arrive("a", 1)
        clock.advance(PATIENCE * 0.6)
        yard.ledger.tick()
        assert {name for name, a in yard.ledger.accounts.items() if a.taking is not None} == {"b"}

    def test_of_those_that_were_late_and_come_again_each_is_asked_in_turn(self, clock):
        yard = Yard(most=2, least=1)
        yard.in_flight = 2
        for name in "abcd":
            yard.hello(name, waiting=9, answers=False)
        yard.in_flight, order = 0, []
        for _ in range(6):
            yard.ledger.settle()
            for name in [name for name, asked in yard.asked.items() if asked]:
                order.append(name)
                yard.arrive(name)
                yard.hello(name, sent=yard.ledger.accounts[name].seen, waiting=9, answers=False)
        assert set(order[:4]) == set("abcd")
        assert set(order[4:8]) == set("abcd")


class TestTurns:
    def account(self, name):
        return Account(name, connected=True, answers=True)

    def test_who_was_asked_longest_ago_comes_first_also_after_a_time_away(self):
        turns, accounts = Turns(), {name: self.account(name) for name in "abc"}
        for account in accounts.values():
            turns.put(account, able=True)
        for name in "abc":
            turns.asked(accounts[name])
        turns.put(accounts["a"], able=False)
        assert turns.first() is accounts["b"]
        turns.asked(accounts["b"])
        turns.put(accounts["a"], able=True)
        assert turns.first() is accounts["a"]
        assert len(turns) == 3

    def test_one_that_comes_and_goes_for_ever_leaves_nothing_behind(self):
        turns, first, fickle = Turns(), self.account("a"), self.account("b")
        turns.put(first, able=True)
        for _ in range(10_000):
            turns.put(fickle, able=True)
            turns.put(fickle, able=False)
        assert len(turns._heap) < 100
        assert turns.first() is first
