"""What a processor's state has to be behind each message, also around poisoned messages and new starts."""

import sys
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).parent))
from states import POISON_EVERY, Key, Result, State, States


class Seen:
    """What the processor of a device has seen, and the reader's states."""

    def __init__(self):
        self.states = States()
        self.state = State()
        self.results = {}

    def sees(self, *numbers, start=1, device="room1"):
        """Let the processor see messages; return whether the results of those not poisoned are exact."""
        exact = []
        for number in numbers:
            key = Key(device, start, number)
            self.state = self.state.after(key)
            self.results[key] = Result(key, self.state)
            if not key.poisoned:
                exact.append(self.states.exact(self.results[key]))
        return all(exact)

    def comes(self, number, start=1):
        return self.states.exact(self.results["room1", start, number])


@pytest.fixture
def seen():
    return Seen()


def test_states_that_follow_from_each_other_are_exact_over_the_starts_of_a_device(seen):
    assert seen.sees(1, 2, 3)
    assert seen.sees(1, 2, start=2)


@pytest.mark.parametrize(
    "wrong", [State(0, 0), State(1, 7), State(2, 0), State(4, 0)], ids=["anew", "old", "sum", "twice"]
)
def test_a_state_that_does_not_follow_is_wrong_once(seen, wrong):
    assert seen.sees(1, 2)
    seen.state = wrong
    assert not seen.sees(3)
    assert seen.sees(4, 5)


def test_the_states_of_two_devices_are_two(seen):
    assert seen.sees(1, 2)
    seen.state = State()
    assert seen.sees(1, 2, device="room2")


def test_a_poisoned_message_is_in_the_state_from_its_place_on_and_its_result_bears_the_state_of_its_place(
    seen,
):
    assert seen.sees(*range(1, 2 * POISON_EVERY + 3))
    assert seen.comes(POISON_EVERY)
    late = seen.results["room1", 1, 2 * POISON_EVERY]
    assert not seen.states.exact(late._replace(state=late.state._replace(total=0)))


def test_a_poisoned_message_that_the_state_lacks_is_seen_at_the_next_message(seen):
    assert seen.sees(*range(1, POISON_EVERY))
    assert not seen.sees(POISON_EVERY + 1)


def test_a_poisoned_message_that_has_been_mended_in_time_comes_in_its_place(seen):
    assert seen.sees(*range(1, POISON_EVERY + 1))
    assert seen.comes(POISON_EVERY)
    assert seen.sees(POISON_EVERY + 1)


@pytest.mark.parametrize("last", [POISON_EVERY - 1, POISON_EVERY], ids=["unseen", "seen"])
def test_a_poisoned_message_at_the_end_of_a_start_may_have_been_seen_or_not(seen, last):
    assert seen.sees(*range(1, last + 1))
    assert seen.sees(1, 2, start=2)
    seen.state = seen.state._replace(count=seen.state.count + 1)
    assert not seen.sees(3, start=2)
