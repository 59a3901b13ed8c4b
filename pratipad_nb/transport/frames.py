"""Frames: what travels between device, edge and cloud, as bytes.

Owns the layout of every frame, its encoding (MessagePack, compressed by LZ4 where that pays) and the checks on what
comes from outside. Which frame is a repeat of another is for `pratipad_nb.runtime.position`.

A frame on the wire is a magic (``PNB``), one byte that names the codec, and the body: a MessagePack map. The magic
can't begin a JSON text, so plain JSON from a foreign client is told apart by its first byte.

Messages are numbered by their device: *epoch* (when the device began to count, in milliseconds since 1970, so that a
restarted one counts in a later epoch) and *number* (1, 2, 3 … within the epoch). A frame holds consecutive numbers, so
it names the first alone.
"""

from __future__ import annotations

import math
from typing import Any, TypeVar

import lz4.block
import msgspec

from pratipad_nb.errors import FrameError, PayloadError, SettingsError
from pratipad_nb.settings import valid_name

__all__ = [
    "MAX_MESSAGES",
    "MAX_NUMBER",
    "BeatFrame",
    "ControlFrame",
    "CreditFrame",
    "DeadEntry",
    "DeadFrame",
    "DownFrame",
    "FailureNote",
    "HelloFrame",
    "MarkFrame",
    "OrderFrame",
    "OutputFrame",
    "OutputHeader",
    "Position",
    "ReadFrame",
    "Segment",
    "UplinkFrame",
    "decode",
    "decode_plain",
    "decode_uplink",
    "encode",
    "encode_payload",
    "encode_plain",
    "message_id",
]

#: Most messages in a frame. Bounds what one frame can make a receiver build; 4,096 six-field readings are 0.4 MB.
MAX_MESSAGES = 4096
#: Most bytes of a frame's body once decompressed: a bound on what a hostile frame can make a receiver allocate. Not a
#: tight one: a body of nothing but empty lists takes 70 times its size as Python objects, so an invited device that turns
#: hostile can cost its edge 1.1 GB for a moment. An honest reading takes about five times its size.
MAX_BODY_BYTES = 16 << 20
#: Highest number and epoch: counting on from here by a frame's length still fits what MessagePack can carry.
MAX_NUMBER = 1 << 62

_PLAIN = b"PNB\x00"
_LZ4 = b"PNB\x01"
#: Below this, compressing costs more time than the bytes saved do.
_COMPRESS_FROM = 512

#: A device's position: its name, the epoch, and the number of the last message dealt with.
Position = tuple[str, int, int]


class UplinkFrame(msgspec.Struct, gc=False, omit_defaults=True):
    """Device → edge: consecutive messages. `times` are the device's clock, in seconds since 1970.

    A gateway says in `sources` which of the devices behind it each message is from; empty: the gateway itself.
    """

    flow: str
    device: str
    epoch: int
    first: int
    times: list[float]
    payloads: list[Any]
    sources: list[str] | None = None


class Segment(msgspec.Struct, gc=False, omit_defaults=True):
    """Results that stem from one input frame.

    `numbers` are the numbers of the messages they stem from, None where they run on from `first`; `parts` counts
    the results that stem from one message (0, 1, …), None where each made one. `retry` is the sequence of the dead
    letter whose retrying made them, 0 for none; it keeps their ids apart from their siblings'. `sources` are the whole
    names of the devices that they stem from, if `device` is a gateway.
    """

    device: str
    epoch: int
    first: int
    received: float
    times: list[float]
    payloads: list[Any]
    numbers: list[int] | None = None
    parts: list[int] | None = None
    retry: int = 0
    sources: list[str] | None = None


def message_id(device: str, epoch: int, number: int, part: int = 0, retry: int = 0) -> str:
    """Return the id of a message, as `Message.id` describes it."""
    base = f"{device}-{epoch}-{number}"
    if retry:
        base = f"{base}-retry{retry}"
    return f"{base}-{part}" if part else base


class OutputHeader(msgspec.Struct, gc=False):
    """The part of an output frame that a restarting edge reads: who wrote it and which positions it covers."""

    writer: str
    number: int
    covers: list[Position]


class OutputFrame(OutputHeader, gc=False):
    """Edge → cloud: results, and the input positions that they complete."""

    segments: list[Segment]


class MarkFrame(msgspec.Struct, gc=False):
    """A checkpoint: every device's position as the output stood at `sequence`, and processors' kept state. `writer` is
    the run of an edge that wrote it.
    """

    sequence: int
    positions: list[Position]
    states: dict[str, bytes] = {}
    writer: str = ""


class ReadFrame(msgspec.Struct, gc=False):
    """A reader's position: the frame at `sequence` is taken up to, not including, its message `offset`."""

    sequence: int
    offset: int


class FailureNote(msgspec.Struct, gc=False):
    """Which processor failed on a message, and how."""

    processor: str
    error: str
    traceback: str


class DeadEntry(msgspec.Struct, gc=False):
    """A message that a processor failed on, as it came into that processor. `source` is the device behind `device`, by
    its whole name, if that is a gateway.
    """

    device: str
    epoch: int
    number: int
    part: int
    time: float
    received: float
    payload: Any
    failures: list[FailureNote]
    source: str = ""


class DeadFrame(msgspec.Struct, gc=False):
    """Messages that failed at one stage; `step` is the key of the (first) processor that failed."""

    step: str
    time: float
    entries: list[DeadEntry]


class HelloFrame(msgspec.Struct, gc=False):
    """Device → edge: here I am. `sent` messages of this epoch went out so far, `waiting` are held, `answers` says
    that it can make a reading when asked; `ready` is the last order it has run; `error` is what its reading last
    failed with. None of its messages up to number `floor` is to be expected any more: it had to drop some.
    """

    flow: str
    device: str
    epoch: int
    sent: int
    waiting: int = 0
    answers: bool = False
    ready: int = 0
    error: str = ""
    leaving: bool = False
    version: int = 1
    floor: int = 0


class CreditFrame(msgspec.Struct, gc=False):
    """Edge → device: how many messages of `epoch` it may have sent in total; -1: as many as it likes.

    A total and not an increment, so that a lost or repeated frame does no harm. `owner` numbers the edge's run.
    """

    mode: str
    owner: int
    epoch: int
    total: int
    delivery: str = "durable"


class OrderFrame(msgspec.Struct, gc=False):
    """Cloud → edge: a payload for the devices in `to`, None for all that are known.

    `reply` marks what a processor answered: it passes no further processor on its way.
    """

    id: str
    time: float
    payload: Any
    to: list[str] | None = None
    reply: bool = False


class DownFrame(msgspec.Struct, gc=False):
    """Edge → device: an order. `number` counts the orders to this device in `epoch`; a repeat has the same one.

    `to` names the devices behind a gateway that it is for, as the gateway knows them; None: the gateway itself.
    """

    flow: str
    epoch: int
    number: int
    id: str
    time: float
    payload: Any
    to: list[str] | None = None


class ControlFrame(msgspec.Struct, gc=False):
    """Handle → edge: `verb` with its arguments. Answered by a frame of the same kind."""

    verb: str
    arguments: dict[str, Any] = {}


class BeatFrame(msgspec.Struct, gc=False):
    """Edge → the other edges of the flow: who it is, since when (seconds since 1970), and which partitions it runs."""

    edge: str
    since: float
    owned: list[int]
    leaving: bool = False


Frame = TypeVar("Frame", bound=msgspec.Struct)

_decoders: dict[type, msgspec.msgpack.Decoder[Any]] = {}


def _plain_value(value: Any) -> Any:
    """Make JSON-like what nearly is: NumPy scalars and arrays, pydantic models."""
    try:
        for method in ("tolist", "model_dump"):
            convert = getattr(value, method, None)
            if callable(convert):
                return convert()
        shown = f"{value!r:.200}"
    except Exception as error:
        raise PayloadError(
            f"a payload holds a {type(value).__name__} that can't be converted: {error!r}."
        ) from error
    raise PayloadError(
        f"a payload holds {shown} of type {type(value).__name__}; it can hold None, bool, int, float, str, "
        "bytes, list, dict with str keys, date and time, NumPy numbers and arrays. Convert it first."
    )


def _no_extension(code: int, _: memoryview) -> Any:
    raise FrameError(
        f"a frame holds a MessagePack extension of type {code}; none but the timestamp is allowed."
    )


_encoder = msgspec.msgpack.Encoder(enc_hook=_plain_value)


def encode(frame: msgspec.Struct) -> bytes:
    """Return the bytes of `frame`, compressed where that pays.

    Raises
    ------
    PayloadError
        If a payload in it is not JSON-like, or all of it is more than a receiver accepts.
    """
    body = _encode(frame)
    if len(body) > MAX_BODY_BYTES:
        raise PayloadError(f"{len(body)} bytes in one frame; at most {MAX_BODY_BYTES} are allowed.")
    if len(body) < _COMPRESS_FROM:
        return _PLAIN + body
    return _LZ4 + bytes(lz4.block.compress(body, store_size=True))


def encode_payload(payload: Any) -> bytes:
    """Return the MessagePack of one payload, to be set into a frame as `msgspec.Raw`.

    Raises
    ------
    PayloadError
        If it is not JSON-like.
    """
    return _encode(payload)


def _encode(value: Any) -> bytes:
    try:
        return _encoder.encode(value)
    except PayloadError:
        raise
    except (TypeError, OverflowError, ValueError, RecursionError) as error:
        raise PayloadError(f"a payload can't travel: {error}. It can hold any JSON-like value.") from error


def decode(data: bytes, kind: type[Frame]) -> Frame:
    """Return the frame of that `kind` in `data`.

    Raises
    ------
    FrameError
        If `data` is no such frame, or more than a frame may be.
    """
    decoder = _decoders.get(kind)
    if decoder is None:
        decoder = _decoders[kind] = msgspec.msgpack.Decoder(kind, ext_hook=_no_extension)
    try:
        frame: Frame = decoder.decode(_body(data))
    except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError) as error:
        raise FrameError(f"no {kind.__name__}: {error}") from error
    return frame


def _body(data: bytes) -> bytes | memoryview:
    magic = data[:4]
    if magic not in (_PLAIN, _LZ4):
        raise FrameError(f"{len(data)} bytes that begin with {bytes(data[:8])!r} are no frame.")
    size = len(data) - 4 if magic == _PLAIN else int.from_bytes(data[4:8], "little")
    if size > MAX_BODY_BYTES:
        raise FrameError(f"a frame's body has {size} bytes; at most {MAX_BODY_BYTES} are allowed.")
    body = memoryview(data)[4:]
    if magic == _PLAIN:
        return body
    try:
        return bytes(lz4.block.decompress(body))
    except (lz4.block.LZ4BlockError, ValueError) as error:  # ValueError: too short to hold its size
        raise FrameError(f"a frame's compressed body is damaged: {error}") from error


def encode_plain(payload: Any) -> bytes:
    """Return `payload` as the JSON that a foreign device gets; bytes become Base64, times ISO 8601.

    Raises
    ------
    PayloadError
        If it is not JSON-like.
    """
    try:
        return msgspec.json.encode(payload, enc_hook=_plain_value)
    except (TypeError, OverflowError, ValueError, RecursionError) as error:
        raise PayloadError(f"a payload can't be written as JSON: {error}.") from error


def decode_plain(data: bytes) -> Any:
    """Return the payload in the JSON text `data` of a foreign device.

    Raises
    ------
    FrameError
        If it is no JSON text, or holds what a frame can't: an integer of more than 64 bits, or too deep a nesting.
    """
    try:
        payload = msgspec.json.decode(data)
        _encode(payload)
    except (msgspec.MsgspecError, PayloadError, RecursionError, UnicodeDecodeError) as error:
        raise FrameError(f"{bytes(data[:40])!r} is neither a frame nor JSON: {error}") from error
    return payload


def decode_uplink(data: bytes, flow: str, device: str) -> UplinkFrame | None:
    """Return the checked uplink frame in `data`, or None if it is plain JSON or text of a foreign client.

    Parameters
    ----------
    flow, device
        What the subject says, which the server has checked against the sender's certificate.

    Raises
    ------
    FrameError
        If it claims to be a frame of ours and isn't a good one.
    """
    if not data.startswith(b"PNB"):
        return None
    frame = decode(data, UplinkFrame)
    count = len(frame.payloads)
    if not 0 < count <= MAX_MESSAGES or len(frame.times) != count:
        raise FrameError(
            f"a frame has {count} payloads and {len(frame.times)} times; 1 to {MAX_MESSAGES} of both."
        )
    if not (1 <= frame.first <= MAX_NUMBER and 0 <= frame.epoch <= MAX_NUMBER):
        raise FrameError(
            f"a frame starts at number {frame.first} of epoch {frame.epoch}; they count from 1 and 0, "
            f"up to {MAX_NUMBER}."
        )
    if not math.isfinite(sum(frame.times)):
        raise FrameError("a frame has a time that is infinite or no number; times are seconds since 1970.")
    if frame.sources is not None:
        _check_sources(frame.sources, count)
    if (frame.flow, frame.device) != (flow, device):
        raise FrameError(
            f"a frame of {frame.flow!r}/{frame.device!r} came on the subject of {flow!r}/{device!r}."
        )
    return frame


def _check_sources(sources: list[str], count: int) -> None:
    """Raise `FrameError` if the `sources` of a gateway's frame can't be."""
    if len(sources) != count:
        raise FrameError(f"a frame has {count} payloads and {len(sources)} sources.")
    for name in set(sources) - {""}:
        try:
            valid_name(name, "device")
        except SettingsError as error:
            raise FrameError(f"a frame of a gateway has a message of {name!r:.80}: {error}") from error
