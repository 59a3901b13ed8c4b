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
    connected
        Every device of the flow that the server last named as connected, devices of other partitions too.
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
        self.connected: frozenset[str] = frozenset()

    @property
    def known(self) -> list[str]:
        """Every device of this partition, sorted. Foreign devices say no hello; the server knows them."""
        connected = {device for device in self.connected if self.owns(device)}
        return sorted(self._accounts.keys() | self._counts.keys() | connected)

    def says_hello(self, device: str) -> bool:
        """Return whether `device` has said hello, and no farewell since."""
        account = self._accounts.get(device)
        return account is not None and account.connected

    def is_connected(self, device: str) -> bool:
        """Return whether `device` is connected: by its hello or, if foreign, by the server's word."""
        account = self._accounts.get(device)
        return account.connected if account is not None else device in self.connected

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
