from __future__ import annotations

import random
import struct
import sys
import tracemalloc
from typing import Any

import lz4.block
import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pratipad_nb.errors import FrameError, PayloadError
from pratipad_nb.transport.codec import (
    MAX_DECODED_BYTES,
    MAX_ORDER_BYTES,
    SURE_BODY_BYTES,
    decode,
    decode_plain,
    encode,
    encode_payload,
    memory_of,
    most_memory_of,
    order_payload,
)
from pratipad_nb.transport.decoded_size import MOST_A_BYTE, decoded_size, decoded_size_of_json, size_of_flat
from pratipad_nb.transport.frames import (
    DownFrame,
    HelloFrame,
    Order,
    OrderFrame,
    OutputFrame,
    Segment,
    UplinkFrame,
    decode_uplink,
)

#: Most bytes of one message on the wire: a server takes 8 MiB in all.
MESSAGE = (8 << 20) - (64 << 10)

short = st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats() | st.datetimes()
text = st.text(max_size=300)
values = st.recursive(
    short | text | st.text("ab", max_size=40) | st.binary(max_size=300) | st.sampled_from([[], {}, "", b""]),
    lambda inner: (
        st.lists(inner, max_size=8)
        | st.dictionaries(st.text(max_size=40), inner, max_size=8)
        | st.tuples(inner, st.integers(1, 6)).map(lambda pair: [pair[0]] * pair[1])
        | st.integers(1, 100).map(lambda count: {str(key): -7 for key in range(count)})
    ),
    max_leaves=12,
)


def memory(value: Any, seen: set[int] | None = None) -> int:
    """Return the memory of `value`, each object counted once."""
    seen = set() if seen is None else seen
    if id(value) in seen:
        return 0
    seen.add(id(value))
    parts = [*value.keys(), *value.values()] if isinstance(value, dict) else value
    inner = sum(memory(part, seen) for part in parts) if isinstance(value, (dict, list, tuple)) else 0
    return sys.getsizeof(value) + inner


def uplink(packed: bytes) -> bytes:
    """Return a frame whose one payload is `packed`, made as a hostile device would: unchecked."""
    body = msgspec.msgpack.encode(UplinkFrame("house", "room1", 1, 1, [1.0], [msgspec.Raw(packed)]))
    return b"PNB\x01" + lz4.block.compress(body)


def peak(call: Any) -> int:
    tracemalloc.start()
    try:
        with pytest.raises(FrameError, match="memory"):
            call()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


# The estimate


@settings(deadline=None, max_examples=40)
@given(values)
def test_the_estimate_is_at_least_what_the_objects_take(value):
    body = msgspec.msgpack.encode(value)
    wide = 3 * sum(map(len, _texts(value)))  # characters of four bytes
    taken = memory(msgspec.msgpack.decode(body))
    assert taken <= decoded_size(body, 1 << 40) * 1.4 + wide + 200
    assert taken <= MOST_A_BYTE * len(body) + 200


@settings(deadline=None, max_examples=40)
@given(values)
def test_the_estimate_of_json_is_at_least_what_the_objects_take(value):
    try:
        body = msgspec.json.encode(value)
    except msgspec.MsgspecError:
        return
    assert memory(msgspec.json.decode(body)) <= decoded_size_of_json(body) * 1.4 + 200


def _texts(value: Any) -> list[str]:
    if isinstance(value, str):
        return [value]
    parts = [*value.keys(), *value.values()] if isinstance(value, dict) else value
    return [text for part in parts for text in _texts(part)] if isinstance(value, (dict, list)) else []


#: Values as no encoder of ours writes them: keys that are numbers, lengths wider than need be.
ODD = [
    *(b"\x80", b"\x81\x05\xc0", b"\x81\xa0\x80", b"\x81\x05\x81\xa0\x90", b"\x90", b"\x91\xe0", b"\xe0"),
    *(b"\xcc\x07", b"\xd1\x01\x00", b"\xca\x00\x00\x00\x00", b"\xd6\xff\x00\x00\x00\x01"),
    *(
        b"\xa2ab",
        b"\xd9\x02\xc3\xa9",
        b"\xda\x00\x00",
        b"\xdb\x00\x00\x00\x01a",
        b"\xc4\x01x",
        b"\xc5\x00\x00",
    ),
    *(b"\xde\x00\x01\x05\x90", b"\xdf\x00\x00\x00\x00", b"\xdd\x00\x00\x00\x01\xe0"),
]


@settings(deadline=None)
@given(st.lists(st.sampled_from(ODD), min_size=1, max_size=60))
def test_what_no_encoder_of_ours_writes_is_estimated_as_well(items):
    body = b"\xdc" + struct.pack(">H", len(items)) + b"".join(items)
    value = msgspec.msgpack.decode(body)
    assert memory(value) <= decoded_size(body, 1 << 40) * 1.4 + 200
    assert memory(value) <= MOST_A_BYTE * len(body) + 200


@settings(deadline=None)
@given(st.binary(max_size=400))
def test_any_bytes_are_scanned_to_an_end(body):
    assert decoded_size(body, 1 << 40) >= len(body)


# What passes


@pytest.mark.parametrize(
    "payload",
    [
        random.Random(1).randbytes(MESSAGE),
        "räumlich " * (MESSAGE // 10),
        [0.5] * (MESSAGE // 9),
        [30_000] * 1_000_000,
        [{"temperature": 20.5, "humidity": 44.0, "ok": True} for _ in range(60_000)],
    ],
    ids=["bytes", "text", "numbers", "samples", "rows"],
)  # fmt: skip
def test_a_large_honest_payload_passes(payload):
    packed = msgspec.Raw(encode_payload(payload))
    frame = encode(UplinkFrame("house", "room1", 1, 1, [1.0], [packed]))
    received = decode_uplink(frame, "house", "room1")
    assert received is not None
    assert received.payloads == [payload]
    encode(OutputFrame("w", 1, [], [Segment("room1", 1, 1, 1.0, [1.0], [packed])]))


@settings(deadline=None, max_examples=30)
@given(values, st.integers(1, 4096))
def test_no_frame_of_at_most_the_sure_bytes_is_refused(value, count):
    packed = msgspec.Raw(msgspec.msgpack.encode(value))
    count = min(count, SURE_BODY_BYTES // (len(packed) + 9) - 1)
    if count > 0:
        frame = encode(UplinkFrame("house", "room1", 1, 1, [1.5] * count, [packed] * count))
        assert len(decode(frame, UplinkFrame).payloads) == count
        assert memory_of(frame) <= most_memory_of(frame)


# What doesn't pass


HOSTILE = {
    "lists": b"\xdd" + struct.pack(">I", 2_000_000) + b"\x90" * 2_000_000,
    "maps": b"\xdd" + struct.pack(">I", 1_000_000) + b"\x81\xa0\x80" * 1_000_000,
    "maps in maps": b"\xdd" + struct.pack(">I", 8_000) + (b"\x81\x05" * 300 + b"\xc0") * 8_000,
    "numbers": b"\xdd" + struct.pack(">I", 5_000_000) + b"\xe0" * 5_000_000,
    "short texts": b"\xdd" + struct.pack(">I", 3_000_000) + b"\xa2ab" * 3_000_000,
    "large maps": b"\xdd" + struct.pack(">I", 30_000)
    + (b"\xde\x00\x80" + bytes(b for key in range(128) for b in (key, 0x90))) * 30_000,
}  # fmt: skip


@pytest.mark.parametrize("packed", HOSTILE.values(), ids=HOSTILE)
def test_a_small_frame_of_many_objects_is_refused_before_the_objects_are_made(packed):
    frame = uplink(packed)
    assert len(frame) < len(packed) / 50
    assert peak(lambda: decode_uplink(frame, "house", "room1")) < 4 * len(packed) + (4 << 20)
    with pytest.raises(FrameError, match="memory"):
        memory_of(frame)


def test_times_without_end_are_refused_before_they_are_made():
    whole = msgspec.to_builtins(UplinkFrame("house", "room1", 1, 1, [], []))
    body = msgspec.msgpack.encode({**whole, "times": [1] * 5_000_000})
    frame = b"PNB\x01" + lz4.block.compress(body)
    assert peak(lambda: decode_uplink(frame, "house", "room1")) < 25 << 20


def test_the_json_of_many_empty_lists_is_refused_before_they_are_made():
    text = b"[" + b"[]," * 2_000_000 + b"0]"
    assert peak(lambda: decode_plain(text)) < 1 << 20


def test_a_hello_is_small():
    hello = msgspec.msgpack.encode(HelloFrame("house", "room1", 1, 0, error="x" * 2_000_000))
    with pytest.raises(FrameError, match="1,048,576 bytes of memory"):
        decode(b"PNB\x01" + lz4.block.compress(hello), HelloFrame)


def test_no_sender_sends_what_no_receiver_accepts():
    dense: list[Any] = [[]] * 1_200_000
    with pytest.raises(PayloadError, match=r"receiver's memory.*Send fewer values at a time"):
        encode_payload(dense)
    with pytest.raises(PayloadError, match="receiver's memory"):
        encode(UplinkFrame("house", "room1", 1, 1, [1.0], [dense]))
    assert len(msgspec.msgpack.encode(dense[:300_000])) < MAX_ORDER_BYTES
    with pytest.raises(PayloadError, match="an order of"):
        order_payload(dense[:300_000])


def test_what_may_be_decoded_has_a_memory():
    text = b"[" + b"{}," * 180_000 + b"0]"
    assert len(text) < SURE_BODY_BYTES
    assert len(decode_plain(text)) == 180_001
    frame = uplink(b"\xdd" + struct.pack(">I", 150_000) + b"\x81\xa0\x80" * 150_000)
    assert decode_uplink(frame, "house", "room1") is not None
    for data in (text, frame):
        assert MAX_DECODED_BYTES * 0.7 < memory_of(data) <= most_memory_of(data)


# Nesting


def further_on(data: bytes, kind: type, calls: int = 100) -> Any:
    """Decode a frame as a receiver does that has less of its stack left."""
    return further_on(data, kind, calls - 1) if calls else decode(data, kind)


@pytest.mark.parametrize("head", [b"\x91", b"\x81\xa1a"], ids=["lists", "maps"])
def test_what_is_nested_too_deep_for_receivers_further_on_is_let_in_by_nobody(head):
    refused = 0
    for depth in range(250, 1_000, 10):
        packed = msgspec.Raw(head * depth + b"\xc0")
        try:
            (payload,) = decode(uplink(bytes(packed)), UplinkFrame).payloads
            order = decode(encode(OrderFrame(1.0, [Order("a", packed)])), OrderFrame).orders[0].payload
        except FrameError:
            refused += 1
            continue
        result = OutputFrame("w", 1, [], [Segment("room1", 1, 1, 1.0, [1.0, 1.0], [payload, "honest"])])
        assert further_on(encode(result), OutputFrame).segments[0].payloads[1] == "honest"
        assert further_on(encode(DownFrame("house", 1, 1, "a", 1.0, order)), DownFrame).number == 1
    assert 0 < refused < 70


def test_json_that_is_nested_too_deep_for_receivers_further_on_is_refused():
    refused = 0
    for depth in range(250, 1_000, 10):
        try:
            payload = decode_plain(b"[" * depth + b"]" * depth)
        except FrameError:
            refused += 1
            continue
        result = OutputFrame("w", 1, [], [Segment("room1", 1, 1, 1.0, [1.0, 1.0], [payload, "honest"])])
        assert further_on(encode(result), OutputFrame).segments[0].payloads[1] == "honest"
    assert 0 < refused < 70


# Payloads that were decoded


flat = st.one_of(
    short | text | st.binary(max_size=50),
    st.dictionaries(st.text(max_size=20), short | text, max_size=30),
    st.integers(1, 200).map(lambda count: {str(key): -1e9 for key in range(count)}),
)


@settings(deadline=None, max_examples=60)
@given(st.lists(flat, max_size=30))
def test_the_bound_of_simple_payloads_is_at_least_what_they_take(payloads):
    body = msgspec.msgpack.encode(payloads)
    payloads = msgspec.msgpack.decode(body)
    bound = size_of_flat(payloads, len(body))
    assert bound is None or memory(payloads) <= bound + 200


def test_readings_are_simple_and_their_bound_is_near():
    body = msgspec.msgpack.encode(
        [{"room": "kitchen", "temperature": 20.5 + n, "n": n} for n in range(1_000)]
    )
    payloads = msgspec.msgpack.decode(body)
    bound = size_of_flat(payloads, len(body))
    assert bound is not None
    assert memory(payloads) <= bound < MOST_A_BYTE * len(body) / 3


@pytest.mark.parametrize("payload", [[], [1.5], {"a": []}, {"a": {"b": 1}}], ids=str)
def test_payloads_that_hold_lists_or_maps_are_not_simple(payload):
    payloads = msgspec.msgpack.decode(msgspec.msgpack.encode([1, payload]))
    assert size_of_flat(payloads, 20) is None
