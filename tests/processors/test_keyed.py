"""`Keyed`: the value, and the mistakes that it names."""

from __future__ import annotations

import math
from dataclasses import FrozenInstanceError
from types import MappingProxyType

import pytest

from pratipad_nb import Keyed
from pratipad_nb.errors import ProcessorError


def test_keyed_state_reads_as_the_mapping_that_it_was_given():
    counts = {"room1": 2, 7: 1, None: 0}
    state = Keyed(counts, expire=60)
    assert (dict(state), len(state), state[7], state.mapping is counts, state.expire) == (
        counts,
        3,
        1,
        True,
        60,
    )
    with pytest.raises(FrozenInstanceError):
        state.expire = 1


@pytest.mark.parametrize("wrong", [None, 5, [("room1", 1)], {"room1"}])
def test_what_is_no_mapping_is_refused(wrong):
    with pytest.raises(ProcessorError, match="takes a mapping"):
        Keyed(wrong)


@pytest.mark.parametrize("expire", [0, -1, True, "60", math.nan, math.inf])
def test_what_is_no_number_of_seconds_is_refused(expire):
    with pytest.raises(ProcessorError, match="expire is"):
        Keyed({}, expire=expire)


def test_keys_that_are_to_expire_need_a_mapping_that_they_can_be_deleted_from():
    assert Keyed(MappingProxyType({"room1": 1}))["room1"] == 1
    with pytest.raises(ProcessorError, match="no key can be deleted from a mappingproxy"):
        Keyed(MappingProxyType({"room1": 1}), expire=60)
