"""The controls of a run: pause, resume, drain, and inject, for messages that don't come from the input.

Owns these four controls. A change of the dataflow is for `changes`.
"""

from __future__ import annotations

import asyncio

from pratipad_nb.runtime.edge.shape import Shape
from pratipad_nb.runtime.edge.status import Status
from pratipad_nb.runtime.values.batch import Barrier, Batch
from pratipad_nb.runtime.values.stats import FlowState

__all__ = ["Controls"]

#: Pause before a refused injection is tried again, in seconds: replacing a pipeline takes as long.
_AGAIN = 0.05


class Controls:
    """Holds up one run, or lets it go on."""

    def __init__(self, status: Status, shape: Shape) -> None:
        self._status = status
        self._shape = shape

    def pause(self, processor: str | None = None) -> None:
        """Let the run, or one processor, begin no further call; a run that drains goes on to its end."""
        if self._status.state == "draining":
            return
        if processor is not None:
            self._shape.line.pause(processor)
            return
        self._shape.pipeline.pause()
        self._set("paused")

    def resume(self, processor: str | None = None) -> None:
        """Let the run, or one processor, go on."""
        if self._status.state == "draining":
            return
        if processor is not None:
            self._shape.line.resume(processor)
            return
        self._shape.pipeline.resume()
        self._shape.line.resume()
        self._set("running")

    def drain(self) -> None:
        """Refuse new messages, and let all accepted messages reach Output."""
        if self._status.takes:
            self._set("draining")
        self._shape.line.resume()
        self._shape.pipeline.drain()

    def _set(self, state: FlowState) -> None:
        self._status.state = state
        self._shape.line.set_state(state)

    async def inject(self, item: Batch | Barrier, step: str | None = None) -> None:
        """Put `item` into the pipeline before the processor `step`; during a change, into the next pipeline.

        Raises
        ------
        FlowError
            If the flow stops before `item` is in.
        LookupError
            If the flow has no processor `step`.
        """
        while not await self._shape.pipeline.inject(item, step):
            self._status.check_takes("takes no more messages")
            await asyncio.sleep(_AGAIN)

    async def flowing(self) -> None:
        """Wait until the run is not paused; a run that drains is not paused."""
        while self._shape.pipeline.paused and self._status.state == "paused":  # noqa: ASYNC110 - or it drains
            await asyncio.sleep(_AGAIN)
