"""What is kept of a value, JSON-like or not."""

import math

import pytest

from pratipad_nb.runtime.values.packing import Shown, pack, unpack


@pytest.mark.parametrize("value", [None, 1, 0.5, "text", b"bytes", [1, [2]], {"a": {"b": []}}, math.inf])
def test_a_json_like_value_is_kept_as_it_is(value):
    assert unpack(pack(value)) == value


class Unspeakable:
    def __repr__(self):
        raise RuntimeError("no")


@pytest.mark.parametrize("value", [object(), 1 << 80, {1, "a", object()}, Unspeakable(), [Unspeakable()]])
def test_any_other_value_is_kept_as_its_text(value):
    assert isinstance(pack(value), Shown)


def test_a_value_that_holds_itself_is_kept_as_its_text():
    value = []
    value.append(value)
    assert unpack(pack(value)) == "[[...]]"
