"""Names, numbers, paths and options: what is taken, and how what isn't is told."""

import math
from pathlib import Path

import pytest

from pratipad_nb.errors import SettingsError
from pratipad_nb.settings import (
    Address,
    Credentials,
    FlowOptions,
    Keep,
    Leaf,
    checked_count,
    checked_keep,
    checked_number,
    checked_path,
    checked_wait,
)

NO_NUMBERS = ["week", True, None, math.nan, math.inf, 10**400, [1]]


@pytest.mark.parametrize("value", [*NO_NUMBERS, 0.5, -1])
def test_a_number_that_is_none_or_too_small_is_refused_with_its_value_and_the_bound(value):
    with pytest.raises(SettingsError, match=r"pace is .*; it must be a number of at least 1 of seconds\."):
        checked_number(value, "pace", least=1.0, more=" of seconds")


def test_a_number_comes_back_as_a_float():
    assert checked_number(2, "pace", least=1.0) == 2.0


@pytest.mark.parametrize("value", [each for each in NO_NUMBERS if each not in (None, math.inf)] + [-0.1])
def test_a_wait_that_is_none_is_refused(value):
    with pytest.raises(SettingsError, match=r"seconds \(0 or more\), or None for ever"):
        checked_wait(value, "take: timeout")


def test_a_wait_without_end_is_none():
    assert [checked_wait(value, "timeout") for value in (None, math.inf, 0, 2)] == [None, None, 0.0, 2.0]


@pytest.mark.parametrize(("value", "bounds"), [(0, {}), (2.5, {}), (True, {}), ("3", {}), (11, {"most": 10})])
def test_a_count_that_is_none_is_refused(value, bounds):
    with pytest.raises(
        SettingsError, match=r"n is .*; it must be a whole number (of at least 1|from 1 to 10)\."
    ):
        checked_count(value, "n", **bounds)


@pytest.mark.parametrize("value", ["", 3, None, b"x", "a\0b", ["x"]])
def test_what_is_no_path_is_refused(value):
    with pytest.raises(SettingsError, match=r"home is .*; it must be a path"):
        checked_path(value, "home")


def test_a_path_has_its_home_folder_filled_in(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    assert checked_path("~/state", "home") == tmp_path / "state"
    assert checked_path(Path("state"), "home") == Path("state")
    with pytest.raises(SettingsError, match="'~nobody-at-all/x', whose ~ nothing is known of"):
        checked_path("~nobody-at-all/x", "home")


@pytest.mark.parametrize(
    "options",
    [
        {"batch_messages": 1.5},
        {"partitions": 2.5},
        {"partitions": True},
        {"input_bytes": 1.5e6},
        {"input_bytes": 1},
        {"checkpoint_seconds": math.nan},
        {"slice_seconds": math.nan},
        {"order_seconds": math.inf},
        {"drain_seconds": 0},
        {"reader_expiry": 0},
        {"reader_expiry": "week"},
        {"on_lag": "drop"},
        {"on_lag": ["wait"]},
        {"sync": "never"},
        {"uplink": "yes"},
        {"uplink": 1},
        {"leaf_of": 3},
    ],
)
def test_an_option_that_can_not_be_is_refused_by_its_name(options):
    ((name, value),) = options.items()
    with pytest.raises(SettingsError) as refused:
        FlowOptions(**options)
    assert str(refused.value).startswith(f"FlowOptions: {name} is {value!r}; it ")


@pytest.mark.parametrize("address", [3, None, "8883", "host:0"])
def test_an_address_that_is_none_is_refused(address):
    with pytest.raises(SettingsError, match="is no address to listen on: it is HOST:PORT"):
        FlowOptions(mqtt=address)
    with pytest.raises(SettingsError, match="HOST:PORT"):
        Address.parse(address)


@pytest.mark.parametrize("keep", [math.nan, math.inf, True, 0.5, "1h", {"seconds": 3}])
def test_how_much_is_kept_has_to_be_a_time_that_ends(keep):
    with pytest.raises(SettingsError, match="eep"):
        checked_keep(keep)


def test_bytes_that_are_kept_are_a_whole_number():
    with pytest.raises(
        SettingsError, match=r"Keep: bytes is 2000000\.0; it must be a whole number of at least 1,048,576"
    ):
        Keep(bytes=2e6)


def test_what_never_ends_may_be_said_where_it_makes_sense():
    assert FlowOptions(reader_expiry=None, uplink=None).reader_expiry is None


def test_a_leaf_and_certificates_of_the_wrong_kind_are_told():
    with pytest.raises(SettingsError, match="3 is no server to be a leaf of"):
        Leaf(3, None)
    for wrong in (None, [], 3, ["certs"]):
        with pytest.raises(SettingsError, match="they are Credentials, for each flow"):
            Leaf("tls://cloud.example:7422", wrong)
    with pytest.raises(SettingsError, match="certs is 3; it must be a path"):
        Credentials.in_folder(3)
