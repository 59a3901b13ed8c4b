"""Timers: the periodic methods of processors, called while the run goes on.

Owns one task for each processor. Calling a method when it is due is for `runner`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable

from pratipad_nb.runtime.stages.line import Line

__all__ = ["Timers"]


class Timers:
    """The timers of one run.

    Parameters
    ----------
    name
        The flow's name, for the tasks' names.
    line
        Returns the current line of processors.
    """

    def __init__(self, name: str, line: Callable[[], Line]) -> None:
        self._name = name
        self._line = line
        self._group: asyncio.TaskGroup | None = None
        self._tasks: dict[str, asyncio.Task[None]] = {}

    async def run(self) -> None:
        """Call the periodic methods of all processors until cancelled."""
        async with asyncio.TaskGroup() as self._group:
            self.restart(self._line().meters)
            try:
                await asyncio.get_running_loop().create_future()
            finally:
                self._group = None

    def __contains__(self, key: str) -> bool:
        return key in self._tasks

    def stop(self, keys: Iterable[str]) -> None:
        """Call no periodic method of the processors `keys` until `restart`."""
        for key in keys:
            if task := self._tasks.pop(key, None):
                task.cancel()

    def restart(self, keys: Iterable[str]) -> None:
        """Call the periodic methods that the processors `keys` have now."""
        for key in tuple(keys):
            self.stop((key,))
            if self._group is not None:
                name = f"{self._name}: timers of {key}"
                self._tasks[key] = self._group.create_task(self._line().tick(key), name=name)
