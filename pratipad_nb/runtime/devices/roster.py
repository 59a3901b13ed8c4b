"""The roster: every device that a run knows, from hellos, from messages, and from the server.

Owns the union of these three sources. Keeping each source up to date is for `credit`, `gatekeeper` and
`presence`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from pratipad_nb.runtime.devices.account import Account
from pratipad_nb.runtime.positions.gatekeeper import DeviceCount

__all__ = ["Roster"]


class Roster:
    """The devices of one run.

    Parameters
    ----------
    accounts
        The devices that said hello, by name.
    counts
        The devices that sent messages, by name.
    owns
        Returns whether a device belongs to this run's partition.

    Attributes
    ----------
    connections
        How many connections each device of the flow has by the server's word, devices of other partitions
        too. Devices without a connection, and those that said farewell since, are left out.
    """

    def __init__(
        self,
        accounts: Mapping[str, Account],
        counts: Mapping[str, DeviceCount],
        owns: Callable[[str], bool],
    ) -> None:
        self._accounts = accounts
        self._counts = counts
        self.owns = owns
        self.connections: dict[str, int] = {}

    @property
    def known(self) -> list[str]:
        """Every device of this partition, sorted. Foreign devices say no hello; the server knows them."""
        connected = {device for device in self.connections if self.owns(device)}
        return sorted(self._accounts.keys() | self._counts.keys() | connected)

    def says_hello(self, device: str) -> bool:
        """Return whether `device` has said hello, and no farewell since."""
        account = self._accounts.get(device)
        return account is not None and account.connected

    def is_connected(self, device: str) -> bool:
        """Return whether `device` is connected, by its hello or by the server's word."""
        return self.says_hello(device) or device in self.connections

    def parted(self, device: str) -> None:
        """Take note that `device` has said farewell, or has no connection left."""
        self.connections.pop(device, None)

    def error(self, device: str) -> str:
        """Return the last words of `device` on its own failures; empty if there are none."""
        account = self._accounts.get(device)
        return account.error if account is not None else ""

    def ending(self, before: float) -> list[tuple[str, float]]:
        """Return the connected devices whose certificates end before that time, and when; sorted by name."""
        return sorted(
            (name, account.until)
            for name, account in self._accounts.items()
            if account.connected and 0 < account.until < before
        )
