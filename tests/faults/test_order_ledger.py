"""The ledger of orders sees orders that are lost, run twice or out of order, and answers that are missing."""

import sys
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).parent))
from books import RunBook, SentBook
from orders import Order, OrderLedger
from states import Key


class Books:
    """The files of the desk and of one room, and the ledger that reads them."""

    def __init__(self, folder):
        self._folder = folder
        self._starts = 0
        self.ledger = OrderLedger()
        self.ledger.expect(SentBook(folder / "sent", 1))
        self.start_room()

    def start_room(self):
        self._starts += 1
        self.ledger.follow("room1", RunBook(self._folder / f"run-{self._starts}"))

    def sends(self, *numbers):
        self._write("sent", [f"room1 {number}" for number in numbers])

    def runs(self, *numbers, kind="order"):
        self._write(f"run-{self._starts}", [f"{kind} 1 {number}" for number in numbers])

    def _write(self, name, lines):
        with (self._folder / name).open("a") as file:
            file.writelines(f"{line}\n" for line in lines)
        self.ledger.update()


@pytest.fixture
def books(tmp_path):
    return Books(tmp_path)


def orders(*numbers):
    return {Order("room1", 1, number) for number in numbers}


def test_orders_that_are_run_as_sent_are_right(books):
    books.sends(1, 2)
    books.runs(1, 2, 3)
    ledger = books.ledger
    assert (ledger.sent, ledger.owed, ledger.doubled, ledger.reordered) == (2, set(), set(), set())


def test_an_order_that_is_not_run_is_owed_and_overtaken_once_a_later_order_is_run(books):
    books.sends(1, 2, 3)
    books.runs(1)
    assert books.ledger.owed == orders(2, 3)
    assert books.ledger.overtaken() == set()
    books.runs(3)
    assert books.ledger.overtaken() == orders(2)


def test_an_order_that_a_start_runs_twice_is_doubled(books):
    books.runs(1, 2, 1)
    assert books.ledger.doubled == orders(1)


def test_a_room_that_starts_again_may_repeat_its_last_orders_and_none_once_a_new_order_has_come(books):
    books.runs(1, 2)
    books.start_room()
    books.runs(1, 2, 3)
    assert books.ledger.doubled == set()
    books.runs(2)
    assert books.ledger.doubled == orders(2)


def test_an_order_that_is_run_behind_a_later_order_is_reordered(books):
    books.runs(2, 1, 3)
    assert books.ledger.reordered == orders(1)


def test_an_answer_that_did_not_come_is_missing_and_may_come_twice(books):
    books.runs(50, 50, kind="answer")
    answered, missing = (Key("room1", 1, number) for number in (50, 100))
    assert books.ledger.unanswered([answered, missing]) == {missing}
    assert books.ledger.doubled == set()
