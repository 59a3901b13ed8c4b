"""Pull: a request is met by the numbers that were granted for it, however they leave the pipeline, and by those alone."""

from __future__ import annotations

import pytest

from pratipad_nb.errors import DeviceError, FlowError, SettingsError
from pratipad_nb.runtime.devices.credit import PATIENCE, Ledger, RateLimit
from pratipad_nb.runtime.devices.pull import Requests
from pratipad_nb.runtime.positions.position import Positions
from pratipad_nb.transport.frames import HelloFrame


class Yard:
    def __init__(self, mode="Pull", rate=None):
        self.positions = Positions()
        self.ledger = Ledger(
            mode,
            lambda *_: None,
            lambda: 0,
            delivery="durable",
            max_demand=1000,
            min_demand=500,
            limit=RateLimit(rate),
        )
        self.requests = Requests(self.ledger, self.positions)

    def hello(self, device, *, sent=0, waiting=0, answers=True, epoch=1, **more):
        self.ledger.hello(HelloFrame("house", device, epoch, sent, waiting, answers, **more))
        self.requests.settle()

    def bring(self, device, count, *, stored=True):
        """Let `count` messages of a device arrive and leave the pipeline."""
        account = self.ledger.accounts[device]
        self.ledger.arrived(device, account.epoch, account.seen + count)
        if stored:
            self.positions.advance([(device, account.epoch, account.seen)])
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


def test_a_device_that_is_named_is_asked_alone(yard):
    yard.requests.pull(5, "b")
    assert yard.asked == {"a": 0, "b": 5}


def test_a_request_is_done_when_its_numbers_have_left_the_pipeline_and_no_earlier(yard):
    request = yard.requests.pull(2, "a")
    yard.bring("a", 2, stored=False)
    assert not request.done.is_set()
    assert (request.left, request.silent) == (2, ["a"])
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


def test_what_a_silent_device_owes_is_asked_of_others(yard, monkeypatch):
    request = yard.requests.pull(4)
    yard.bring("b", 2)
    yard.ledger.accounts["a"].moved -= 2 * PATIENCE
    yard.requests.settle()
    yard.bring("b", 2)
    assert request.done.is_set()


def test_what_was_asked_of_one_device_is_asked_of_no_other_and_it_is_named(yard):
    request = yard.requests.pull(2, "a")
    yard.ledger.gone("a")
    yard.requests.settle()
    assert yard.asked["b"] == 0
    assert request.silent == ["a"]
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
    assert yard.requests.find(request.id) is None


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
    assert [yard.requests.find(asked[0]) is not None for yard in yards] == [True, False]
