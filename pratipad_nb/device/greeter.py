"""The greeter: tells the edge, again and again, that this device is there, and its state.

Owns the moments at which a hello is sent; its content is for `pratipad_nb.device.engine`. Signals
get lost and repeated, so a hello is the whole state, and is sent again for as long as the edge might
not know that state.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable

from pratipad_nb.backoff import Backoff
from pratipad_nb.device.credit import Credit
from pratipad_nb.transport.codec import encode
from pratipad_nb.transport.frames import HelloFrame
from pratipad_nb.transport.protocol import Connection
from pratipad_nb.transport.subjects import Subjects

__all__ = ["HELLO_SECONDS", "Greeter"]

#: Seconds between two hellos until an edge has answered with credit.
HELLO_SECONDS = 2.0
#: Longest pause between two hellos, in seconds. A hello takes the edge some 50 µs, so 10,000 devices that say
#: hello every 30 s cost the edge 2 % of a core.
LONGEST_SECONDS = 30.0
#: So many times as often a device says hello that holds messages back until the edge has answered.
_DOUBTS = 8.0
#: Shortest pause between two hellos, in seconds: all changes in the meantime go into one hello.
_SPACING = 0.005


class Greeter:
    """Sends the hellos of one device.

    Parameters
    ----------
    sent
        Returns the number of the last message that was sent.
    hello
        Makes the frame of the device's state at that moment.
    """

    def __init__(
        self,
        flow: str,
        device: str,
        sent: Callable[[], int],
        credit: Credit,
        hello: Callable[[], HelloFrame],
    ) -> None:
        self._subject = Subjects(flow).hello(device)
        self._sent = sent
        self._credit = credit
        self._hello = hello
        self._event = asyncio.Event()
        self._wanted = False
        self._backoff = Backoff(HELLO_SECONDS, LONGEST_SECONDS)
        self._pause = self._backoff.next()

    def _doubt(self) -> None:
        self._credit.doubt()
        self.look()
        self.soon()

    def soon(self) -> None:
        """Say hello now, for the device's state has changed; on the event loop."""
        self._wanted = True
        self._event.set()

    def look(self) -> None:
        """Compute anew when the next hello is due, for credit came or was used up; on the event loop."""
        self._backoff.reset()
        self._pause = self._backoff.next()
        self._event.set()

    async def run(self, link: Connection) -> None:
        """Say hello for ever: at once, on every change and reconnect, and again and again without credit."""
        link.on_reconnect(self._doubt)
        while True:
            self._wanted = False
            await link.publish(self._subject, encode(self._hello()))
            await asyncio.sleep(_SPACING)
            await self._until_due()

    async def _until_due(self) -> None:
        """Wait until a hello is due: by time, by a change, or because the link is back."""
        loop = asyncio.get_running_loop()
        start = loop.time()
        while not self._wanted:
            left = start + self._interval() - loop.time()
            if left <= 0:
                self._pause = self._backoff.next()
                return
            self._event.clear()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(left):
                    await self._event.wait()

    def _interval(self) -> float:
        if not self._credit.known:
            return HELLO_SECONDS
        if self._credit.doubtful:
            return self._pause / _DOUBTS
        if self._credit.left(self._sent()) != 0:
            return LONGEST_SECONDS
        # A grant may have got lost, so say hello again; but an edge without room doesn't answer,
        # so ever less often.
        return self._pause
