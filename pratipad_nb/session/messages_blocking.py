"""Messages: the methods of `Flow` that take messages, send orders and ask for readings.

Owns these methods, a part of `Flow`, and their descriptions. They call the methods of `AsyncFlow` in
`messages`. Taking messages and looping over them is for `pratipad_nb.cloud.blocking_take`, so that a loop
needn't go to the flow's thread for each message.
"""

from __future__ import annotations

from collections.abc import Coroutine, Iterator, Sequence
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from pratipad_nb.cloud.blocking_take import BlockingReader
from pratipad_nb.errors import TransportClosed
from pratipad_nb.message import Message
from pratipad_nb.portal import PortalClosed
from pratipad_nb.request import Request
from pratipad_nb.session.ends import not_running, take_cut_short

if TYPE_CHECKING:
    from pratipad_nb.session.asynchronous import AsyncFlow

__all__ = ["Messages"]

Result = TypeVar("Result")


class Messages:
    """The part of `Flow` through which messages come and go."""

    _flow: AsyncFlow
    _messages: BlockingReader | None

    if TYPE_CHECKING:

        @property
        def name(self) -> str:
            """The flow's name."""

        def _run(self, work: Coroutine[Any, Any, Result]) -> Result: ...

        def _check_outside_loop(self, verb: str) -> None: ...

    def take(self, n: int = 1, timeout: float | None = 10.0) -> list[Message]:
        """Return the next `n` messages that reached the cloud, in order; each is returned once.

        Parameters
        ----------
        timeout
            Seconds to wait for all `n` messages; None waits for ever.

        Raises
        ------
        WaitTimeout
            If fewer messages have come; those wait for the next `take`.
        FlowError
            If the flow isn't running, or stops meanwhile.
        """
        messages = self._messages
        if messages is None:
            raise not_running(self._flow)
        self._check_outside_loop("take")
        try:
            return messages.take(n, timeout)
        except (TransportClosed, PortalClosed) as error:
            raise take_cut_short(self.name, n) from error

    def __iter__(self) -> Iterator[Message]:
        """Iterate over messages as they reach the cloud, until the flow stops."""
        messages = self._messages
        self._check_outside_loop("take")
        return iter(messages) if messages is not None else iter(())

    def seek(self, where: Literal["oldest", "newest"]) -> None:
        """Move the position of `take`.

        ``"newest"`` skips all messages that have arrived, ``"oldest"`` begins with the first message that is
        kept.

        Raises
        ------
        FlowError
            If the flow isn't running.
        SettingsError
            If `where` is neither ``"oldest"`` nor ``"newest"``.
        """
        self._run(self._flow.seek(where))

    def send(self, payload: Any, to: str | Sequence[str] | None = None) -> str:
        """Send an order to one device, several devices, or all known devices; return the order's id.

        The order is stored when `send` returns, and kept for a device that is away.

        Raises
        ------
        OneWayError
            If an arrow is ``~>``.
        """
        return self._run(self._flow.send(payload, to))

    def pull(self, n: int = 1, device: str | None = None) -> Request:
        """Pull: ask for `n` readings in total, of `device` or of all devices in turn; at most 1,000,000.

        Raises
        ------
        FlowError
            If the flow's input isn't Pull, or 1,000 of its requests are open: wait for some, or cancel()
            them.
        SettingsError
            If `n` is no whole number from 1 to 1,000,000, or `device` is no valid name.
        DeviceError
            If no device named `device` has ever connected.
        """
        return Request(self._run, self._run(self._flow.pull(n, device)))

    def settled(self, timeout: float | None = 30.0) -> None:
        """Wait until all accepted messages are processed and stored at Output, taken by readers or not.

        Parameters
        ----------
        timeout
            Seconds to wait; None waits for ever.

        Raises
        ------
        WaitTimeout
            If messages are left after `timeout`; the error's text says how many.
        FlowError
            If the flow isn't running, or ends meanwhile.
        """
        self._run(self._flow.settled(timeout))

    def forget_reader(self, name: str) -> None:
        """Delete a named reader with its position, so that the flow no longer keeps messages for it."""
        self._run(self._flow.forget_reader(name))
