"""Where messages may pass back, and what changed between two versions of a cell."""

import textwrap
from typing import Any

import pytest

from pratipad_nb.dataflow import Dataflow, resolve
from pratipad_nb.errors import ProcessorError


def passing(payload: Any, *, n: int = 0, flag: object = None) -> Any:
    return payload


class Holder:
    def method(self, payload: Any) -> Any:
        return payload


NAMES = {"A": passing, "B": passing, "C": passing, "D": passing, "holder": Holder()}


def flow(text: str, **names: Any) -> Dataflow:
    return resolve(text, NAMES | names)


@pytest.mark.parametrize(
    ("text", "first_one_way", "repliers"),
    [
        ("Push <~> A <~> [B, C] <~> Output", None, {"A", "B", "C"}),
        ("Push <~> A ~> [B, C] <~> Output", 1, {"A"}),
        ("Push <~> A <~> {B, C} ~> Output", 2, {"A", "B", "C"}),
        ("Push ~> A <~> [B, C] <~> Output", 0, set()),
    ],
)
def test_each_arrow_speaks_for_its_own_hop(text: str, first_one_way: int | None, repliers: set[str]) -> None:
    dataflow = flow(text)
    assert dataflow.first_one_way_hop == first_one_way
    assert dataflow.cloud_reaches_devices is (first_one_way is None)
    assert {step.key for step in dataflow.steps if dataflow.replies_from(step.key)} == repliers


def test_an_arrow_that_nothing_can_use_gives_a_warning_under_it() -> None:
    (warning,) = flow("Push <~> A ~> B <~> Output").warnings
    way = "the way to the devices (line 1, column 17)"
    assert warning == textwrap.dedent(f"""\
        nothing can pass back over this `<~>`: the `~>` at line 1, column 12 ends {way}
            Push <~> A ~> B <~> Output
                            ^^^
          hint: write `<~>` there too, or `~>` here""")


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("Push ~> A ~> Output", 0),
        ("Push <~> A <~> Output", 0),
        ("Push <~> A ~> Output", 0),
        ("Push ~> A <~> Output", 1),
        ("Push ~> A <~> B <~> Output", 2),
    ],
)
def test_only_arrows_cut_off_from_the_devices_are_warned_of(text: str, count: int) -> None:
    assert len(flow(text).warnings) == count


def test_a_step_is_found_by_its_key_and_an_unknown_key_is_answered_with_those_there_are() -> None:
    dataflow = flow("Push ~> [A, A] ~> B ~> Output")
    assert dataflow.step("A#2") is dataflow.stages[0].steps[1]
    assert dataflow.stage_of("B") == 1
    with pytest.raises(ProcessorError, match="'Z' is no processor of this dataflow; there are: A, A#2, B"):
        dataflow.step("Z")


def test_a_difference_names_what_comes_goes_changes_and_stays() -> None:
    old = flow("Push ~> A ~> B(n=1) ~> C ~> Output")
    new = flow("Push ~> [C, A] ~> {B(n=2), D} ~> Output")
    difference = old.diff(new)
    assert difference.kept == ("C", "A")
    assert difference.changed == ("B",)
    assert difference.added == ("D",)
    assert difference.removed == ()
    assert new.diff(old).removed == ("D",)


def test_a_class_defined_anew_is_a_change() -> None:
    def again(payload: Any) -> Any:
        return payload

    assert flow("Push ~> A ~> Output").diff(flow("Push ~> A ~> Output", A=again)).changed == ("A",)


def test_one_is_another_argument_than_true() -> None:
    assert flow("Push ~> A(flag=1) ~> Output").diff(flow("Push ~> A(flag=True) ~> Output")).changed == ("A",)


def test_the_order_of_arguments_is_no_change() -> None:
    old, new = flow("Push ~> A(n=1, flag=2) ~> Output"), flow("Push ~> A(flag=2, n=1) ~> Output")
    assert old.diff(new).kept == ("A",)


def test_a_bound_method_stays_the_same_though_python_makes_it_anew() -> None:
    old, new = flow("Push ~> holder.method ~> Output"), flow("Push ~> holder.method ~> Output")
    assert old.diff(new).kept == ("method",)


def test_a_dataflow_can_be_a_key() -> None:
    assert len({flow("Push ~> A(n=1) ~> Output"), flow("Push~>A(n=1)~>Output # again")}) == 1
