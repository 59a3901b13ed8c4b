from __future__ import annotations

import math
import subprocess
import sys
from datetime import UTC, datetime, tzinfo

import lz4.block
import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pratipad_nb.errors import FrameError, PayloadError
from pratipad_nb.transport import frames
from pratipad_nb.transport.codec import (
    MAX_BODY_BYTES,
    decode,
    decode_plain,
    encode,
    encode_payload,
    encode_plain,
)
from pratipad_nb.transport.frames import (
    MAX_MESSAGES,
    MAX_NUMBER,
    DownFrame,
    HelloFrame,
    MarkFrame,
    OutputFrame,
    OutputHeader,
    Segment,
    UplinkFrame,
    decode_hello,
    decode_uplink,
    message_id,
    new_epoch,
)

KINDS = [
    kind
    for kind in (getattr(frames, name) for name in frames.__all__)
    if isinstance(kind, type) and issubclass(kind, msgspec.Struct)
]

scalars = (
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats(allow_nan=False)
    | st.text(st.characters(exclude_categories=["Cs"]))
    | st.binary()
)
payloads = st.recursive(
    scalars,
    lambda inner: st.lists(inner) | st.dictionaries(st.text(st.characters(exclude_categories=["Cs"])), inner),
    max_leaves=30,
)


def uplink(**changed: object) -> UplinkFrame:
    frame = UplinkFrame("house", "room1", epoch=7, first=1, times=[1.0], payloads=[{"t": 20.5}])
    for name, value in changed.items():
        setattr(frame, name, value)
    return frame


def of_length(count: int) -> UplinkFrame:
    return uplink(times=[1.0] * count, payloads=[{"t": n} for n in range(count)])


def with_payload(packed: bytes) -> bytes:
    """Return a frame whose one payload is `packed`, which `encode` might not make."""
    return encode(uplink(payloads=[msgspec.Raw(packed)]))


def received(data: bytes) -> UplinkFrame | None:
    return decode_uplink(data, "house", "room1")


# What is sent arrives


@given(st.lists(payloads, min_size=1, max_size=20))
def test_any_json_like_payload_survives_the_journey(values):
    frame = uplink(times=[float(n) for n in range(len(values))], payloads=values)
    arrived = received(encode(frame))
    assert arrived == frame
    # 1, 1.0 and True are equal, and not the same.
    assert repr(arrived.payloads) == repr(values)


@given(payloads)
def test_a_payload_encoded_beforehand_arrives_as_if_it_had_not_been(value):
    raw = msgspec.Raw(encode_payload(value))
    assert received(encode(uplink(payloads=[raw]))).payloads == [value]


def test_a_time_of_day_arrives_as_one():
    when = datetime(2026, 2, 3, 4, 5, 6, 789, tzinfo=UTC)
    assert received(encode(uplink(payloads=[when]))).payloads == [when]


def test_not_a_number_survives_in_a_payload():
    (value,) = received(encode(uplink(payloads=[math.nan]))).payloads
    assert math.isnan(value)


def test_numpy_numbers_and_arrays_arrive_as_numbers_and_lists():
    numpy = pytest.importorskip("numpy")
    payload = {"one": numpy.float64(1.5), "many": numpy.arange(3), "flag": numpy.bool_(True)}
    assert received(encode(uplink(payloads=[payload]))).payloads == [
        {"one": 1.5, "many": [0, 1, 2], "flag": True}
    ]


@pytest.mark.parametrize("count", [1, 2, 50, MAX_MESSAGES])
def test_frames_of_any_length_arrive_whole(count):
    assert received(encode(of_length(count))) == of_length(count)


def test_long_frames_are_compressed_and_short_ones_are_not():
    short, long = encode(of_length(1)), encode(of_length(500))
    assert short.startswith(b"PNB\x00")
    assert long.startswith(b"PNB\x01")
    assert len(long) < len(msgspec.msgpack.encode(of_length(500))) / 2


def test_an_output_frame_is_read_whole_or_by_its_header():
    segment = Segment("room1", 7, 1, 2.0, [1.0, 1.0], ["a", "b"], numbers=[1, 1], parts=[0, 1])
    frame = OutputFrame("edge-1", 4, [("room1", 7, 1)], [segment])
    assert decode(encode(frame), OutputFrame) == frame
    header = decode(encode(frame), OutputHeader)
    assert (header.writer, header.number, header.covers) == ("edge-1", 4, [("room1", 7, 1)])


def test_a_message_id_is_stable_and_tells_parts_and_retries_apart():
    ids = [
        message_id("room1", 7, 3),
        message_id("room1", 7, 3, 1),
        message_id("room1", 7, 3, 0, 9),
        message_id("room1", 7, 3, 1, 9),
    ]
    assert ids == ["room1-7-3", "room1-7-3-1", "room1-7-3-retry9", "room1-7-3-retry9-1"]


# What can't be sent is named


class Unprintable:
    def __repr__(self):
        raise RuntimeError("no")


class Unconvertible:
    def tolist(self):
        raise KeyError("column")


CYCLE: list = []
CYCLE.append(CYCLE)


class Nowhere(tzinfo):
    def utcoffset(self, when):
        raise LookupError("no such zone")


@pytest.mark.parametrize(
    "value",
    [
        object(),
        1j,
        len,
        Unprintable(),
        Unconvertible(),
        2**64,
        -(2**63) - 1,
        "\ud800",
        CYCLE,
        datetime(2026, 1, 1, tzinfo=Nowhere()),
    ],
    ids=lambda value: type(value).__name__,
)
def test_a_payload_that_is_not_json_like_is_refused(value):
    with pytest.raises(PayloadError):
        encode(uplink(payloads=[{"deep": [value]}]))
    with pytest.raises(PayloadError):
        encode_payload(value)


def test_the_refusal_names_value_type_and_what_is_allowed():
    with pytest.raises(PayloadError, match=r"holds 1j of type complex; it can hold None, bool"):
        encode(uplink(payloads=[1j]))


def test_more_than_a_receiver_accepts_is_not_sent():
    with pytest.raises(PayloadError, match=str(MAX_BODY_BYTES)):
        encode(uplink(payloads=[bytes(MAX_BODY_BYTES)]))


# Whatever comes from outside gives a frame or a FrameError


@given(
    kind=st.sampled_from(KINDS),
    data=st.binary(max_size=200),
    magic=st.sampled_from([b"", b"PNB", b"PNB\x00", b"PNB\x01", b"PNB\x02"]),
)
def test_any_bytes_give_a_frame_or_a_frame_error(kind, data, magic):
    decoded_or_refused(magic + data, kind)


@given(kind=st.sampled_from(KINDS), value=payloads, compressed=st.booleans())
def test_any_messagepack_gives_a_frame_or_a_frame_error(kind, value, compressed):
    body = msgspec.msgpack.encode(value)
    data = b"PNB\x01" + lz4.block.compress(body) if compressed else b"PNB\x00" + body
    decoded_or_refused(data, kind)


def decoded_or_refused(data: bytes, kind: type) -> None:
    try:
        frame = decode(data, kind)
    except FrameError:
        pass
    else:
        assert isinstance(frame, kind)
    try:
        uplinked = received(data)
    except FrameError:
        pass
    else:
        assert (uplinked is None) == (not data.startswith(b"PNB"))


@given(count=st.sampled_from([1, 100]), data=st.data())
def test_a_truncated_frame_is_refused(count, data):
    whole = encode(of_length(count))
    cut = data.draw(st.integers(3, len(whole) - 1))
    with pytest.raises(FrameError):
        received(whole[:cut])


@given(count=st.sampled_from([1, 100]), data=st.data())
def test_a_frame_with_a_flipped_bit_is_refused_or_obeys_the_rules(count, data):
    whole = bytearray(encode(of_length(count)))
    at = data.draw(st.integers(0, 8 * len(whole) - 1))
    whole[at // 8] ^= 1 << at % 8
    try:
        frame = received(bytes(whole))
    except FrameError:
        return
    if frame is not None:
        assert (frame.flow, frame.device) == ("house", "room1")
        assert 1 <= frame.first <= MAX_NUMBER
        assert 0 < len(frame.payloads) == len(frame.times) <= MAX_MESSAGES


@given(st.binary(min_size=1, max_size=50))
def test_a_frame_with_something_behind_it_is_refused(more):
    with pytest.raises(FrameError):
        received(encode(of_length(1)) + more)


@given(payloads)
def test_plain_json_is_left_to_the_caller(value):
    try:
        text = msgspec.json.encode(value)
    except msgspec.MsgspecError:
        return
    assert received(text) is None


@pytest.mark.parametrize("claimed", [MAX_BODY_BYTES + 1, 2**31 - 1, 2**32 - 1])
def test_a_frame_that_claims_to_decompress_to_too_much_is_refused(claimed):
    with pytest.raises(FrameError, match=f"{claimed} bytes; at most {MAX_BODY_BYTES}"):
        received(b"PNB\x01" + claimed.to_bytes(4, "little") + b"\x00" * 100)


def test_a_bomb_that_is_what_it_claims_to_be_is_refused_before_it_is_decompressed():
    bomb = lz4.block.compress(bytes(MAX_BODY_BYTES + 1))
    assert len(bomb) < MAX_BODY_BYTES / 200
    with pytest.raises(FrameError, match="at most"):
        received(b"PNB\x01" + bomb)


@pytest.mark.parametrize("claimed", [0, 100, 10_000])
def test_a_frame_that_lies_about_its_size_is_refused(claimed):
    body = lz4.block.compress(msgspec.msgpack.encode(of_length(100)), store_size=False)
    with pytest.raises(FrameError):
        received(b"PNB\x01" + claimed.to_bytes(4, "little") + body)


def test_an_uncompressed_body_has_the_same_bound():
    with pytest.raises(FrameError, match="at most"):
        received(b"PNB\x00" + bytes(MAX_BODY_BYTES + 1))


@pytest.mark.parametrize(
    "packed",
    [
        b"\xd4\x05\x01",  # an extension of another's
        b"\x81\x80\x01",  # a map as a key
        b"\xa1\xff",  # no UTF-8
        b"\xc1",  # never used
        b"\xdd\xff\xff\xff\xff",  # an array of 4 billion, of which none is there
        b"\xd7\xff" + b"\xff" * 8,  # a time that is none
        b"\x91" * 100_000 + b"\x01",  # nested too deep
    ],
)
def test_hostile_messagepack_is_refused(packed):
    with pytest.raises(FrameError):
        received(with_payload(packed))


@pytest.mark.parametrize(
    "changed",
    [
        {"payloads": [], "times": []},
        {"times": [1.0, 2.0]},
        {"times": [1.0] * (MAX_MESSAGES + 1), "payloads": [None] * (MAX_MESSAGES + 1)},
        {"times": [math.nan]},
        {"times": [math.inf]},
        {"times": [1e300]},
        {"times": [-1e300]},
        {"first": 0},
        {"first": -1},
        {"first": MAX_NUMBER + 1},
        {"epoch": -1},
        {"epoch": MAX_NUMBER + 1},
        {"flow": "garden"},
        {"device": "room2"},
        {"payloads": None},
        {"first": "1"},
    ],
)
def test_an_uplink_frame_that_breaks_a_rule_is_refused(changed):
    with pytest.raises(FrameError):
        received(encode(uplink(**changed)))


@pytest.mark.parametrize(
    "changed",
    [
        *(
            {name: number}
            for name in ("epoch", "sent", "waiting", "ready", "floor", "owner", "former", "former_sent")
            for number in (-1, MAX_NUMBER + 1, 2**64 - 1)
        ),
        {"sent": MAX_NUMBER, "waiting": 1},
        {"numbering": 2**63},
        {"ready_at": math.nan},
        {"ready_at": math.inf},
        {"ready_at": -1.0},
        {"flow": "garden"},
        {"device": "room2"},
        {"waiting": "1"},
    ],
    ids=str,
)
def test_a_hello_that_breaks_a_rule_is_refused(changed):
    fields = {"flow": "house", "device": "room1", "epoch": 7, "sent": 0} | changed
    with pytest.raises(FrameError) as raised:
        decode_hello(encode(HelloFrame(**fields)), "house", "room1")
    assert len(str(raised.value)) < 500


def test_a_hello_at_all_bounds_is_one_and_its_error_is_cut_off():
    numbers = dict.fromkeys(("epoch", "sent", "ready", "floor", "owner", "former", "former_sent"), MAX_NUMBER)
    hello = HelloFrame("house", "room1", error="x" * 100_000, **numbers)
    received = decode_hello(encode(hello), "house", "room1")
    assert (received.sent, received.former_sent, received.error) == (MAX_NUMBER, MAX_NUMBER, "x" * 1000)


def test_the_word_of_a_frame_of_another_device_is_short_whatever_the_name():
    with pytest.raises(FrameError) as raised:
        received(encode(uplink(device="room2" * 100_000)))
    assert len(str(raised.value)) < 500


def test_a_frame_of_another_device_is_named_with_the_subject_it_came_on():
    with pytest.raises(FrameError, match="'house'/'room2' came on the subject of 'house'/'room1'"):
        received(encode(uplink(device="room2")))


@pytest.mark.parametrize("kind", KINDS)
def test_a_frame_of_one_kind_is_no_frame_of_another(kind):
    other = MarkFrame(1, []) if kind is not MarkFrame else DownFrame("house", 1, 1, "a", 1.0, None)
    with pytest.raises(FrameError, match=kind.__name__):
        decode(encode(other), kind)


# -- plain JSON of foreign devices ---------------------------------------------------------------------------

json_like = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.text()
    | st.floats(allow_nan=False, allow_infinity=False),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)  # fmt: skip


@given(json_like)
def test_what_a_foreign_device_is_sent_is_what_it_could_have_sent(value):
    assert decode_plain(encode_plain(value)) == value


@given(st.binary())
def test_any_bytes_of_a_foreign_device_are_a_payload_that_can_travel_or_a_frame_error(data):
    try:
        payload = decode_plain(data)
    except FrameError:
        return
    encode_payload(payload)


def test_an_order_that_is_no_json_is_refused():
    with pytest.raises(PayloadError, match="can't be written as JSON"):
        encode_plain({(1, 2): 3})


def test_an_epoch_is_no_other_starts_whatever_the_clock_says(monkeypatch):
    monkeypatch.setattr("time.time", lambda: 0.0)
    monkeypatch.setattr("time.time_ns", lambda: 0)
    epochs = [new_epoch() for _ in range(10_000)]
    assert len(set(epochs)) == 10_000
    assert all(0 < epoch == int(float(epoch)) <= MAX_NUMBER for epoch in epochs)


def test_an_epoch_is_no_other_starts_of_a_forked_process():
    forking = """
import os
from pratipad_nb.transport.frames import new_epoch
new_epoch()
child = os.fork()
os.write(1, b"%d\\n" % new_epoch())
if child:
    os.waitpid(child, 0)
"""
    run = subprocess.run(
        [sys.executable, "-c", forking], capture_output=True, text=True, check=True, timeout=30
    )
    assert len(set(run.stdout.split())) == 2
