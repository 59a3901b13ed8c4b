"""Which device of which name is connected in this process, so that a newer one can take over.

Re-running a notebook's cell makes a second `Device` of the same name. The edge would take the messages of
both, but the earlier device would go on measuring and running orders, though its user holds no handle of it.
So the earlier device is closed first.
"""

from __future__ import annotations

import threading
from typing import Generic, TypeVar

__all__ = ["Key", "Registry"]

#: Server URL, flow and device name.
Key = tuple[str, str, str]
Holder = TypeVar("Holder")


class Registry(Generic[Holder]):
    """Who holds a key; safe to use from any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._holders: dict[Key, Holder] = {}

    def swap(self, key: Key, holder: Holder) -> Holder | None:
        """Give `key` to `holder` and return who held it before."""
        with self._lock:
            before = self._holders.get(key)
            self._holders[key] = holder
            return before

    def drop(self, key: Key, holder: Holder) -> None:
        """Take `key` from `holder`, if it is still the one to hold it."""
        with self._lock:
            if self._holders.get(key) is holder:
                del self._holders[key]
