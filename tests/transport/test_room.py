"""The memory of messages in flight: bounded in all, and no device takes the others' share."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pratipad_nb.errors import FrameError
from pratipad_nb.transport.codec import decode, encode, most_memory_of
from pratipad_nb.transport.frames import UplinkFrame
from pratipad_nb.transport.room import Place, Room

MOST = 100


def test_a_device_alone_takes_half_and_the_next_finds_as_much():
    room = Room(MOST)
    while room.fits(place := Place("greedy", 10, None)):
        room.take(place)
    assert room.taken == 50
    assert room.fits(Place("honest", 50, None))


def test_what_is_larger_than_all_room_is_in_flight_alone():
    room, large = Room(MOST), Place("a", 1_000, None)
    assert room.fits(large)
    room.take(large)
    assert not room.fits(Place("b", 1, None))
    room.release(large)
    assert room.fits(Place("b", 1, None))


def test_frames_are_looked_into_only_if_room_is_short():
    text = encode(UplinkFrame("house", "room1", 1, 1, [1.0], ["x" * 100_000]))
    room = Room(3 * most_memory_of(text))
    places = [Place.of("room1", text) for _ in range(12)]
    for place in places:
        assert room.fits(place)
        room.take(place)
    assert [place.data is None for place in places] != [True] * 12
    assert room.taken <= 3 * most_memory_of(text)
    assert room.fits(Place("room2", room.taken, None))
    for place in places:
        room.release(place)
    assert room.taken == 0


def test_simple_payloads_tell_their_memory_once_room_is_taken():
    readings = [{"n": number, "celsius": 20.5} for number in range(500)]
    data = encode(UplinkFrame("house", "room1", 1, 1, [1.0] * 500, readings))
    payloads = decode(data, UplinkFrame).payloads
    room = Room(10 * most_memory_of(data))
    places = [Place.of("room1", data) for _ in range(8)]
    for place in places:
        assert room.fits(place)
        room.take(place, payloads)
    assert all(place.data is not None for place in places)  # no frame was looked into
    assert places[0].size == most_memory_of(data) > 3 * places[-1].size
    for place in places:
        room.release(place)
    assert room.taken == 0


def test_a_damaged_frame_has_no_place():
    room = Room(MOST)
    room.take(Place("a", MOST, None))
    with pytest.raises(FrameError):
        room.fits(Place.of("b", b"PNB\x01" + bytes(1_000)))


@settings(deadline=None)
@given(st.lists(st.tuples(st.sampled_from("abcd"), st.integers(1, MOST), st.booleans()), max_size=60))
def test_the_bound_holds_and_every_byte_comes_back(steps):
    room, taken = Room(MOST), []
    for device, size, release in steps:
        place = Place(device, size, None)
        if release and taken:
            room.release(taken.pop(0))
        elif room.fits(place):
            room.take(place)
            taken.append(place)
        assert room.taken == sum(each.size for each in taken) <= MOST
        assert room.fits(Place("newcomer", MOST - room.taken, None))
    for each in taken:
        room.release(each)
    assert room.taken == 0
    assert room.fits(Place("a", MOST, None))
