"""Requests for readings, as `Flow.pull` returns them in the edge's process, and `Cloud.pull` far away.

Owns the public members of a request, waiting for its end and cancelling it, and the texts of both. The edge
counts how far a request is (`pratipad_nb.runtime.devices.pull`). `pratipad_nb.session.request` looks the
count up, and `pratipad_nb.cloud.request` asks the edge: the same request seen from the two ends.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Coroutine, Generator
from typing import Any, Protocol

import msgspec

from pratipad_nb.errors import FlowError, WaitTimeout
from pratipad_nb.settings import checked_count, checked_wait, valid_address

__all__ = [
    "CANCELLED",
    "FLOW_ENDED",
    "MOST_READINGS",
    "Asked",
    "AsyncRequest",
    "Request",
    "Standing",
    "checked_pull",
]

#: Most readings that one request may ask for: a quarter of an hour at a thousand a second. Without a bound, a
#: slip of the keyboard would keep devices reading for years.
MOST_READINGS = 1_000_000

#: Two values of `Standing.ended`, for requests that ended early.
CANCELLED, FLOW_ENDED = "cancelled", "the flow ended"


def checked_pull(n: object, device: object) -> None:
    """Raise `SettingsError` unless `n` readings can be asked for, of `device` if that isn't None."""
    checked_count(n, "pull: n", most=MOST_READINGS)
    if device is not None:
        valid_address(device)


class Standing(msgspec.Struct, frozen=True):
    """How far a request is.

    Attributes
    ----------
    left
        Readings that have not left the pipeline: emitted, filtered or dead-lettered.
    silent
        Devices that were asked and owe some of these readings.
    ended
        Why no more readings will come for the request, in words; empty while readings may come, or once all
        have come.
    """

    left: int
    silent: tuple[str, ...] = ()
    ended: str = ""

    @property
    def over(self) -> bool:
        """Whether the request has ended, so that waiting and cancelling make no difference."""
        return self.left == 0 or self.ended != ""


class Asked(Protocol):
    """A request as the edge counts it, seen from this process."""

    @property
    def standing(self) -> Standing:
        """How far the request was when this process last heard of it."""

    async def look(self, seconds: float | None) -> None:
        """Wait until the request is over or `seconds` have passed, and bring `standing` up to date.

        With `seconds` None, the method may return at any time.
        """

    async def cancel(self) -> None:
        """Have the edge ask devices for no more readings of the request."""


class AsyncRequest:
    """A request for readings, made by `AsyncFlow.pull` or `AsyncCloud.pull`. Awaiting it waits for its end.

    Attributes
    ----------
    id
        The request's name at the edge.
    n
        How many readings were asked for.
    """

    def __init__(self, flow: str, id: str, n: int, asked: Asked) -> None:  # noqa: A002 - its public name
        self._flow = flow
        self.id = id
        self.n = n
        self._asked = asked

    def __repr__(self) -> str:
        return f"<{type(self).__name__} to {self._flow!r}: {self.state}>"

    def __await__(self) -> Generator[Any, None, None]:
        return self.wait().__await__()

    @property
    def left(self) -> int:
        """Readings that have not left the pipeline; of a `Cloud`, when that was last heard."""
        return self._asked.standing.left

    @property
    def done(self) -> bool:
        """Whether all readings have left the pipeline; of a `Cloud`, when that was last heard."""
        return self.left == 0

    @property
    def silent(self) -> tuple[str, ...]:
        """Devices that were asked and owe readings; of a `Cloud`, when that was last heard."""
        return self._asked.standing.silent

    @property
    def state(self) -> str:
        """One phrase: "done", "3 of 5 readings left", or the latter with "cancelled" or "the flow ended"."""
        standing = self._asked.standing
        if standing.left == 0:
            return "done"
        over = f", {standing.ended}" if standing.ended else ""
        return f"{standing.left} of {self.n} readings left{over}"

    async def wait(self, timeout: float | None = 10.0) -> None:
        """Wait until all readings have left the pipeline: emitted, filtered or dead-lettered.

        Parameters
        ----------
        timeout
            Seconds to wait; None waits for ever.

        Raises
        ------
        WaitTimeout
            If readings are left after `timeout` seconds; the text names the devices that owe readings.
        FlowError
            If the flow ends before, or the request is cancelled.
        """
        seconds = checked_wait(timeout, "wait: timeout")
        end = None if seconds is None else time.monotonic() + seconds
        while not self._asked.standing.over:
            await self._asked.look(None if end is None else max(0.0, end - time.monotonic()))
            if end is not None and time.monotonic() >= end:
                break
        self._check_done(seconds)

    def _check_done(self, seconds: float | None) -> None:
        """Raise the error of `wait` if the request isn't done after so many seconds."""
        standing = self._asked.standing
        readings = f"{standing.left} of {self.n} readings"
        if standing.left == 0:
            return
        if standing.ended == CANCELLED:
            raise FlowError(f"the request was cancelled before {readings} had come. Pull again for more.")
        if standing.ended == FLOW_ENDED:
            raise FlowError(
                f"flow {self._flow!r} ended while {readings} were waited for. Start it with start(), and "
                "pull again."
            )
        if standing.ended:
            raise FlowError(f"the request ended before {readings} had come: {standing.ended}.")
        silent = ", ".join(standing.silent) or "no device is connected that could be asked"
        raise WaitTimeout(
            f"{readings} have not come in {seconds:g} s; silent: {silent}. See whether the devices are "
            "connected and can read, then wait() again, or cancel()."
        )

    async def cancel(self) -> None:
        """Ask for no more readings. Readings that devices were asked for already still come.

        A request that has ended stays as it is.
        """
        if not self._asked.standing.over:
            await self._asked.cancel()


class Request:
    """A request for readings, made by `Flow.pull` or `Cloud.pull`: the synchronous twin of `AsyncRequest`.

    Parameters
    ----------
    run
        Runs a coroutine on the twin's event loop, and waits for its end.
    """

    def __init__(self, run: Callable[[Coroutine[Any, Any, None]], None], twin: AsyncRequest) -> None:
        self._run = run
        self._twin = twin

    def __repr__(self) -> str:
        return repr(self._twin).replace("AsyncRequest", "Request", 1)

    @property
    def id(self) -> str:
        """The request's name at the edge."""
        return self._twin.id

    @property
    def n(self) -> int:
        """How many readings were asked for."""
        return self._twin.n

    @property
    def left(self) -> int:
        """Readings that have not left the pipeline; of a `Cloud`, when that was last heard."""
        return self._twin.left

    @property
    def done(self) -> bool:
        """Whether all readings have left the pipeline; of a `Cloud`, when that was last heard."""
        return self._twin.done

    @property
    def silent(self) -> tuple[str, ...]:
        """Devices that were asked and owe readings; of a `Cloud`, when that was last heard."""
        return self._twin.silent

    @property
    def state(self) -> str:
        """One phrase: "done", "3 of 5 readings left", or the latter with "cancelled" or "the flow ended"."""
        return self._twin.state

    def wait(self, timeout: float | None = 10.0) -> None:
        """Wait until all readings have left the pipeline: emitted, filtered or dead-lettered.

        Parameters
        ----------
        timeout
            Seconds to wait; None waits for ever.

        Raises
        ------
        WaitTimeout
            If readings are left after `timeout` seconds; the text names the devices that owe readings.
        FlowError
            If the flow ends before, or the request is cancelled.
        """
        seconds = checked_wait(timeout, "wait: timeout")
        if self._over:
            self._twin._check_done(seconds)  # noqa: SLF001 - two handles of one request
        else:
            self._run(self._twin.wait(timeout))

    def cancel(self) -> None:
        """Ask for no more readings. Readings that devices were asked for already still come.

        A request that has ended stays as it is.
        """
        if not self._over:
            self._run(self._twin.cancel())

    @property
    def _over(self) -> bool:
        """Whether the request has ended: then the twin's event loop may be closed, and isn't used."""
        return self._twin._asked.standing.over  # noqa: SLF001 - two handles of one request
