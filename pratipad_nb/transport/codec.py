"""The codec: frames to bytes and back, and payloads of foreign clients.

Owns the encoding (MessagePack, compressed by LZ4 where that pays) and the bounds on data that is decoded. The
fields of a frame are for `frames`.

A frame on the wire is a magic (``PNB``), one byte that names the codec, and the body: a MessagePack map. The
magic can't begin a JSON text, so plain JSON from a foreign client differs in its first byte.
"""

from __future__ import annotations

from typing import Any, TypeVar

import lz4.block
import msgspec

from pratipad_nb.errors import FrameError, PayloadError

__all__ = [
    "MAGIC",
    "MAX_BODY_BYTES",
    "MAX_ORDER_BYTES",
    "decode",
    "decode_plain",
    "encode",
    "encode_payload",
    "encode_plain",
    "order_payload",
    "payload_encoder",
]

#: Most bytes of a frame's decompressed body: a bound on the memory that a hostile frame makes a receiver
#: allocate. The bound is not tight: a body of nothing but empty lists takes 70 times its size as Python
#: objects, so an invited device that turns hostile can cost its edge 1.1 GB for a moment. An honest reading
#: takes about five times its size.
MAX_BODY_BYTES = 16 << 20
#: Most bytes of an order's payload: devices are small, and many orders share a log of a few MiB.
MAX_ORDER_BYTES = 1 << 20
#: The first bytes of every frame.
MAGIC = b"PNB"
_PLAIN = MAGIC + b"\x00"
_LZ4 = MAGIC + b"\x01"
#: Size from which bodies are compressed, in bytes: below it, compressing costs more time than the
#: saved bytes would.
_COMPRESS_FROM = 512

Frame = TypeVar("Frame", bound=msgspec.Struct)

_decoders: dict[type, msgspec.msgpack.Decoder[Any]] = {}


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
    if len(body) < _COMPRESS_FROM:
        return _PLAIN + body
    return _LZ4 + bytes(lz4.block.compress(body, store_size=True))


def encode_payload(payload: Any) -> bytes:
    """Return the MessagePack of one payload, to be set into a frame as `msgspec.Raw`.

    Raises
    ------
    PayloadError
        If `payload` is not JSON-like.
    """
    return _encode(payload)


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
    return data


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
        If `data` is no such frame, or larger than a frame may be.
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
        If `data` is no JSON text, or holds a value that a frame can't: an integer of more than 64 bits, or
        too deep a nesting.
    """
    try:
        payload = msgspec.json.decode(data)
        _encode(payload)
    except (msgspec.MsgspecError, PayloadError, RecursionError, UnicodeDecodeError) as error:
        raise FrameError(f"{bytes(data[:40])!r} is neither a frame nor JSON: {error}") from error
    return payload
