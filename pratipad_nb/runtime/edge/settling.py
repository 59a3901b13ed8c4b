"""Settling: whether all messages that a run has accepted are at Output, and what else the run waits for.

Owns the waiting and its words. `InFlight` counts messages in flight; the writers of the logs know whether a
log is full.
"""

from __future__ import annotations

import asyncio
import time

from pratipad_nb.errors import TransportClosed, TransportError, WaitTimeout
from pratipad_nb.runtime.devices.backward import Backward
from pratipad_nb.runtime.positions.dead_letters import DeadLetters
from pratipad_nb.runtime.positions.janitor import Janitor
from pratipad_nb.runtime.positions.storage import StorageWatch
from pratipad_nb.runtime.values.metrics import InFlight
from pratipad_nb.transport.protocol import Connection
from pratipad_nb.transport.subjects import Subjects

__all__ = ["Blockage", "Settling"]

#: Pause between two looks whether all is settled, in seconds: messages may arrive in between.
_LOOK = 0.01


class Blockage:
    """The reasons why no more results can be stored.

    Parameters
    ----------
    full
        Set while the output log takes no frame; None in fast delivery.
    """

    def __init__(
        self,
        connection: Connection,
        full: asyncio.Event | None,
        janitor: Janitor | None,
        dead_letters: DeadLetters,
        backward: Backward,
        storage: StorageWatch,
    ) -> None:
        self._connection = connection
        self._full = full
        self._janitor = janitor
        self._dead_letters = dead_letters
        self._backward = backward
        self._storage = storage

    @property
    def reasons(self) -> tuple[str, ...]:
        """Every reason, in words; empty if nothing blocks the run."""
        reasons: list[str] = []
        trouble = self._storage.state.trouble if self._full is not None else ""
        if self._full is not None and self._full.is_set():
            named = self._janitor.blocked_by if self._janitor else ()
            cut = "the output log is full; its oldest frames are being deleted"
            reasons += named or (() if trouble else (cut,))
        reasons += self._dead_letters.blocked_by
        if self._backward.full:
            reasons.append(
                "the orders are full: replies wait until devices have run theirs, or orders expire"
            )
        if self._backward.crowded:
            reasons.append(
                "orders fill their part of the memory: further orders wait until devices have run theirs, or "
                "orders expire"
            )
        if not self._connection.connected:
            reasons.append("the link to the server is down")
        elif trouble:
            reasons.append(trouble)
        return tuple(reasons)


class Settling:
    """Waits until all messages that one run has accepted are at Output.

    Parameters
    ----------
    durable
        Whether messages come from the input log; else they come as signals.
    partitions
        How many partitions, each with a consumer of its own, the input log has.
    """

    def __init__(
        self,
        connection: Connection,
        subjects: Subjects,
        in_flight: InFlight,
        blockage: Blockage,
        *,
        durable: bool,
        partitions: int,
    ) -> None:
        self._partitions = partitions
        self._connection = connection
        self._subjects = subjects
        self._in_flight = in_flight
        self._blockage = blockage
        self._durable = durable

    async def settled(self, seconds: float) -> None:
        """Wait until all accepted messages are at Output.

        Raises
        ------
        WaitTimeout
            If messages are left after `seconds`; the error says how many, and what blocks them.
        """
        until = time.monotonic() + seconds
        while (left := await self._left()) != "":
            if time.monotonic() > until:
                raise WaitTimeout(
                    f"flow {self._subjects.flow!r} is not settled after {seconds:g} s: {left}. "
                    f"{' '.join(self._blockage.reasons)}".strip()
                )
            await asyncio.sleep(_LOOK)

    async def _left(self) -> str:
        """Return how many frames and messages are left, in words; empty if none is left."""
        try:
            frames = await self._frames()
        except TransportClosed:
            raise
        except (TransportError, WaitTimeout) as error:  # the link is down, and may come back
            return f"its input can't be looked at: {error}"
        in_flight = self._in_flight.count
        if not frames and not in_flight:
            return ""
        return f"{frames} frames wait at its input, {in_flight} messages are in flight"

    async def _frames(self) -> int:
        """Return how many frames wait at the input; in fast delivery 0, once all sent frames are here."""
        if not self._durable:
            await self._connection.flush()
            return 0
        input_log = await self._connection.find_log(self._subjects.input_stream)
        if input_log is None:
            return 0
        consumers = await input_log.consumers()
        if len(consumers) < self._partitions:  # a partition that no edge has run yet: its frames wait, too
            return (await input_log.state()).messages
        return sum(consumer.pending for consumer in consumers)
