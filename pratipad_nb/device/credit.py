"""Credit: how many messages the edge lets a device send.

Credit has two ends: this module is the device's end, which makes one number of the credit frames that arrive.
`pratipad_nb.runtime.devices.credit` is the edge's end, which grants.

Owns the rules for credit frames that are lost, repeated, late or forged, and the doubt whether a grant still
holds after the link was down. Sends nothing.
"""

from __future__ import annotations

from pratipad_nb.errors import FrameError
from pratipad_nb.transport.frames import CreditFrame

__all__ = ["ANY_EPOCH", "MODES", "UNLIMITED", "Credit"]

UNLIMITED = -1
#: Epoch of a credit frame to all devices. Such a frame grants nothing, but says that an edge has started.
ANY_EPOCH = -1
MODES = ("push", "pull", "demand")


class Credit:
    """What the edge has granted to one device in its present epoch.

    Attributes
    ----------
    epoch
        The device's present epoch; 0 before it has begun to number.
    mode
        ``"push"``, ``"pull"`` or ``"demand"``; empty until an edge has named the mode.
    fast
        Whether messages go by at-most-once delivery.
    total
        Number of the last message that may be sent; `UNLIMITED`: no last. 0 until an edge has granted more.
    doubtful
        Whether messages that were asked for wait until an edge has said anew what holds: while the link was
        down, they may have been asked of another device.
    """

    def __init__(self, epoch: int = 0) -> None:
        self.epoch = epoch
        self.mode = ""
        self.fast = False
        self.total = 0
        self.doubtful = False
        self._owner = -1

    @property
    def known(self) -> bool:
        """Whether an edge has granted anything, if only a total of 0."""
        return self._owner >= 0

    @property
    def owner(self) -> int:
        """The owner of the grants that hold; 0: no owner. An edge that takes over is a higher owner."""
        return max(0, self._owner)

    @property
    def asked(self) -> bool:
        """Whether this device sends only messages that were asked for."""
        return self.mode in ("pull", "demand")

    def doubt(self) -> None:
        """Take note that the link was down."""
        self.doubtful = self.known and self.asked

    def may_send(self, sent: int) -> int | None:
        """Return how many messages may be sent now after the first `sent`; None: without limit."""
        return self.left(sent) if self.known and not self.doubtful else 0

    def left(self, sent: int) -> int | None:
        """Return how many messages may follow the first `sent`; None: without limit."""
        return None if self.total == UNLIMITED else max(0, self.total - sent)

    def begin(self, epoch: int) -> None:
        """Go on in another epoch, for which nothing has been granted yet; the mode is the same for now."""
        self.epoch, self.total, self._owner = epoch, 0, -1

    def apply(self, frame: CreditFrame) -> bool:
        """Take `frame` into account and return whether anything changed.

        A frame of a higher owner (an edge that took over) replaces all before it, lower totals included.
        Among frames of one owner the highest total counts, for frames may overtake each other.

        Raises
        ------
        FrameError
            If no edge can have made `frame`: a mode or delivery is unknown, or a number is out of range.
        """
        mode = frame.mode.lower()
        if mode not in MODES or frame.delivery not in ("durable", "fast"):
            raise FrameError(f"credit with mode {frame.mode!r:.40} and delivery {frame.delivery!r:.40}")
        if frame.owner < 0 or frame.total < UNLIMITED or frame.epoch < ANY_EPOCH:
            raise FrameError(f"credit of owner {frame.owner}, epoch {frame.epoch}, total {frame.total}")
        if frame.epoch != self.epoch or frame.owner < self._owner:
            return False
        total = frame.total
        if frame.owner == self._owner and total != UNLIMITED:
            total = UNLIMITED if self.total == UNLIMITED else max(total, self.total)
        before = (self._owner, self.mode, self.fast, self.total, self.doubtful)
        self._owner, self.mode, self.fast, self.total = frame.owner, mode, frame.delivery == "fast", total
        self.doubtful = False
        return before != (self._owner, self.mode, self.fast, self.total, self.doubtful)
