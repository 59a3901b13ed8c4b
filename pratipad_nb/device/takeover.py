"""The registry of devices that are connected in this process, so that a newer device of a name can take over.

Owns the table of holders. Closing the earlier device is for `pratipad_nb.device.client`.

Re-running a notebook's cell makes a second `Device` of the same name. The edge would take the messages of
both, but the earlier device would go on measuring and running orders, though its user holds no handle of it.
So the earlier device is closed first.
"""

from __future__ import annotations

import threading
from typing import Generic, TypeVar

from pratipad_nb.forks import watch

__all__ = ["Key", "Registry"]

#: Server URL, the flow's key (its name, of a tenant's flow with the tenant) and device name.
Key = tuple[str, str, str]
Holder = TypeVar("Holder")


class Registry(Generic[Holder]):
    """The holder of each key; safe to use from any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._holders: dict[Key, Holder] = {}
        watch(self)

    def _find_forked(self) -> bool:
        self._lock = threading.Lock()
        self._holders.clear()
        return False

    def swap(self, key: Key, holder: Holder) -> Holder | None:
        """Give `key` to `holder` and return the previous holder, if any."""
        with self._lock:
            before = self._holders.get(key)
            self._holders[key] = holder
            return before

    def drop(self, key: Key, holder: Holder) -> None:
        """Take `key` from `holder`, if `holder` still holds it."""
        with self._lock:
            if self._holders.get(key) is holder:
                del self._holders[key]
