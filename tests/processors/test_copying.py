"""A copy is equal and shares nothing that can be changed."""

from __future__ import annotations

import copy
import threading
from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pratipad_nb.errors import ProcessorError
from pratipad_nb.processors import copy_payload

JSON_LIKE = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text() | st.binary(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner) | st.tuples(inner, inner),
    max_leaves=20,
)


def mutables(value):
    if isinstance(value, dict):
        yield id(value)
        for member in value.values():
            yield from mutables(member)
    elif isinstance(value, (list, tuple)):
        if isinstance(value, list):
            yield id(value)
        for member in value:
            yield from mutables(member)


@given(JSON_LIKE)
def test_a_copy_is_equal_and_shares_nothing_mutable(payload):
    copied = copy_payload(payload)
    assert copied == payload
    assert type(copied) is type(payload)
    assert not set(mutables(copied)) & set(mutables(payload))


def test_other_objects_are_copied_deeply():
    @dataclass
    class Box:
        items: list

    box = Box([1])
    copied = copy_payload({"box": box})["box"]
    copied.items.append(2)
    assert box == Box([1])
    assert copy_payload(copy.copy) is copy.copy


def test_what_can_not_be_copied_is_named_with_what_to_do():
    with pytest.raises(ProcessorError, match=r"holds a lock that can't be copied \(TypeError: .*JSON-like"):
        copy_payload({"lock": [threading.Lock()]})
