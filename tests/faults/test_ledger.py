"""The ledger of results sees each fault that a hunt looks for, and nothing where all is right."""

import json
import sqlite3
import sys
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).parent))
from books import DatabaseBook, Lines, OutputBook, ReceiptBook
from ledger import Ledger
from states import POISON_EVERY, REPLY_EVERY, Key, Result, State

READERS = ("archive", "witness")


class Written:
    """A book whose entries a test writes."""

    def __init__(self):
        self.entries = []

    def new(self):
        yield from self.entries
        self.entries = []


@pytest.fixture
def books():
    return {name: Written() for name in ("room1", *READERS)}


@pytest.fixture
def ledger(books):
    made = Ledger({name: books[name] for name in READERS})
    made.expect(books["room1"])
    return made


@pytest.fixture
def arrives(books, ledger):
    """Give a function that lets messages arrive; their states are not looked at."""

    def arrive(*keys, readers=READERS):
        for name in readers:
            books[name].entries += [Result(key, State()) for key in keys]
            ledger.update()

    return arrive


@pytest.fixture
def promised(books, ledger):
    def promise(*keys):
        books["room1"].entries += keys
        ledger.update()

    return promise


def of_room1(*numbers, start=1):
    return [Key("room1", start, number) for number in numbers]


def test_what_arrived_as_promised_is_right(ledger, arrives, promised):
    promised(*of_room1(1, 2))
    arrives(*of_room1(1, 2, 3))
    assert ledger.receipts == 2
    assert not ledger.lost | ledger.doubled | ledger.reordered


def test_a_promise_that_one_reader_misses_is_under_way_until_a_later_message_overtakes_it(
    ledger, arrives, promised
):
    promised(*of_room1(1, 2))
    arrives(*of_room1(1))
    arrives(*of_room1(2), readers=["witness"])
    assert ledger.lost == ledger.under_way == set(of_room1(2))
    arrives(*of_room1(3))
    assert ledger.lost == set(of_room1(2))
    assert ledger.under_way == set()


def test_a_result_without_a_promise_that_one_reader_misses_is_lost(ledger, arrives):
    arrives(*of_room1(1), readers=["witness"])
    assert ledger.lost == set(of_room1(1))
    arrives(*of_room1(1), readers=["archive"])
    assert ledger.lost == set()


def test_a_receipt_that_is_read_after_its_message_owes_nothing(ledger, arrives, promised):
    arrives(*of_room1(1))
    promised(*of_room1(1))
    assert ledger.lost == set()


def test_what_arrives_twice_at_one_reader_is_doubled_with_or_without_a_promise(ledger, arrives):
    arrives(*of_room1(1, 2, 2))
    assert ledger.doubled == set(of_room1(2))
    assert ledger.reordered == set()


def test_a_reader_that_starts_again_may_repeat_what_it_got_last_and_nothing_once_something_new_has_come(
    ledger, arrives
):
    arrives(*of_room1(1, 2, 3))
    ledger.arrivals["witness"].resume()
    arrives(*of_room1(2, 3, 4), readers=["witness"])
    assert ledger.doubled == set()
    arrives(*of_room1(3), readers=["witness"])
    assert ledger.doubled == set(of_room1(3))


@pytest.mark.parametrize("late", [of_room1(1), of_room1(4, start=1)])
def test_what_arrives_after_a_later_message_of_its_device_is_reordered_in_one_start_and_over_starts(
    ledger, arrives, late
):
    arrives(*of_room1(2, 3), *of_room1(1, start=2), *late)
    assert ledger.reordered == set(late)


def test_a_poisoned_message_may_come_late_and_has_to_come_once(ledger, arrives, promised):
    dead = of_room1(POISON_EVERY)
    promised(*dead)
    arrives(*of_room1(POISON_EVERY + 1))
    assert ledger.lost == ledger.under_way == set(dead)
    arrives(*dead)
    assert not ledger.lost | ledger.reordered
    arrives(*dead)
    assert ledger.doubled == set(dead)


def test_the_results_that_a_processor_answers_are_known_once_they_have_arrived_anywhere(ledger, arrives):
    arrives(*of_room1(REPLY_EVERY - 1, REPLY_EVERY), readers=["witness"])
    assert ledger.answered == set(of_room1(REPLY_EVERY))


def test_a_state_that_is_not_what_it_has_to_be_is_wrong(ledger, books):
    (first, second) = of_room1(1, 2)
    right = State().after(first)
    books["witness"].entries += [Result(first, right), Result(second, State(2, 0))]
    ledger.update()
    assert ledger.wrong == {second}


def test_a_line_that_is_cut_off_waits_for_its_rest(tmp_path):
    path = tmp_path / "room1.receipts"
    lines = Lines(path)
    assert list(lines.new()) == []
    path.write_text("1 2\n3 1")
    assert list(lines.new()) == ["1 2"]
    path.write_text("1 2\n3 12\n")
    assert list(lines.new()) == ["3 12"]


def test_receipts_are_ranges_of_numbers(tmp_path):
    path = tmp_path / "room1.receipts"
    path.write_text("1 2\n3 3\n")
    assert list(ReceiptBook(path, "room1", 4).new()) == of_room1(1, 2, 3, start=4)


def test_both_readers_books_give_the_same_results(tmp_path):
    payload = {"start": 1, "n": 2, "value": 3, "count": 2, "total": 7}
    with sqlite3.connect(tmp_path / "house.db") as database:
        database.execute("CREATE TABLE messages (number INTEGER PRIMARY KEY, device TEXT, payload TEXT)")
        database.execute("INSERT INTO messages (device, payload) VALUES ('room1', ?)", [json.dumps(payload)])
    database.close()
    (tmp_path / "witness.out").write_text(json.dumps({"device": "room1", "payload": payload}) + "\n")
    written = DatabaseBook(tmp_path / "house.db")
    found = [*written.new(), *OutputBook(tmp_path / "witness.out").new()]
    assert found == [Result(Key("room1", 1, 2), State(2, 7))] * 2
    assert list(written.new()) == []
    written.close()
