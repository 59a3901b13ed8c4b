"""The tape: inputs of a flow, kept as they came in, to be replayed or compared.

Owns recording within bounds, the tape as a value, and the tape's file. Replaying is for
`pratipad_nb.runtime.edge.replaying`, comparing for `shadow`.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, overload

import lz4.frame
import msgspec

from pratipad_nb.errors import FrameError, SettingsError
from pratipad_nb.files import write_whole
from pratipad_nb.runtime.edge.replaying import Entry
from pratipad_nb.runtime.values.packing import Shown, pack
from pratipad_nb.settings import checked_path, valid_address
from pratipad_nb.tables import html_table, shown, text_table

__all__ = ["MAX_BYTES", "Recorder", "Tape", "TapeEntry", "checked_tape"]

#: Default bound of a tape, in bytes of payloads: half a million sensor readings.
MAX_BYTES = 64 << 20
#: Most bytes of a file once decompressed: sixteen full tapes. Bounds the memory that a damaged or hostile
#: file takes.
_MAX_FILE_BYTES = 1 << 30
_MAGIC = b"PNB-tape-1\n"
#: Most devices that a tape's caption names (more are counted), and number of messages below the caption.
_NAMED = 3
_HEAD_ROWS = 5


@dataclass(frozen=True, slots=True)
class TapeEntry:
    """One input of a flow.

    Attributes
    ----------
    device
        The device that sent the input.
    time, received
        Seconds since 1970, by the device's clock and by the server's.
    payload
        The payload, decoded.
    """

    device: str
    time: float
    received: float
    payload: Any


class _File(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The columns of a tape's file: `who` are indices into `devices`, payloads are MessagePack."""

    flow: str
    cut: str
    devices: tuple[str, ...]
    who: tuple[int, ...]
    times: tuple[float, ...]
    received: tuple[float, ...]
    payloads: tuple[bytes, ...]


class Tape(Sequence[TapeEntry]):
    """Inputs in the order in which the flow took them in; frozen.

    Made by `Flow.record` or `Tape.load`. Each access to an entry decodes its payload anew, so that changing
    the payload changes nothing on the tape.
    """

    __slots__ = ("_columns",)

    def __init__(self, columns: _File) -> None:
        if not isinstance(columns, _File):
            raise SettingsError(
                f"Tape({columns!r:.100}): a tape is made by flow.record(n), or read from its file by "
                "Tape.load(path)."
            )
        self._columns = columns

    @property
    def flow(self) -> str:
        """Name of the flow that the tape was recorded from."""
        return self._columns.flow

    @property
    def devices(self) -> tuple[str, ...]:
        """Names of the devices on the tape, in the order of their first message."""
        return self._columns.devices

    @property
    def cut(self) -> str:
        """The reason, in words, why the tape is shorter than was asked for; empty if it isn't."""
        return self._columns.cut

    @property
    def seconds(self) -> float:
        """Length of the tape at its own pace, in seconds."""
        received = self._columns.received
        return max(0.0, received[-1] - received[0]) if received else 0.0

    @property
    def bytes(self) -> int:
        """Size of the encoded payloads, in bytes."""
        return sum(map(len, self._columns.payloads))

    def __len__(self) -> int:
        return len(self._columns.who)

    @overload
    def __getitem__(self, at: int) -> TapeEntry: ...
    @overload
    def __getitem__(self, at: slice) -> Tape: ...
    def __getitem__(self, at: int | slice) -> TapeEntry | Tape:
        c = self._columns
        if isinstance(at, slice):
            columns = {name: getattr(c, name)[at] for name in ("who", "times", "received", "payloads")}
            return Tape(msgspec.structs.replace(c, **columns))
        return TapeEntry(c.devices[c.who[at]], c.times[at], c.received[at], _decoded(c.payloads[at]))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Tape) and self._columns == other._columns

    def __hash__(self) -> int:
        return hash(self._columns)

    def entries(self) -> Iterator[Entry]:
        """Iterate over the entries as plain tuples: device, time, received, payload."""
        c = self._columns
        for who, time, received, payload in zip(c.who, c.times, c.received, c.payloads, strict=True):
            yield c.devices[who], time, received, _decoded(payload)

    def __repr__(self) -> str:
        if not self:
            return f"<{self._caption}>"
        return text_table(self._caption, ("at", "device", "payload"), self._rows)

    def _repr_html_(self) -> str:
        return html_table(self._caption, ("at", "device", "payload"), self._rows)

    @property
    def _caption(self) -> str:
        few = len(self.devices) <= _NAMED
        devices = (
            f" of {', '.join(self.devices) if few else f'{len(self.devices):,} devices'}" if self else ""
        )
        cut = f"; cut: {self.cut}" if self.cut else ""
        return (
            f"Tape of {self.flow!r}: {len(self):,} messages{devices} in {self.seconds:.3g} s, "
            f"{self.bytes:,} bytes{cut}"
        )

    @property
    def _rows(self) -> list[tuple[str, ...]]:
        began = self._columns.received[0] if self else 0.0
        rows: list[tuple[str, ...]] = [
            (f"{entry.received - began:.3f} s", entry.device, shown(entry.payload))
            for entry in self[:_HEAD_ROWS]
        ]
        return [*rows, ("…", "", "")] if len(self) > _HEAD_ROWS else rows

    # -- its file --------------------------------------------------------------------------------------------

    def save(self, path: str | Path) -> Path:
        """Write the tape to a file, whole or not at all; return the path.

        The file is LZ4-compressed MessagePack, and readable by its owner alone: readings may be confidential.

        Raises
        ------
        SettingsError
            If the file can't be written.
        """
        target = checked_path(path, "save: path")
        try:
            write_whole(target, _MAGIC + lz4.frame.compress(msgspec.msgpack.encode(self._columns)))
        except OSError as error:
            raise SettingsError(
                f"the tape can't be written to {target}: {error.strerror}. Name a file in a folder that is "
                "there and can be written."
            ) from error
        return target

    @classmethod
    def load(cls, path: str | Path) -> Tape:
        """Read a tape from a file.

        Raises
        ------
        FrameError
            If the file is no tape, damaged, or larger than 1 GiB once decompressed.
        SettingsError
            If the file can't be read.
        """
        path = checked_path(path, "load: path")
        try:
            data = path.read_bytes()
        except OSError as error:
            raise SettingsError(f"the tape {path} can't be read: {error.strerror}.") from error
        if not data.startswith(_MAGIC):
            raise FrameError(f"{path} is no tape: it doesn't begin with {_MAGIC!r}. `Tape.save` writes one.")
        try:
            body = lz4.frame.LZ4FrameDecompressor().decompress(
                data[len(_MAGIC) :], max_length=_MAX_FILE_BYTES + 1
            )
            if len(body) > _MAX_FILE_BYTES:
                raise FrameError(f"{path} holds more than {_MAX_FILE_BYTES} bytes.")
            return cls(_checked(msgspec.msgpack.decode(body, type=_File)))
        except (RuntimeError, ValueError, EOFError) as error:  # the errors of msgspec and LZ4
            raise FrameError(f"the tape {path} is damaged: {error}") from error


def checked_tape(value: object, called: str) -> Tape:
    """Return `value` if it is a tape, else raise `SettingsError`; `called` is the method's name."""
    if not isinstance(value, Tape):
        raise SettingsError(
            f"{called}({value!r:.100}): it takes a Tape, as flow.record(n) or Tape.load(path) returns one."
        )
    return value


def _checked(columns: _File) -> _File:
    count = len(columns.who)
    if not count == len(columns.times) == len(columns.received) == len(columns.payloads):
        raise FrameError("its columns are not equally long")
    if any(not 0 <= who < len(columns.devices) for who in columns.who):
        raise FrameError("a message is of no device")
    if not all(map(math.isfinite, (*columns.times, *columns.received))):
        raise FrameError("a time is infinite or no number")
    for name in columns.devices:
        valid_address(name)
    return columns


def _decoded(payload: bytes) -> Any:
    try:
        return msgspec.msgpack.decode(payload)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise FrameError(f"a payload on the tape is damaged: {error}") from error


class Recorder:
    """Records a flow's inputs until it has `n` of them or is full. Calling it is a tap of the flow's gate."""

    def __init__(self, flow: str, n: int | None, max_bytes: int) -> None:
        self._flow = flow
        self._n = n
        self._max_bytes = max_bytes
        self._bytes = 0
        self._devices: dict[str, int] = {}
        self._who: list[int] = []
        self._times: list[float] = []
        self._received: list[float] = []
        self._payloads: list[bytes] = []
        self._cut = ""
        #: Set once no more inputs are recorded.
        self.full = asyncio.Event()

    def __len__(self) -> int:
        return len(self._who)

    def __call__(self, device: str, times: Sequence[float], received: float, payloads: Sequence[Any]) -> None:
        """Record admitted inputs, as far as there is room."""
        for time, payload in zip(times, payloads, strict=True):
            if self.full.is_set():
                return
            # Encoded at once, since processors may change the payload in place. Payloads came in as
            # MessagePack or JSON, so they can be encoded.
            data = pack(payload)
            if isinstance(data, Shown):
                continue
            if self._bytes + len(data) > self._max_bytes:
                self._cut = f"its bound of {self._max_bytes:,} bytes was reached (max_bytes)"
                self.full.set()
                return
            self._bytes += len(data)
            self._who.append(self._devices.setdefault(device, len(self._devices)))
            self._times.append(time)
            self._received.append(received)
            self._payloads.append(data)
            if self._n is not None and len(self._who) >= self._n:
                self.full.set()

    def tape(self, cut: str = "") -> Tape:
        """Return the recorded inputs as a tape; `cut` is its `Tape.cut`, unless the recorder was full."""
        return Tape(
            _File(
                self._flow,
                self._cut or cut,
                tuple(self._devices),
                tuple(self._who),
                tuple(self._times),
                tuple(self._received),
                tuple(self._payloads),
            )
        )
