"""The receipt: returned by `push`, it says when the pushed message is safe.

Owns the small value alone. A receipt asks its `pratipad_nb.device.outbox`, which keeps the number of the last
safe message in place of a future for each message.
"""

from __future__ import annotations

from collections.abc import Generator
from typing import TYPE_CHECKING, Any

import msgspec

if TYPE_CHECKING:
    from pratipad_nb.device.outbox import Outbox

__all__ = ["Receipt"]


class Receipt(msgspec.Struct, gc=False, eq=False, frozen=True):
    """Says when a pushed message is safe at the server (durable delivery) or handed over (fast).

    A `msgspec.Struct`, for every push makes a receipt: a struct is made three times faster than an instance
    of a plain class.

    Attributes
    ----------
    number
        The message's number: 1, 2, 3 …, or on from the messages that an earlier start left in a `keep` file.
    """

    _outbox: Outbox
    number: int

    def __repr__(self) -> str:
        return f"<Receipt {self.number}: {'done' if self.done else 'under way'}>"

    @property
    def done(self) -> bool:
        """Whether the message is safe. False also if the message can't be sent any more; `wait` says why."""
        outbox = self._outbox
        return outbox.acked >= self.number and not (outbox.lossy and outbox.loss(self.number))

    @property
    def kept(self) -> bool:
        """Whether the message outlives the device's process: it is safe, or in the device's `keep` file."""
        return self._outbox.is_kept(self.number)

    def wait(self, timeout: float | None = None) -> None:
        """Block until the message is safe. In a coroutine, await the receipt instead.

        Parameters
        ----------
        timeout
            Seconds. Default: as long as it takes.

        Raises
        ------
        WaitTimeout
            If the message isn't safe by then; it is sent all the same.
        DeviceError, NotInvited
            If the message can't be sent any more, with the reason.
        FlowError
            If `wait` is called on the event loop that has to send the message.
        """
        if not self.done:
            self._outbox.wait_for(self.number, timeout)

    def __await__(self) -> Generator[Any, None, None]:
        return self._outbox.safe(self.number).__await__()
