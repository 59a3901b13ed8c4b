"""The hunt of `rounds.py`: short rounds find nothing, a seed repeats its schedule, its books see faults."""

import subprocess
import sys
from itertools import islice
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).parent))
from books import Book, Key, Ledger, Lines
from rounds import HUNTED, KINDS, Fault, schedule

ROUNDS = Path(__file__).with_name("rounds.py")
#: With this seed each of the five processes is killed once in three rounds, in two of which two of them are.
SEED = 62
SHORT = {"kinds": ("kill",), "longest": 0.5}


class Written:
    """A book whose messages a test writes."""

    def __init__(self):
        self.messages = []

    def new(self):
        yield from self.messages
        self.messages = []


@pytest.fixture
def books():
    return {name: Written() for name in ("room1", "reader", "witness")}


@pytest.fixture
def ledger(books: dict[str, Book]):
    made = Ledger({name: books[name] for name in ("reader", "witness")})
    made.expect(books["room1"])
    return made


def of_room1(*numbers, start=1):
    return [Key("room1", start, number) for number in numbers]


@pytest.mark.timeout(300)
def test_short_rounds_in_which_every_process_is_killed_find_nothing():
    names = [fault.process for faults in islice(schedule(SEED, **SHORT), 3) for fault in faults]
    assert sorted(names) == sorted(each.name for each in HUNTED)
    command = [sys.executable, str(ROUNDS), "--rounds", "3", "--seed", str(SEED), "--faults", "kill"]
    with subprocess.Popen(
        [*command, "--longest", str(SHORT["longest"])],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as hunt:
        try:
            out, err = hunt.communicate()
        finally:
            hunt.terminate()
    assert hunt.returncode == 0, out + err
    assert out.startswith(f"seed {SEED}: 3 rounds")
    assert "lost 0, doubled 0, reordered 0" in out


def test_a_seed_makes_the_same_schedule_again_and_fewer_rounds_are_its_beginning():
    first, again = (list(islice(schedule(7, tuple(KINDS), 6.0), rounds)) for rounds in (50, 20))
    assert first[:20] == again
    assert first != list(islice(schedule(8, tuple(KINDS), 6.0), 50))


def test_a_schedule_has_every_fault_of_every_process_and_pairs_of_two_processes():
    rounds = list(islice(schedule(7, tuple(KINDS), 6.0), 200))
    assert {(f.kind, f.process) for faults in rounds for f in faults} == {
        (kind, each.name) for kind in KINDS for each in HUNTED
    }
    pairs = [faults for faults in rounds if len(faults) == 2]
    assert pairs
    assert all(first.process != second.process for first, second in pairs)
    assert all(0 <= fault.pause <= 6.0 for faults in rounds for fault in faults)


def test_a_fault_says_what_ends_when_and_for_how_long():
    assert str(Fault("kill", "edge", 0.5, 1.25)) == "kill edge at 0.50 s for 1.25 s"


def test_what_arrived_as_promised_is_right(ledger, books):
    books["room1"].messages = of_room1(1, 2)
    books["reader"].messages = of_room1(1, 2, 3)
    books["witness"].messages = of_room1(1, 2, 3)
    assert ledger.update() == 6
    assert (ledger.receipts, ledger.lost, ledger.doubled, ledger.reordered) == (2, set(), set(), set())


def test_a_promise_that_one_reader_misses_is_under_way_until_a_later_message_overtakes_it(ledger, books):
    books["room1"].messages = of_room1(1, 2)
    books["reader"].messages = of_room1(1)
    books["witness"].messages = of_room1(1, 2)
    ledger.update()
    assert ledger.lost == ledger.under_way == set(of_room1(2))
    for name in ("reader", "witness"):
        books[name].messages = of_room1(3)
    ledger.update()
    assert ledger.lost == set(of_room1(2))
    assert ledger.under_way == set()


def test_a_result_without_a_promise_that_one_reader_misses_is_lost(ledger, books):
    books["witness"].messages = of_room1(1)
    ledger.update()
    assert ledger.lost == set(of_room1(1))


def test_a_receipt_that_is_read_after_its_message_owes_nothing(ledger, books):
    for name in ("reader", "witness"):
        books[name].messages = of_room1(1)
    ledger.update()
    books["room1"].messages = of_room1(1)
    ledger.update()
    assert ledger.lost == set()


def test_what_arrives_twice_at_one_reader_is_doubled_with_or_without_a_promise(ledger, books):
    books["witness"].messages = of_room1(1, 2, 2)
    books["reader"].messages = of_room1(1, 2)
    ledger.update()
    assert ledger.doubled == set(of_room1(2))
    assert ledger.reordered == set()


def test_a_reader_that_starts_again_may_repeat_what_it_got_last_and_nothing_once_something_new_has_come(
    ledger, books
):
    books["witness"].messages = of_room1(1, 2, 3)
    ledger.update()
    ledger.arrivals["witness"].resume()
    books["witness"].messages = of_room1(2, 3, 4)
    ledger.update()
    assert ledger.doubled == set()
    books["witness"].messages = of_room1(3)
    ledger.update()
    assert ledger.doubled == set(of_room1(3))


@pytest.mark.parametrize("late", [of_room1(1), of_room1(4, start=1)])
def test_what_arrives_after_a_later_message_of_its_device_is_reordered_in_one_start_and_over_starts(
    ledger, books, late
):
    for name in ("reader", "witness"):
        books[name].messages = [*of_room1(2, 3), *of_room1(1, start=2), *late]
    ledger.update()
    assert ledger.reordered == set(late)


def test_a_line_that_is_cut_off_waits_for_its_rest(tmp_path):
    path = tmp_path / "room1.receipts"
    lines = Lines(path)
    assert list(lines.new()) == []
    path.write_text("1 2\n3 1")
    assert list(lines.new()) == ["1 2"]
    path.write_text("1 2\n3 12\n")
    assert list(lines.new()) == ["3 12"]
