"""Requests for readings, as `Flow.pull` and `AsyncFlow.pull` return them.

Owns waiting for one, and the words when it takes too long. Counting what is left is `pratipad_nb.runtime.pull`.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from pratipad_nb.errors import WaitTimeout
from pratipad_nb.runtime.pull import PullRequest

if TYPE_CHECKING:
    from pratipad_nb.session.flow import Flow

__all__ = ["AsyncRequest", "Request"]


class AsyncRequest:
    """A request for readings; see `Flow.pull`."""

    def __init__(self, request: PullRequest) -> None:
        self._request = request

    @property
    def left(self) -> int:
        """Readings that have not left the pipeline."""
        return max(0, self._request.left)

    @property
    def done(self) -> bool:
        """Whether all have."""
        return self._request.done.is_set()

    async def wait(self, timeout: float | None = 10.0) -> None:
        """Wait until all readings have left the pipeline: emitted, filtered or dead-lettered.

        Raises
        ------
        WaitTimeout
            If they have not within `timeout` seconds; it names the devices that owe some.
        """
        try:
            async with asyncio.timeout(timeout):
                await self._request.done.wait()
        except TimeoutError:
            silent = ", ".join(self._request.silent) or "no device is connected"
            raise WaitTimeout(
                f"{self.left} of {self._request.wanted} readings have not come in {timeout:g} s; silent: {silent}."
            ) from None


class Request:
    """A request for readings, made by `Flow.pull`."""

    def __init__(self, flow: Flow, request: AsyncRequest) -> None:
        self._flow = flow
        self._request = request

    def __repr__(self) -> str:
        return f"<Request to {self._flow.name!r}: {'done' if self.done else f'{self.left} readings left'}>"

    @property
    def left(self) -> int:
        """Readings that have not left the pipeline."""
        return self._request.left

    @property
    def done(self) -> bool:
        """Whether all have."""
        return self._request.done

    def wait(self, timeout: float | None = 10.0) -> None:
        """Wait until all readings have left the pipeline: emitted, filtered or dead-lettered.

        Raises
        ------
        WaitTimeout
            If they have not within `timeout` seconds; it names the devices that owe some.
        """
        self._flow._run(self._request.wait(timeout))  # noqa: SLF001 - one handle in two classes
