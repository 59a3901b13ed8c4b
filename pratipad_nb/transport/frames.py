"""Frames: the messages that travel between device, edge and cloud.

Owns the fields of every frame, and the checks of the frames that devices send. Making bytes of a
frame is for `codec`, recognising repeats for `pratipad_nb.runtime.positions.positions`.

Messages are numbered by their device: *epoch* (the start in which the device counts: a random number, see
`new_epoch`) and *number* (1, 2, 3 … within the epoch). A frame holds consecutive numbers, so it names the
first number alone.
"""

from __future__ import annotations

import math
import secrets
from typing import Any, ClassVar

import msgspec

from pratipad_nb.errors import FrameError, SettingsError
from pratipad_nb.settings import valid_name
from pratipad_nb.transport.codec import MAGIC, MAX_ORDER_DECODED_BYTES, decode
from pratipad_nb.transport.origin import Origin

__all__ = [
    "MAX_MESSAGES",
    "MAX_NUMBER",
    "ControlFrame",
    "CreditFrame",
    "DeadEntry",
    "DeadFrame",
    "DownFrame",
    "FailureNote",
    "HeartbeatFrame",
    "HelloFrame",
    "MarkFrame",
    "Order",
    "OrderFrame",
    "OutputFrame",
    "OutputHeader",
    "PackedDeadFrame",
    "Position",
    "ReadFrame",
    "RenewFrame",
    "RenewedFrame",
    "Segment",
    "StoredRead",
    "TermsFrame",
    "UplinkFrame",
    "decode_hello",
    "decode_uplink",
    "is_time",
    "message_id",
    "new_epoch",
]

#: Most messages in a frame: a bound on the objects that a receiver builds of a frame. 4,096 readings of six
#: fields take 0.4 MB.
MAX_MESSAGES = 4096
#: Highest number and epoch. Counting on from here by a frame's length still gives an integer that
#: MessagePack carries.
MAX_NUMBER = 1 << 62
#: Most memory that a device's hello or credit takes once decoded: such frames hold numbers and short texts.
_SMALL_DECODED = 1 << 20
#: The times that Python's `datetime` knows, of the years 1 to 9999, in seconds since 1970: a reader that
#: shows another time fails.
_FIRST_TIME, _LAST_TIME = -62_135_596_800.0, 253_402_300_799.0
#: Most characters of the error in a hello: a longer error is cut off.
_ERROR_CHARACTERS = 1000
#: The numbers of a hello that are counted or chosen by a device.
_HELLO_NUMBERS = ("epoch", "sent", "waiting", "ready", "floor", "numbering", "owner", "former", "former_sent")
#: New epochs are below this: JSON, SQLite and floating-point numbers all carry such an integer exactly.
_EPOCHS = 1 << 53

#: A device's position: its name, the epoch, and the number of its last message that is dealt with.
Position = tuple[str, int, int]


def new_epoch() -> int:
    """Return an epoch that no other start has: a random number from 1 on.

    No clock is in an epoch. Clocks stand behind, are set back and show one millisecond to two starts, and
    messages of a start whose epoch another start had before would be dropped as repeats. So epochs don't say
    which start came first. The random numbers are the operating system's: a forked process doesn't repeat its
    parent's. Epoch 0 is for messages of foreign clients, which the edge numbers.
    """
    return 1 + secrets.randbelow(_EPOCHS - 1)


class UplinkFrame(msgspec.Struct, gc=False, omit_defaults=True):
    """Device → edge: consecutive messages. `times` are read from the device's clock, in seconds since 1970.

    A gateway names in `sources` the device behind it that each message is from; empty: the gateway itself.
    """

    COMES_IN: ClassVar[bool] = True

    flow: str
    device: str
    epoch: int
    first: int
    times: list[float]
    payloads: list[Any]
    sources: list[str] | None = None


class Segment(msgspec.Struct, gc=False, omit_defaults=True):
    """Results that stem from one input frame.

    `numbers` are the numbers of the messages that the results stem from; None: consecutive from `first`.
    `parts` counts the results that stem from one message (0, 1, …); None: every message made one result.
    `retry` is the sequence of the dead letter whose retrying made the results, 0 if there was no retry; it
    keeps the results' ids apart from those of the first try. `sources` are the full names of the devices that
    the results stem from, if `device` is a gateway.
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
    """The part of an output frame that a restarting edge reads: its writer and the positions it covers."""

    writer: str
    number: int
    covers: list[Position]


class OutputFrame(OutputHeader, gc=False):
    """Edge → cloud: results, and the input positions that the results complete."""

    segments: list[Segment]


class MarkFrame(msgspec.Struct, gc=False):
    """A checkpoint: every device's position as the output stood at `sequence`, and processors' kept state.

    `writer` names the run of an edge that wrote the checkpoint. Of each device, the epoch whose position
    moved longest ago comes first. `behind` holds the position that the states stand at, for each position in
    `positions` that is ahead of the states. The input's entries up to the sequence `floor` hold no message
    that the states lack; None: no state is kept, or not all of these entries are.
    """

    sequence: int
    positions: list[Position]
    states: dict[str, bytes] = {}
    writer: str = ""
    floor: int | None = None
    behind: list[Position] = []


class ReadFrame(msgspec.Struct, gc=False):
    """A reader's position: the frame at `sequence` is taken up to, not including, its message `offset`."""

    sequence: int
    offset: int


class StoredRead(ReadFrame, gc=False, omit_defaults=True):
    """A reader's position as it is stored: with the handle that holds the reader's name.

    `holder` is the handle that alone may move the position; None: no handle reads under the name. `leads`
    says that the holder may have handed out messages behind the position. `heir` is a newer handle, to which
    the holder is to hand the name over. `seen` is the time of the newest frame of which messages were taken,
    by the server's clock at the frame's append, or 0 if that time isn't known: it tells whether the log still
    holds that frame, or went back.
    """

    holder: Origin | None = None
    leads: bool = False
    heir: Origin | None = None
    seen: float = 0.0


class FailureNote(msgspec.Struct, gc=False):
    """A processor's failure on a message."""

    processor: str
    error: str
    traceback: str


class DeadEntry(msgspec.Struct, gc=False):
    """A message that a processor failed on, as it came into that processor.

    `source` is the full name of the device behind `device`, if `device` is a gateway. An order has no device;
    `to` names the devices that the order was for.
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
    to: list[str] | None = None


class DeadFrame(msgspec.Struct, gc=False):
    """Messages that failed at one stage; `step` is the key of the (first) processor that failed.

    The output frame `number` of `writer`, or a later one of `writer`, completes the messages. If it was never
    stored, the messages come again from the input, and their dead letters are void. An empty `writer`: the
    dead letters are valid in any case.
    """

    step: str
    time: float
    entries: list[DeadEntry]
    writer: str = ""
    number: int = 0


class PackedEntry(DeadEntry, gc=False):
    """A `DeadEntry` whose payload is left as it is on the wire, where it takes little memory."""

    payload: msgspec.Raw


class PackedDeadFrame(DeadFrame, gc=False):
    """A `DeadFrame` whose payloads are left as they are on the wire."""

    entries: list[PackedEntry]  # type: ignore[assignment] # no entry is put into a decoded frame


class HelloFrame(msgspec.Struct, gc=False):
    """Device → edge: the device is there, and this is its state.

    `sent` messages of this epoch were sent so far, and `waiting` messages are held. `answers` says whether
    the device can make a reading when asked. `ready` is the number of the last order that the device has run,
    in the epoch `numbering` of `DownFrame`, and `ready_at` that order's `DownFrame.stored`. `error` is the
    error of the device's last reading, or else of its last order; empty if neither failed. `leaving` says
    that the device ends. No message up to number `floor` comes any more that hasn't come: the device had to
    drop messages. `owner` is the owner of the `CreditFrame` whose grants the device goes by. `former` is the
    device's epoch before, of which `former_sent` messages were sent and stored; 0: not known. `until` is when
    the device's certificate ends (seconds since 1970-01-01 UTC); 0.0: not known, or renewed by itself.
    """

    MOST_DECODED: ClassVar[int] = _SMALL_DECODED

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
    numbering: int = 0
    owner: int = 0
    ready_at: float = 0.0
    former: int = 0
    former_sent: int = 0
    until: float = 0.0


class CreditFrame(msgspec.Struct, gc=False):
    """Edge → device: how many messages of `epoch` the device may have sent in total; -1: without limit.

    The grant is a total and not an increment, so that a lost or repeated frame does no harm. `owner` numbers
    the edge's run: grants of a higher owner replace those of a lower owner.
    """

    MOST_DECODED: ClassVar[int] = _SMALL_DECODED

    mode: str
    owner: int
    epoch: int
    total: int
    delivery: str = "durable"


class Order(msgspec.Struct, gc=False):
    """A payload for the devices in `to`; None: all known devices."""

    id: str
    payload: Any
    to: list[str] | None = None


class OrderFrame(msgspec.Struct, gc=False):
    """Cloud → edge: orders of one moment, at most `MAX_MESSAGES`.

    `reply` marks the answers of processors, which pass no further processor on the way to their devices.
    """

    COMES_IN: ClassVar[bool] = True

    time: float
    orders: list[Order]
    reply: bool = False


class DownFrame(msgspec.Struct, gc=False):
    """Edge → device: an order.

    `number` is larger than the number of any earlier order to this device in `epoch`; a repeat has its
    order's number. The device runs this order only after all orders up to number `after`, for an order may
    get lost and the next order arrive.

    `to` names the devices behind a gateway that the order is for, as the gateway knows them; None: the
    gateway itself. `stored` is the server's clock when the order was stored. It tells the order from an order
    of the same number that the order log lost, as the log went back.
    """

    MOST_DECODED: ClassVar[int] = 2 * MAX_ORDER_DECODED_BYTES

    flow: str
    epoch: int
    number: int
    id: str
    time: float
    payload: Any
    to: list[str] | None = None
    after: int = 0
    stored: float = 0.0


class RenewFrame(msgspec.Struct, gc=False):
    """Device → issuer: `request`, for a new certificate (PKCS #10, PEM). Answered by a `RenewedFrame`."""

    request: bytes


class RenewedFrame(msgspec.Struct, gc=False):
    """Issuer → device: the answer to a `RenewFrame`, as `pratipad_nb.pki.requests.Answer`; or an error."""

    certificate: bytes
    authority: bytes = b""
    voucher: bytes = b""
    error: str = ""


class ControlFrame(msgspec.Struct, gc=False):
    """Handle → edge: `verb` with its arguments. Answered by a frame of the same kind."""

    verb: str
    arguments: dict[str, Any] = {}


class HeartbeatFrame(msgspec.Struct, gc=False):
    """Edge → the other edges of the flow: a heartbeat.

    `edge` is the sender, and `owned` its partitions. `agreed` is the sequence of the `TermsFrame` that the
    sender goes by. `leaving` says that the sender ends, and `error` why, if it failed.
    """

    edge: Origin
    owned: list[int]
    agreed: int = 0
    leaving: bool = False
    error: str = ""


class TermsFrame(msgspec.Struct, gc=False):
    """The settings that all edges of a flow agree on, by name, and the edge that stored them.

    Also the answer of an edge that is asked who runs the flow; `notation` is what that edge runs.
    """

    terms: dict[str, Any]
    edge: Origin
    notation: str = ""


def is_time(seconds: float) -> bool:
    """Return whether `seconds` since 1970 lie in the years 1 to 9999, and are a number."""
    return _FIRST_TIME <= seconds <= _LAST_TIME


def decode_uplink(data: bytes, flow: str, device: str) -> UplinkFrame | None:
    """Return the checked uplink frame in `data`, or None if `data` is plain JSON or text of a foreign client.

    Parameters
    ----------
    flow, device
        The names in the subject, which the server has checked against the sender's certificate.

    Raises
    ------
    FrameError
        If `data` begins as a frame and is no valid one.
    """
    if not data.startswith(MAGIC):
        return None
    frame = decode(data, UplinkFrame)
    count = len(frame.payloads)
    if not 0 < count <= MAX_MESSAGES or len(frame.times) != count:
        raise FrameError(
            f"a frame has {count} payloads and {len(frame.times)} times; 1 to {MAX_MESSAGES} of both."
        )
    if not (1 <= frame.first <= MAX_NUMBER and 0 <= frame.epoch <= MAX_NUMBER):
        raise FrameError(
            f"a frame starts at number {frame.first} of epoch {frame.epoch}; numbers count from 1, epochs "
            f"from 0, up to {MAX_NUMBER}."
        )
    # The sum finds what is no number, which compares as neither less nor more.
    if not (math.isfinite(sum(frame.times)) and is_time(min(frame.times)) and is_time(max(frame.times))):
        raise FrameError(
            "a frame has a time that is infinite, no number, or outside the years 1 to 9999; times are "
            "seconds since 1970."
        )
    if frame.sources is not None:
        _check_sources(frame.sources, count)
    _check_sender(frame, flow, device)
    return frame


def decode_hello(data: bytes, flow: str, device: str) -> HelloFrame:
    """Return the checked hello in `data`; its numbers can be added up, and sent on in a frame.

    Parameters
    ----------
    flow, device
        The names in the subject, which the server has checked against the sender's certificate.

    Raises
    ------
    FrameError
        If `data` is no valid hello of that device.
    """
    frame = decode(data, HelloFrame)
    for name in _HELLO_NUMBERS:
        if not 0 <= (number := getattr(frame, name)) <= MAX_NUMBER:
            raise FrameError(f"a hello has {name} {number}; it is a number from 0 to {MAX_NUMBER}.")
    if frame.sent + frame.waiting > MAX_NUMBER:
        raise FrameError(
            f"a hello has {frame.sent} messages sent and {frame.waiting} waiting; both together are at most "
            f"{MAX_NUMBER}."
        )
    if not 0.0 <= frame.ready_at <= _LAST_TIME:
        raise FrameError(f"a hello has ready_at {frame.ready_at}; it is a time in seconds since 1970.")
    _check_sender(frame, flow, device)
    frame.error = frame.error[:_ERROR_CHARACTERS]
    return frame


def _check_sender(frame: UplinkFrame | HelloFrame, flow: str, device: str) -> None:
    """Raise `FrameError` if `frame` names another sender than its subject does."""
    if (frame.flow, frame.device) != (flow, device):
        raise FrameError(
            f"a frame of {frame.flow!r:.80}/{frame.device!r:.80} came on the subject of {flow!r}/{device!r}."
        )


def _check_sources(sources: list[str], count: int) -> None:
    """Raise `FrameError` if the `sources` of a gateway's frame aren't `count` names of devices."""
    if len(sources) != count:
        raise FrameError(f"a frame has {count} payloads and {len(sources)} sources.")
    for name in set(sources) - {""}:
        try:
            valid_name(name, "device")
        except SettingsError as error:
            raise FrameError(
                f"a frame of a gateway has a message of {name!r:.80}: {f'{error}':.500}"
            ) from error
