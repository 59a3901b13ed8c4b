"""The codec: frames to bytes and back, and payloads of foreign clients.

Owns the encoding (MessagePack, compressed by LZ4 where that pays) and the bounds on data that is decoded:
what a receiver refuses, no sender sends. The fields of a frame are for `frames`, how much memory a body takes
is for `decoded_size`.

A frame on the wire is a magic (``PNB``), one byte that names the codec, and the body: a MessagePack map. The
magic can't begin a JSON text, so plain JSON from a foreign client differs in its first byte.
"""

from __future__ import annotations

from typing import Any, TypeVar, cast

import lz4.block
import msgspec

from pratipad_nb.errors import FrameError, PayloadError
from pratipad_nb.transport.decoded_size import MOST_A_BYTE, decoded_size, decoded_size_of_json

__all__ = [
    "MAGIC",
    "MAX_BODY_BYTES",
    "MAX_DECODED_BYTES",
    "MAX_ORDER_BYTES",
    "MAX_ORDER_DECODED_BYTES",
    "MAX_PAYLOAD_DECODED_BYTES",
    "SURE_BODY_BYTES",
    "check_payload",
    "decode",
    "decode_plain",
    "encode",
    "encode_payload",
    "encode_plain",
    "memory_of",
    "most_memory_of",
    "order_payload",
    "payload_encoder",
]

#: Most bytes of a frame's decompressed body.
MAX_BODY_BYTES = 16 << 20
#: Most memory that the objects of a frame take, as `decoded_size` tells: a million numbers, or 260,000 maps.
#: A frame that takes more is refused before any object is made. A kind of frame that needs less has a
#: `MOST_DECODED`.
MAX_DECODED_BYTES = 64 << 20
#: Most memory that the objects of a payload take: a frame has other fields besides.
MAX_PAYLOAD_DECODED_BYTES = MAX_DECODED_BYTES - (1 << 20)
#: A body of at most so many bytes is never refused for the memory that it takes, whatever is in it.
SURE_BODY_BYTES = MAX_DECODED_BYTES // MOST_A_BYTE
#: Most bytes of an order's payload: devices are small, and many orders share a log of a few MiB.
MAX_ORDER_BYTES = 1 << 20
#: Most memory that the objects of an order's payload take.
MAX_ORDER_DECODED_BYTES = 16 << 20
#: Python's stack bounds the levels of nesting. So many levels must be left where a payload comes in, for
#: receivers further on have less of their stacks, and lose all messages of a frame that they can't decode.
_SPARE_LEVELS = 200
#: A body of at most so many bytes has no more levels, and always leaves enough.
_SHALLOW_BYTES = 256
#: The first bytes of every frame.
MAGIC = b"PNB"
_PLAIN = MAGIC + b"\x00"
#: The head of an array of one.
_ARRAY = b"\x91"
_LZ4 = MAGIC + b"\x01"
#: Size from which bodies are compressed, in bytes: below it, compressing costs more time than the
#: saved bytes would.
_COMPRESS_FROM = 512

Frame = TypeVar("Frame", bound=msgspec.Struct)

_decoders: dict[tuple[type, int], msgspec.msgpack.Decoder[Any]] = {}


def _plain_value(value: Any) -> Any:
    """Return `value`, a NumPy scalar or array or a pydantic model, as a JSON-like value.

    Raises
    ------
    PayloadError
        If `value` is of another type, or its own conversion fails.
    """
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


_payload_decoder = msgspec.msgpack.Decoder(ext_hook=_no_extension)
#: Encodes payloads; for a caller in a hot loop, which does without the words of `PayloadError`.
payload_encoder = msgspec.msgpack.Encoder(enc_hook=_plain_value)


def encode(frame: msgspec.Struct) -> bytes:
    """Return the bytes of `frame`, compressed where that pays.

    Raises
    ------
    PayloadError
        If a payload in `frame` is not JSON-like, or `frame` is larger than a receiver accepts.
    """
    body = _encode(frame)
    if len(body) > MAX_BODY_BYTES:
        raise PayloadError(f"{len(body)} bytes in one frame; at most {MAX_BODY_BYTES} are allowed.")
    _refuse_to_send(body, _most_decoded(type(frame)), "a frame")
    if len(body) < _COMPRESS_FROM:
        return _PLAIN + body
    return _LZ4 + bytes(lz4.block.compress(body, store_size=True))


def encode_payload(payload: Any) -> bytes:
    """Return the MessagePack of one payload, to be set into a frame as `msgspec.Raw`.

    Raises
    ------
    PayloadError
        If `payload` is not JSON-like, or its objects take more than `MAX_PAYLOAD_DECODED_BYTES`.
    """
    data = _encode(payload)
    _refuse_to_send(data, MAX_PAYLOAD_DECODED_BYTES, "a payload")
    return data


def order_payload(payload: Any) -> bytes:
    """Return the MessagePack of the payload of an order or a reply.

    Raises
    ------
    PayloadError
        If `payload` is not JSON-like, or larger than `MAX_ORDER_BYTES`.
    """
    data = _encode(payload)
    if len(data) > MAX_ORDER_BYTES:
        raise PayloadError(
            f"an order of {len(data):,} bytes; at most {MAX_ORDER_BYTES:,} are allowed. Send a reference to "
            "the data."
        )
    _refuse_to_send(data, MAX_ORDER_DECODED_BYTES, "an order")
    return data


def _exceeds(body: bytes | memoryview, most: int) -> bool:
    """Return whether the objects in `body` take more memory than `most`; no small body is looked into."""
    return len(body) * MOST_A_BYTE > most and decoded_size(body, most) > most


def _refuse_to_send(body: bytes, most: int, what: str) -> None:
    """Raise `PayloadError` if the objects in `body` take more memory than `most`."""
    if _exceeds(body, most):
        raise PayloadError(
            f"{what} of {len(body):,} bytes takes more than {most:,} bytes of its receiver's memory, as "
            "objects; no receiver accepts that. Send fewer values at a time, or an array as bytes "
            "(`array.tobytes()`)."
        )


def _most_decoded(kind: type) -> int:
    return getattr(kind, "MOST_DECODED", MAX_DECODED_BYTES)


def _encode(value: Any) -> bytes:
    try:
        return payload_encoder.encode(value)
    except PayloadError:
        raise
    except Exception as error:  # of any kind, for a value may run a user's code, as a time zone does
        raise PayloadError(f"a payload can't travel: {error}. It can hold any JSON-like value.") from error


def decode(data: bytes, kind: type[Frame]) -> Frame:
    """Return the frame of that `kind` in `data`.

    Raises
    ------
    FrameError
        If `data` is no such frame, or larger than a frame may be, on the wire or in memory.
    """
    body, most = _body(data), _most_decoded(kind)
    if _exceeds(body, most):
        raise _too_much(f"a frame's body has {len(body):,} bytes", most)
    spare = _SPARE_LEVELS if len(body) > _SHALLOW_BYTES and getattr(kind, "COMES_IN", False) else 0
    try:
        frame = _decoder(kind, spare).decode(_ARRAY * spare + body if spare else body)
        for _ in range(spare):
            (frame,) = frame
    except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError) as error:
        raise FrameError(f"no {kind.__name__}: {error}") from error
    return cast("Frame", frame)


def _decoder(kind: type, spare: int) -> msgspec.msgpack.Decoder[Any]:
    """Return the decoder of frames of that `kind`, each in `spare` arrays."""
    decoder = _decoders.get((kind, spare))
    if decoder is None:
        whole: Any = kind
        for _ in range(spare):
            whole = list[whole]
        decoder = _decoders[kind, spare] = msgspec.msgpack.Decoder(whole, ext_hook=_no_extension)
    return decoder


def check_payload(data: bytes) -> None:
    """Check that `data` is the MessagePack of one payload that a receiver decodes.

    Raises
    ------
    FrameError
        If it isn't: in a frame, it would make the whole frame unreadable.
    """
    try:
        _payload_decoder.decode(data)
    except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError) as error:
        raise FrameError(f"no payload: {error}") from error


def _too_much(what: str, most: int) -> FrameError:
    return FrameError(f"{what}, and would take more than the {most:,} bytes of memory that are allowed.")


def most_memory_of(data: bytes) -> int:
    """Return the most memory that `data`, a frame or JSON of a device, takes once decoded; by its length."""
    size = int.from_bytes(data[4:8], "little") if data[:4] == _LZ4 else len(data)
    return len(data) + min(MOST_A_BYTE * size, MAX_DECODED_BYTES)


def memory_of(data: bytes) -> int:
    """Return about how much memory `data`, a frame or JSON of a device, takes once decoded; by a scan.

    Raises
    ------
    FrameError
        If `data` is damaged, or takes more memory than `MAX_DECODED_BYTES`.
    """
    if data.startswith(MAGIC):
        body = _body(data)
        size, decoded = len(body), decoded_size(body, MAX_DECODED_BYTES)
    else:
        size, decoded = len(data), decoded_size_of_json(data)
    if size > SURE_BODY_BYTES and decoded > MAX_DECODED_BYTES:
        raise _too_much(f"a body of {size:,} bytes holds many objects", MAX_DECODED_BYTES)
    return min(len(data) + decoded, most_memory_of(data))


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
        If `payload` is not JSON-like.
    """
    try:
        return msgspec.json.encode(payload, enc_hook=_plain_value)
    except Exception as error:  # of any kind, as in `_encode`
        raise PayloadError(f"a payload can't be written as JSON: {error}.") from error


def decode_plain(data: bytes) -> Any:
    """Return the payload in the JSON text `data` of a foreign device.

    Raises
    ------
    FrameError
        If `data` is no JSON text, or takes more memory than `MAX_DECODED_BYTES`, or holds a value that a
        frame can't: an integer of more than 64 bits, or too deep a nesting.
    """
    if len(data) * MOST_A_BYTE > MAX_DECODED_BYTES < decoded_size_of_json(data):
        raise _too_much(f"{bytes(data[:40])!r} begins {len(data):,} bytes of text", MAX_DECODED_BYTES)
    try:
        payload = msgspec.json.decode(data)
        if len(data) > _SHALLOW_BYTES:
            msgspec.json.decode(b"[" * _SPARE_LEVELS + data + b"]" * _SPARE_LEVELS)
        _encode(payload)
    except (msgspec.MsgspecError, PayloadError, RecursionError, UnicodeDecodeError) as error:
        raise FrameError(f"{bytes(data[:40])!r} is neither a frame nor JSON: {error}") from error
    return payload
