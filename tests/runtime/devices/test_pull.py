"""Pull: a request is met by the numbers granted for it alone, however they leave the pipeline."""

from __future__ import annotations

import random
from collections import Counter

import pytest
from by_clock import by_clock
from hypothesis import given, settings
from hypothesis import strategies as st

from pratipad_nb.errors import DeviceError, FlowError, SettingsError
from pratipad_nb.hardware.clock import ManualClock
from pratipad_nb.runtime.devices.account import PATIENCE
from pratipad_nb.runtime.devices.credit import Ledger
from pratipad_nb.runtime.devices.pull import MOST_OPEN, Requests
from pratipad_nb.runtime.devices.rate_limit import RateLimit
from pratipad_nb.transport.frames import HelloFrame


class Yard:
    def __init__(self, mode="Pull", rate=None):
        self.ledger = Ledger(
            mode,
            lambda *_: None,
            lambda: 0,
            delivery="durable",
            max_demand=1000,
            min_demand=500,
            limit=RateLimit(rate),
            on_change=lambda account: self.requests.note(account),
        )
        self.requests = Requests(self.ledger)

    def hello(self, device, *, sent=0, waiting=0, answers=True, epoch=1, **more):
        self.ledger.hello(HelloFrame("house", device, epoch, sent, waiting, answers, **more))
        self.requests.settle()

    def bring(self, device, count, *, stored=True):
        """Let `count` messages of a device arrive and leave the pipeline."""
        account = self.ledger.accounts[device]
        self.ledger.arrived(device, account.epoch, account.seen + count)
        if stored:
            self.requests.stored([(device, account.epoch, account.seen)])
        self.requests.settle()

    def tick(self):
        """Let time have its effect, as the edge does."""
        self.ledger.tick()
        self.requests.settle()

    @property
    def asked(self):
        return {name: account.outstanding for name, account in self.ledger.accounts.items()}


@pytest.fixture
def yard():
    yard = Yard()
    yard.hello("a")
    yard.hello("b")
    return yard


def test_nothing_is_asked_for_before_somebody_pulls(yard):
    assert yard.asked == {"a": 0, "b": 0}


def test_devices_are_asked_in_turn_for_so_many_in_all(yard):
    yard.requests.pull(5)
    assert sorted(yard.asked.values()) == [2, 3]


@pytest.mark.parametrize("arrived", [0, 2, 3])
def test_what_a_device_has_sent_of_its_epoch_before_counts_though_its_next_hello_overtakes_it(yard, arrived):
    yard.hello("kept", waiting=3, answers=False)
    request = yard.requests.pull(3, "kept")
    yard.ledger.arrived("kept", 1, arrived)
    yard.hello("kept", epoch=2, answers=False, former=1, former_sent=3)
    assert (yard.asked["kept"], request.unclaimed) == (0, 0)
    assert yard.ledger.void("kept", 1, 1, 3) == 0
    yard.requests.stored([("kept", 1, 3)])
    assert request.done.is_set()


def test_what_is_asked_for_again_counts_though_the_next_hello_overtakes_it(yard):
    yard.hello("kept", waiting=3, answers=False)
    yard.requests.pull(9)
    assert yard.asked["kept"] == 3
    yard.ledger.gone("kept")
    yard.requests.settle()  # asked of the others
    yard.hello("kept", waiting=3, answers=False)
    request = yard.requests.pull(3, "kept")
    yard.hello("kept", epoch=2, answers=False, former=1, former_sent=3)
    assert yard.ledger.void("kept", 1, 1, 3) == 0
    yard.requests.stored([("kept", 1, 3)])
    assert request.done.is_set()


def test_what_a_device_was_asked_for_beyond_its_epoch_before_is_asked_of_its_next_epoch(yard):
    yard.hello("kept", waiting=3, answers=True)
    request = yard.requests.pull(5, "kept")
    assert yard.asked["kept"] == 5
    yard.hello("kept", epoch=2, former=1, former_sent=3)
    assert (yard.asked["kept"], request.unclaimed) == (2, 0)
    yard.requests.stored([("kept", 1, 3)])
    yard.bring("kept", 2)
    assert request.done.is_set()


def test_what_has_arrived_of_a_start_that_has_ended_counts_once_it_is_stored(yard):
    yard.hello("a", waiting=2, answers=False, epoch=5)
    request = yard.requests.pull(2, "a")
    yard.ledger.arrived("a", 5, 1)
    yard.hello("a", waiting=1, answers=False, epoch=6)  # killed after the first, and started again
    assert (yard.asked["a"], request.left) == (1, 2)
    yard.requests.stored([("a", 5, 1)])
    yard.bring("a", 1)
    assert request.done.is_set()


def test_a_device_that_is_named_is_asked_alone(yard):
    yard.requests.pull(5, "b")
    assert yard.asked == {"a": 0, "b": 5}


def test_a_request_is_done_when_its_numbers_have_left_the_pipeline_and_no_earlier(yard):
    request = yard.requests.pull(2, "a")
    yard.bring("a", 2, stored=False)
    assert not request.done.is_set()
    assert (request.left, request.silent) == (2, ("a",))
    yard.bring("a", 0)
    assert request.done.is_set()
    assert request.left == 0


def test_two_requests_of_one_device_are_met_one_after_the_other(yard):
    first, second = yard.requests.pull(2, "a"), yard.requests.pull(2, "a")
    yard.bring("a", 3)
    assert first.done.is_set()
    assert (second.done.is_set(), second.left) == (False, 1)


def test_a_request_waits_for_a_device_to_come():
    yard = Yard()
    request = yard.requests.pull(3)
    assert request.left == 3
    yard.hello("late")
    assert yard.asked == {"late": 3}


def test_what_a_device_that_goes_away_owes_is_asked_of_others(yard):
    request = yard.requests.pull(4)
    yard.bring("a", 1)
    yard.ledger.gone("a")
    yard.requests.settle()
    assert yard.asked["b"] == 3
    yard.bring("b", 3)
    assert request.done.is_set()


@pytest.fixture
def silent(yard, monkeypatch):
    """A request whose readings `b` has brought and `a` has not, in its time."""
    clock = ManualClock()
    by_clock(monkeypatch, clock)
    for account in yard.ledger.accounts.values():
        account.since = clock.monotonic()
    request = yard.requests.pull(4)
    yard.bring("b", 2)
    clock.advance(2 * PATIENCE)
    yard.tick()
    return request


def test_what_a_silent_device_owes_is_asked_of_others_once_it_has_said_that_it_has_sent_none(yard, silent):
    assert yard.asked["b"] == 0
    yard.hello("a", owner=yard.ledger.accounts["a"].owner)
    assert yard.asked == {"a": 0, "b": 2}
    yard.bring("b", 2)
    assert silent.done.is_set()


def test_what_a_silent_device_has_sent_by_then_is_asked_of_nobody(yard, silent):
    yard.hello("a", sent=1, owner=yard.ledger.accounts["a"].owner)
    assert sum(yard.asked.values()) == 2
    assert yard.ledger.void("a", 1, 1, 1) == 0
    for name, asked in yard.asked.items():
        yard.bring(name, asked)
    assert silent.done.is_set()


def test_a_hello_from_before_does_not_say_what_the_silent_device_will_send(yard, silent):
    yard.hello("a", owner=yard.ledger.accounts["a"].owner - 1)
    assert yard.asked == {"a": 2, "b": 0}


def test_what_a_request_that_names_a_silent_device_asked_for_is_asked_of_it_anew(yard, silent):
    named = yard.requests.pull(3, "a")
    yard.hello("a", owner=yard.ledger.accounts["a"].owner)
    assert (named.left, silent.left) == (3, 2)
    yard.bring("b", 2)
    for _ in range(3):
        yard.bring("a", yard.asked["a"])
    assert named.done.is_set()


def test_what_a_device_that_is_gone_sends_late_does_not_pass_but_its_next_readings_do(yard):
    request = yard.requests.pull(4)
    yard.ledger.gone("a")
    yard.requests.settle()
    assert yard.ledger.void("a", 1, 1, 2) == 2
    yard.bring("b", 4)
    assert request.done.is_set()
    yard.hello("a", sent=1, owner=yard.ledger.accounts["a"].owner)
    yard.ledger.arrived("a", 1, 1)
    again = yard.requests.pull(2, "a")
    while not again.done.is_set():
        low, high = yard.ledger.accounts["a"].seen + 1, yard.ledger.accounts["a"].total
        assert yard.ledger.void("a", 1, low, high) == 0
        yard.bring("a", high - low + 1)


def test_what_a_late_start_of_a_device_was_asked_for_does_not_pass_once_it_is_asked_anew(yard):
    yard.requests.pull(2, "a")
    yard.hello("a", epoch=2)
    assert yard.asked["a"] == 2
    assert yard.ledger.void("a", 1, 1, 2) == 2
    assert yard.ledger.void("a", 2, 1, 2) == 0


def test_a_device_that_has_sent_all_and_says_farewell_is_waited_for_until_its_readings_are_here(yard):
    request = yard.requests.pull(4)
    yard.hello("a", sent=2, leaving=True)
    yard.tick()
    assert yard.asked == {"a": 2, "b": 2}
    yard.bring("a", 2)
    yard.bring("b", 2)
    assert request.done.is_set()


def test_what_a_device_that_says_farewell_has_not_sent_is_asked_of_others_at_once(yard):
    yard.requests.pull(4)
    yard.hello("a", sent=1, leaving=True)
    assert yard.asked == {"a": 1, "b": 3}


def test_what_was_asked_of_one_device_is_asked_of_no_other_and_it_is_named(yard):
    request = yard.requests.pull(2, "a")
    yard.ledger.gone("a")
    yard.requests.settle()
    assert yard.asked["b"] == 0
    assert request.silent == ("a",)
    yard.hello("a")
    yard.bring("a", 2)
    assert request.done.is_set()


def test_a_device_that_starts_again_is_asked_anew_for_what_its_last_run_did_not_bring(yard):
    request = yard.requests.pull(3, "a")
    yard.bring("a", 1)
    yard.hello("a", epoch=2)
    assert yard.asked["a"] == 2
    yard.bring("a", 2)
    assert request.done.is_set()


def test_a_device_that_only_pushes_is_asked_for_what_it_holds():
    yard = Yard()
    yard.hello("a", waiting=2, answers=False)
    yard.requests.pull(5)
    assert yard.asked == {"a": 2}
    yard.hello("a", waiting=4, answers=False)
    assert yard.asked == {"a": 4}


def test_a_rate_limit_spreads_a_request_over_time(monkeypatch):
    yard = Yard(rate=10.0)
    yard.hello("a")
    yard.requests.pull(50)
    assert yard.asked["a"] <= 1


def test_it_is_found_by_its_id_until_a_thousand_more_are_done(yard):
    request = yard.requests.pull(1, "a")
    assert yard.requests.find(request.id) is request
    for _ in range(1000):
        yard.bring("a", 1)
        yard.requests.pull(1, "a")
    assert yard.requests.find(request.id) is request
    yard.bring("a", 1)
    with pytest.raises(FlowError, match="has been over for long, and how it ended is forgotten"):
        yard.requests.find(request.id)


@pytest.mark.parametrize("count", [0, -1, 1.5, True, "3"])
def test_a_number_that_is_none_is_refused(yard, count):
    with pytest.raises(SettingsError, match=r"pull: n is .*whole number from 1 to 1,000,000"):
        yard.requests.pull(count)


def test_a_device_that_was_never_there_is_refused_with_those_that_were(yard):
    with pytest.raises(DeviceError, match=r"no device 'c' has connected to this flow. Known: a, b\."):
        yard.requests.pull(1, "c")


def test_a_flow_of_another_kind_says_what_to_write():
    with pytest.raises(FlowError, match="begins with Push"):
        Yard("Push").requests.pull(1)


def test_requests_of_two_runs_that_began_in_one_millisecond_are_told_apart(monkeypatch):
    monkeypatch.setattr("time.time_ns", lambda: 1_790_000_000_000_000_000)
    yards = [Yard(), Yard()]
    for yard in yards:
        yard.hello("a")
    asked = [yard.requests.pull(1).id for yard in yards]
    assert yards[0].requests.find(asked[0]).id == asked[0]
    with pytest.raises(FlowError, match="started anew"):
        yards[1].requests.find(asked[0])


def test_no_more_requests_are_open_than_is_said_and_the_error_says_what_to_do():
    yard = Yard()
    requests = [yard.requests.pull(1) for _ in range(MOST_OPEN)]
    with pytest.raises(
        FlowError,
        match=r"pull\(7\): 1,000 requests of this flow are open, and 1,000 may be\. Wait .*cancel\(\)",
    ):
        yard.requests.pull(7)
    requests[500].cancel()
    yard.requests.pull(1)
    yard.hello("a")
    yard.bring("a", 2)
    assert requests[0].done.is_set()
    yard.requests.pull(1)


def counted(yard):
    """Note each question for a device that could be asked: nothing is asked of a device without one."""
    asked, next_able = [], yard.ledger.next_able

    def noting(device=None):
        asked.append(device)
        return next_able(device)

    yard.ledger.next_able = noting
    return asked


@pytest.mark.parametrize("device", [None, "away"])
def test_settling_costs_nothing_for_requests_that_have_nothing_to_settle(device):
    yard = Yard()
    yard.hello("away")
    yard.hello("away", leaving=True)
    for _ in range(MOST_OPEN):
        yard.requests.pull(1, device)
    asked = counted(yard)
    for _ in range(100):
        yard.tick()
    assert asked == []


def test_a_message_that_comes_costs_nothing_for_other_requests_and_other_devices():
    yard = Yard()
    for name in ("a", "b", "c"):
        yard.hello(name)
    for _ in range(900):
        yard.requests.pull(3)
    yard.tick()
    asked = counted(yard)
    yard.bring("a", 3)
    assert len(asked) <= 1
    assert sum(len(claims) for claims in yard.requests._claims.values()) <= 900 * 3


def test_a_long_request_that_a_rate_spreads_is_no_more_to_count_at_its_end_than_at_its_beginning():
    yard = Yard(rate=1000.0)
    yard.hello("a")
    yard.hello("b")
    request = yard.requests.pull(1_000_000)
    for _ in range(200):
        yard.ledger.limit._tokens = 100.0
        yard.tick()
    assert request.unclaimed < 1_000_000 - 2000
    assert [len(claims) for claims in yard.requests._claims.values()] == [1, 1]
    for name in ("a", "b"):
        yard.bring(name, yard.asked[name] - 1, stored=False)
        account = yard.ledger.accounts[name]
        yard.requests.stored([(name, 1, account.seen)])
    assert request.owing == {"a": 1, "b": 1}


def test_while_a_rate_spreads_one_request_a_device_that_another_names_is_asked_too():
    yard = Yard(rate=1000.0)
    yard.hello("a")
    yard.hello("b")
    yard.requests.pull(100_000)
    named = yard.requests.pull(10, "b")
    for _ in range(3):
        yard.ledger.limit._tokens = 20.0
        yard.tick()
    assert named.unclaimed == 0


def test_what_comes_for_a_request_that_was_cancelled_counts_for_no_other(yard):
    first, second = yard.requests.pull(2, "a"), yard.requests.pull(2, "a")
    first.cancel()
    first.cancel()
    yard.bring("a", 2)
    assert (first.left, first.ended, second.left) == (2, "cancelled", 2)
    yard.bring("a", 2)
    assert second.done.is_set()
    second.cancel()
    assert second.ended == ""


def test_requests_that_are_cancelled_again_and_again_leave_nothing_behind(yard):
    kept = yard.requests.pull(1, "b")
    for _ in range(100):
        yard.requests.pull(10, "a").cancel()
    assert {name: len(claims) for name, claims in yard.requests._claims.items()} == {"b": 1}
    assert yard.requests._unasked == {}
    yard.bring("b", 1)
    assert kept.done.is_set()


def test_a_request_that_is_done_names_nobody_as_silent(yard):
    request = yard.requests.pull(1, "a")
    yard.bring("a", 1)
    assert request.silent == ()


def test_a_device_that_goes_away_alone_keeps_what_it_owes_until_another_can_be_asked():
    yard = Yard()
    yard.hello("a")
    request = yard.requests.pull(2)
    yard.ledger.gone("a")
    yard.tick()
    assert request.unclaimed == 0
    yard.hello("b")
    assert yard.asked["b"] == 2
    yard.bring("b", 2)
    assert request.done.is_set()


def test_a_device_that_comes_back_before_another_brings_what_it_owes():
    yard = Yard()
    yard.hello("a")
    request = yard.requests.pull(2)
    yard.ledger.gone("a")
    yard.tick()
    yard.hello("a")
    yard.hello("b")
    yard.bring("a", 2)
    assert request.done.is_set()
    assert yard.asked["b"] == 0


def test_a_flow_that_begins_with_another_word_ends_its_requests(yard):
    request = yard.requests.pull(2, "a")
    yard.requests.end("the flow begins with Push now")
    yard.ledger.change_mode("Push")
    yard.tick()
    assert (request.done.is_set(), request.ended) == (True, "the flow begins with Push now")
    assert yard.requests.find(request.id) is request


def test_a_device_that_speaks_through_a_gateway_is_asked_through_it(yard):
    with pytest.raises(DeviceError, match=r"speaks through the gateway 'a'.*pull\(…, device='a'\)"):
        yard.requests.pull(1, "a.t1")


@pytest.mark.parametrize("device", [3, "", "a b", "Pull", "a.b.c"])
def test_a_name_that_no_device_can_have_is_refused(yard, device):
    with pytest.raises(SettingsError, match="can't name a device"):
        yard.requests.pull(1, device)


@given(st.integers(0, 2**32))
@settings(max_examples=60, deadline=None)
def test_whatever_devices_do_every_reading_is_asked_of_somebody_or_waited_for_and_all_come_at_last(seed):
    with pytest.MonkeyPatch.context() as patch:
        clock = ManualClock()
        by_clock(patch, clock)
        patch.setattr(clock, "time_ns", lambda: 1, raising=False)
        live(random.Random(seed), clock)


def live(chance, clock):
    yard, epochs, requests, arrived = Yard(), dict.fromkeys("abcd", 0), [], {}
    for _ in range(120):
        device = chance.choice("abcd")
        account = yard.ledger.accounts.get(device)
        match chance.choice(["pull", "hello", "restart", "bring", "bring", "gone", "silence", "cancel"]):
            case "pull":
                name = device if account and chance.random() < 0.4 else None
                requests.append(yard.requests.pull(chance.randint(1, 9), name))
            case "hello" if account:
                answers, held = chance.random() < 0.5, account.seen + chance.randint(0, 5)
                yard.hello(
                    device,
                    epoch=account.epoch,
                    sent=account.seen,
                    waiting=held - account.seen,
                    answers=answers,
                )
            case "restart":
                epochs[device] += 1
                yard.hello(device, epoch=epochs[device], answers=chance.random() < 0.5, waiting=3)
            case "bring" if account and account.outstanding:
                yard.bring(device, chance.randint(1, account.outstanding), stored=chance.random() < 0.8)
                arrived[device, account.epoch] = account.seen
            case "gone":
                yard.ledger.gone(device)
            case "silence":
                clock.advance(PATIENCE * 1.1)
            case "cancel" if requests:
                chance.choice(requests).cancel()
        yard.tick()
        check(yard, requests)
    for device in "abcd":
        epochs[device] += 1
        yard.hello(device, epoch=epochs[device])
    yard.tick()
    # What has arrived leaves the pipeline at last, also of earlier starts.
    yard.requests.stored([(*start, number) for start, number in arrived.items()])
    for _ in range(200):  # a slow device is asked for a few readings at a time
        for device in "abcd":
            yard.bring(device, yard.asked[device])
    check(yard, requests)
    assert all(request.done.is_set() for request in requests)


def check(yard, requests):
    """Compare the counts of each request with the claims on its devices, and the claims with each other."""
    owed = Counter()
    for device, claims in yard.requests._claims.items():
        assert claims
        numbers = [(claim.epoch, n) for claim in claims for n in range(claim.low, claim.high + 1)]
        assert numbers == sorted(set(numbers))
        for claim in claims:
            owed[claim.request.id, device] += claim.size
    for request in requests:
        if not request.ended:
            its = {device: count for (id_, device), count in owed.items() if id_ == request.id}
            assert {device: count for device, count in request.owing.items() if count} == its
        assert request.left == request.unclaimed + sum(request.owing.values())
        assert request.done.is_set() == (request.left == 0 or request.ended != "")
        if not request.done.is_set() and request.unclaimed:
            assert request.id in yard.requests._unasked[request.device][request.by]
            assert yard.ledger.next_able(request.device) is None  # else it had been asked
        if request.done.is_set():
            assert not any(id_ == request.id for id_, _ in owed)


def test_a_reader_that_asks_for_all_there_is_leaves_another_its_part():
    yard = Yard()
    yard.hello("kept", waiting=1000, answers=False)
    for _ in range(MOST_OPEN):
        yard.requests.pull(1_000_000, by="greedy")
    with pytest.raises(FlowError, match="may be"):
        yard.requests.pull(1, by="greedy")
    modest = [yard.requests.pull(5, by="modest") for _ in range(2)]
    yard.bring("kept", 1000)
    yard.hello("kept", sent=1000, waiting=40, answers=False)
    yard.bring("kept", 40)
    assert [request.left for request in modest] == [0, 0]


def test_two_readers_share_what_devices_may_be_asked_for():
    yard = Yard()
    requests = [yard.requests.pull(1000, by=name) for name in ("one", "other")]
    for _ in range(10):
        for device in "ab":
            account = yard.ledger.accounts.get(device)
            sent = account.seen if account else 0
            yard.hello(device, sent=sent, waiting=50, answers=False)
            yard.bring(device, 50)
    brought = [1000 - request.left for request in requests]
    assert sum(brought) == 1000
    assert min(brought) > 300


def test_a_reader_may_not_ask_about_the_request_of_another(yard):
    request = yard.requests.pull(1, by="one")
    assert yard.requests.find(request.id, "one") is request
    for other in ("other", ""):
        with pytest.raises(FlowError, match="is not known"):
            yard.requests.find(request.id, other)


def test_the_error_about_an_unknown_device_names_few_of_very_many(yard):
    for number in range(500):
        yard.hello(f"room{number:03}")
    with pytest.raises(DeviceError, match=r"room010.*…") as raised:
        yard.requests.pull(1, "nobody")
    assert len(str(raised.value)) < 500
