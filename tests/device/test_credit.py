"""Credit: what the edge grants, whatever becomes of its signals on the way."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pratipad_nb.device.credit import UNLIMITED, Credit
from pratipad_nb.errors import FrameError
from pratipad_nb.transport.frames import CreditFrame


def grant(
    total: int, *, owner: int = 1, epoch: int = 7, mode: str = "demand", delivery: str = "durable"
) -> CreditFrame:
    return CreditFrame(mode, owner, epoch, total, delivery)


def test_before_an_edge_has_spoken_nothing_may_be_sent() -> None:
    credit = Credit(7)
    assert not credit.known
    assert credit.left(0) == 0


def test_a_grant_is_a_total_so_that_a_repeat_changes_nothing() -> None:
    credit = Credit(7)
    assert credit.apply(grant(10))
    assert not credit.apply(grant(10))
    assert credit.left(4) == 6
    assert credit.left(11) == 0


@given(st.permutations([3, 8, 5, 1]))
def test_grants_of_one_edge_may_overtake_each_other(totals: list[int]) -> None:
    credit = Credit(7)
    for total in totals:
        credit.apply(grant(total))
    assert credit.total == 8


def test_unlimited_wins_over_every_total_of_the_same_edge() -> None:
    credit = Credit(7)
    credit.apply(grant(UNLIMITED))
    credit.apply(grant(5))
    assert credit.left(1_000_000) is None


def test_a_later_edge_replaces_everything_even_by_less() -> None:
    credit = Credit(7)
    credit.apply(grant(UNLIMITED, mode="push", delivery="fast"))
    assert credit.apply(grant(3, owner=2))
    assert (credit.left(1), credit.mode, credit.fast) == (2, "demand", False)


def test_an_earlier_edge_is_not_listened_to_any_more() -> None:
    credit = Credit(7)
    credit.apply(grant(3, owner=2))
    assert not credit.apply(grant(100, owner=1))
    assert credit.total == 3


def test_a_grant_for_another_epoch_is_not_ours() -> None:
    credit = Credit(7)
    assert not credit.apply(grant(10, epoch=6))
    assert not credit.known


@pytest.mark.parametrize(
    "frame",
    [grant(1, mode="steal"), grant(1, delivery="slow"), grant(-2), grant(1, owner=-1), grant(1, epoch=-2)],
)
def test_what_no_edge_would_say_is_refused(frame: CreditFrame) -> None:
    credit = Credit(7)
    with pytest.raises(FrameError):
        credit.apply(frame)
    assert not credit.known
