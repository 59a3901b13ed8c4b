"""States: what may be kept, which keys expire, and which instance gets which key."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.msgpack import encode

from pratipad_nb import Keyed
from pratipad_nb.errors import ProcessorError
from pratipad_nb.runtime.stages.shards import instance_of
from pratipad_nb.runtime.stages.states import (
    STATE_BYTES,
    NotKept,
    State,
    Undividable,
    divided,
    stored_states,
    taking,
)

KEYS = st.one_of(st.text(max_size=8), st.integers(-(2**63), 2**64 - 1), st.none())


def taken(result, before=None, seconds=0.0, by="device"):
    return taking(lambda: result, by, before, seconds)()


def test_keys_and_values_come_back_as_they_were():
    mapping = {"room1": {"n": [1, 2.5]}, 7: "seven", None: None, "7": b"text"}
    assert taken(Keyed(mapping)).value == mapping


@pytest.mark.parametrize("key", [1.5, True, (1, 2), b"room1", frozenset()])
def test_a_key_that_would_not_come_back_as_it_was_is_named(key):
    with pytest.raises(NotKept, match=r"Keyed has the key .* of type .*str\(key\)"):
        taken(Keyed({"room1": 1, key: 2}))


async def test_what_snapshot_returns_is_encoded_at_once_also_by_a_coroutine():
    counts = {"room1": 1}

    async def snapshot():
        return Keyed(counts)

    state = taken(Keyed(counts))
    later = await taking(snapshot, "device", None, 0.0)()
    counts["room1"] = 2
    assert state.value == later.value == {"room1": 1}


def test_a_key_expires_once_its_state_has_not_changed_for_so_long():
    counts = {"still": 1, "moves": 1}
    state = taken(Keyed(counts, expire=10))
    state = taken(Keyed(counts, expire=10), state, 6.0)
    counts["moves"] = 2
    state = taken(Keyed(counts, expire=10), state, 5.0)
    assert (counts, state.value) == ({"moves": 2}, {"moves": 2})
    state = taken(Keyed(counts, expire=10), state, 9.0)
    counts["still"] = 1  # a key that comes back begins anew
    state = taken(Keyed(counts, expire=10), state, 1.0)
    assert (counts, state.value) == ({"still": 1}, {"still": 1})


def test_a_key_goes_on_ageing_where_its_state_has_moved_to():
    state = taken(Keyed({"a": 1, "b": 1}, expire=10))
    state = taken(Keyed({"a": 1, "b": 1}, expire=10), state, 6.0)
    for part in divided([state], "device", 5):
        mine = part.value
        taken(Keyed(mine, expire=10), part, 5.0)
        assert mine == {}


def test_keys_that_did_not_expire_before_begin_to_age_with_expire():
    before = taken(Keyed({"a": 1}))
    counts = {"a": 1}
    assert taken(Keyed(counts, expire=10), before, 9.0).value == {"a": 1}


@given(mapping=st.dictionaries(KEYS, st.integers(0, 9)), counts=st.lists(st.integers(1, 9), max_size=8))
def test_after_any_changes_every_key_is_with_the_one_instance_that_sees_it(mapping, counts):
    states = [taken(Keyed(mapping), by="room")]
    for instances in counts:
        states = divided(states, "room", instances)
    parts = [state.value for state in states]
    assert sum(len(part) for part in parts) == len(mapping)
    for number, part in enumerate(parts):
        for key, value in part.items():
            assert mapping[key] == value
            assert instance_of(key, "room", len(parts)) == number


def test_devices_behind_a_gateway_are_with_their_gateway():
    mapping = {f"roof.d{n}": n for n in range(50)}
    states = divided([taken(Keyed(mapping))], "device", 7)
    assert [state.value for state in states if state.value] == [mapping]
    assert states[instance_of("roof", "device", 7)].value == mapping


def test_instances_without_a_state_are_no_hindrance():
    assert divided([None, None], "device", 3) == [None, None, None]
    one = taken(Keyed({"a": 1}))
    (whole,) = divided([None, one, None], "device", 1)
    assert whole.value == {"a": 1}


def test_a_key_that_is_no_value_of_partition_by_is_named():
    states = [taken(Keyed({"total": 1})), taken(Keyed({"total": 2}))]
    with pytest.raises(Undividable, match="'total' is in the state of an instance that doesn't see"):
        divided(states, "device", 3)
    with pytest.raises(Undividable, match="several instances have a state of the key 'total'"):
        divided(states, "device", 1)


def test_keys_of_another_partition_by_are_not_divided():
    states = divided([taken(Keyed({"a": 1, "b": 1}), by="room")], "room", 2)
    with pytest.raises(Undividable, match="keys are of partition_by = 'room'"):
        divided(states, "device", 3)
    # A single instance has all keys, whatever its `partition_by` was.
    assert divided([taken(Keyed({"a": 1}), by="room")], "device", 3)[instance_of("a", "device", 3)].value


def test_a_part_that_would_be_too_large_to_be_stored_is_refused():
    big = "x" * (STATE_BYTES * 2 // 3)
    key = next(f"d{n}" for n in range(99) if instance_of(f"d{n}", "device", 2) == 1)
    other = next(f"d{n}" for n in range(99) if instance_of(f"d{n}", "device", 2) == 0)
    states = [taken(Keyed({other: big})), taken(Keyed({key: big}))]
    with pytest.raises(Undividable, match=r"would have 1,398,\d+ bytes, and at most 1,048,576"):
        divided(states, "device", 1)


def test_stored_states_are_found_by_processor_and_number():
    states = {
        "P/0/2": State(b"\x01", "device").packed(),
        "Other/0/1": State(b"\x02").packed(),
        "P/1/2": State(b"\x03", "device").packed(),
    }
    assert [state.value for state in stored_states(states, "P")] == [1, 3]
    assert stored_states(states, "Q") == []
    assert stored_states({"P/1/3": State(b"\x03").packed()}, "P")[::2] == [None, None]


def test_states_of_version_0_1_are_read():
    assert stored_states({"P/0": encode([1]), "P/1": encode([2])}, "P") == [
        State(encode([1])),
        State(encode([2])),
    ]


def test_a_stored_state_that_is_no_state_is_named():
    with pytest.raises(ProcessorError, match="P: its stored state can't be read"):
        stored_states({"P/0/1": b"\xc1"}, "P")
