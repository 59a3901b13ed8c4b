"""Control: what handles in other processes ask of a running flow.

Owns the verbs on the flow's control subject. Each verb is one small function. Taking requests and answering
them is for `answers`, the pull requests themselves are for `pull`, and the counters for `report`.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import time
from collections.abc import Awaitable, Callable
from dataclasses import asdict
from typing import Any

import msgspec

from pratipad_nb.errors import FlowError
from pratipad_nb.runtime.devices.order_check import check_open
from pratipad_nb.runtime.devices.pull import Requests
from pratipad_nb.runtime.edge.answers import Verb
from pratipad_nb.runtime.stages.line import Line
from pratipad_nb.runtime.values.plan import EdgeSettings
from pratipad_nb.runtime.values.stats import FlowStats
from pratipad_nb.transport.codec import encode_payload
from pratipad_nb.transport.protocol import Connection, Logs
from pratipad_nb.transport.readers import prepare_reader

__all__ = ["Control"]

#: Longest wait for the end of a pull request before its present standing is the answer, in seconds.
_PATIENCE = 5.0
#: The counters of an answer are at most so many seconds old: of ten thousand devices, a look at all takes a
#: tenth of a second of the event loop.
_FRESH = 0.2


class Control:
    """The verbs of one run.

    Parameters
    ----------
    line
        Returns the current line of processors.
    stats
        Returns the counters of all edges of the flow.

    Attributes
    ----------
    verbs
        The verbs by name.
    of_readers
        The verbs that concern the reader that asks, by name.
    of_guests
        Those of both that a reader of another tenant may ask for.
    """

    def __init__(
        self,
        connection: Connection,
        settings: EdgeSettings,
        line: Callable[[], Line],
        requests: Requests,
        stats: Callable[[], Awaitable[FlowStats]],
    ) -> None:
        self._connection = connection
        self._settings = settings
        self._line = line
        self._requests = requests
        self._whole = stats
        self._looking = asyncio.Lock()
        self._looked = -math.inf
        self._seen: dict[str, Any] = {}
        self.verbs: dict[str, Verb] = {
            "describe": self._describe,
            "stats": self._stats,
        }
        self.of_readers: dict[str, Verb] = {
            "reader": self._prepare,
            "pull": self._pull,
            "request": self._request,
            "cancel": self._cancel,
        }
        self.of_guests = ("describe", "stats", "reader")

    async def _describe(self) -> dict[str, Any]:
        dataflow = self._line().dataflow
        text = ""
        try:
            check_open(dataflow)
        except FlowError as error:
            text = str(error)
        return {
            "notation": dataflow.notation,
            "delivery": self._settings.delivery,
            "cloud_reaches_devices": dataflow.cloud_reaches_devices,
            "text": text,
        }

    async def _pull(self, reader: str, n: int, device: str | None = None) -> dict[str, Any]:
        return {"request": self._requests.pull(n, device, reader).id}

    async def _request(self, reader: str, request: str, timeout: float) -> dict[str, Any]:
        found = self._requests.find(request, reader)
        with contextlib.suppress(TimeoutError):
            # Whatever is no time, as NaN, is no wait: the event loop's timers would be out of order.
            async with asyncio.timeout(min(timeout, _PATIENCE) if timeout > 0 else 0.0):
                await found.done.wait()
        return msgspec.structs.asdict(found.standing)

    async def _cancel(self, reader: str, request: str) -> dict[str, Any]:
        found = self._requests.find(request, reader)
        found.cancel()
        return msgspec.structs.asdict(found.standing)

    async def _prepare(self, reader: str, domain: str) -> dict[str, Any]:
        """Make what `reader` needs, at the server that it is connected to: this server, or the cloud's."""
        logs: Logs = self._connection
        if domain != self._connection.domain:
            if not self._settings.options.uplink:
                raise FlowError(
                    f"the reader {reader!r} is connected to another server ({domain!r:.100}), to which the "
                    "flow forwards no results. Let it connect to the flow's own server."
                )
            logs = self._connection.beyond()
        await prepare_reader(logs, self._settings.name, reader)
        return {}

    async def _stats(self) -> dict[str, Any]:
        """Return the counters. Requests that come within `_FRESH` seconds share one look at all devices."""
        async with self._looking:
            if time.monotonic() - self._looked > _FRESH:
                stats = asdict(await self._whole())
                self._seen = {name: msgspec.Raw(encode_payload(value)) for name, value in stats.items()}
                self._looked = time.monotonic()
            return self._seen
