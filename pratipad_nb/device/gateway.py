"""`Gateway` and `AsyncGateway`: one connection and one uplink that speak for many devices.

Owns the names of the devices behind a gateway, and the addressing of their messages and orders. In all else a
gateway is a device, for which `pratipad_nb.device.client` is: its own certificate lets it in, its own
permissions hold, its messages are numbered as one sequence. A thing that can't speak to the server itself (a
radio's sensor, a field bus, a simulation) gets a name in the flow by its gateway, ``"gateway.device"``.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

from pratipad_nb.device.blocking import Device
from pratipad_nb.device.client import AsyncDevice
from pratipad_nb.device.outbox import KEEP_BYTES
from pratipad_nb.device.receipt import Receipt
from pratipad_nb.settings import valid_name
from pratipad_nb.transport.codec import encode_payload

__all__ = ["AsyncBehind", "AsyncGateway", "Behind", "Gateway"]

#: Most checked names that are remembered. Beyond that, all are forgotten and checked anew.
_MOST_REMEMBERED = 65_536


class _Names:
    """Checks the names of the devices behind a gateway, each name once."""

    def __init__(self) -> None:
        self._checked = {""}

    def source(self, device: str | None) -> str:
        """Return the name of `device` in a frame's `sources`; empty for the gateway itself."""
        name = device or ""
        if name not in self._checked:
            valid_name(name, "device")
            if len(self._checked) >= _MOST_REMEMBERED:
                self._checked = {""}
            self._checked.add(name)
        return name


class AsyncGateway(AsyncDevice):
    """A gateway on the caller's event loop: a device that speaks for others.

    Each message of ``push(payload, device="t042")`` arrives with ``message.device == "gw.t042"``, is
    partitioned, kept in order and answered (`reply`) by that name. Its id begins with the gateway's name, for
    the gateway numbers it.

    Parameters
    ----------
    name
        The gateway's name, by which the flow invites the gateway.
    receive
        Called as ``receive(payload, device=name)`` for each order: ``flow.send(…, to="gw.t042")`` gives
        ``"t042"``; an order to ``"gw"``, or to all, gives None, once. ``def`` (on a thread of its own) or
        ``async def``.
    keep, keep_bytes, tenant
        As in `AsyncDevice`.

    Raises
    ------
    SettingsError
        If `name` can't name a device.
    """

    _gateway: ClassVar[bool] = True

    def __init__(
        self,
        name: str,
        *,
        receive: Callable[..., Any] | None = None,
        keep: str | Path | None = None,
        keep_bytes: int = KEEP_BYTES,
        tenant: str = "",
    ) -> None:
        super().__init__(name, receive=receive, keep=keep, keep_bytes=keep_bytes, tenant=tenant)
        self._names = _Names()

    async def push(self, payload: Any, *, device: str | None = None) -> Receipt:
        """Take a message of the device called `device` behind this gateway; None: the gateway itself.

        See `AsyncDevice.push`; all devices behind a gateway share its send buffer.

        Raises
        ------
        SettingsError
            If `device` can't name a device.
        """
        source = self._names.source(device)
        return Receipt(self.outbox, await self.outbox.put_soon(encode_payload(payload), source))

    def device(self, name: str) -> AsyncBehind:
        """Return a handle for the device called `name` behind this gateway."""
        return AsyncBehind(self, valid_name(name, "device"))


class AsyncBehind:
    """A device behind an `AsyncGateway`."""

    def __init__(self, gateway: AsyncGateway, name: str) -> None:
        self.gateway = gateway
        self._name = name

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.name!r}: {self.gateway.state}>"

    @property
    def name(self) -> str:
        """The device's full name, which `Message.device` says and orders are sent to."""
        return f"{self.gateway.name}.{self._name}"

    async def push(self, payload: Any) -> Receipt:
        """Take a message of this device; see `AsyncGateway.push`."""
        return await self.gateway.push(payload, device=self._name)


class Gateway(Device):
    """A gateway for synchronous code; every method may be called from any thread. See `AsyncGateway`."""

    def __init__(
        self,
        name: str,
        *,
        receive: Callable[..., Any] | None = None,
        keep: str | Path | None = None,
        keep_bytes: int = KEEP_BYTES,
        tenant: str = "",
    ) -> None:
        self._stand_on(AsyncGateway(name, receive=receive, keep=keep, keep_bytes=keep_bytes, tenant=tenant))
        self._names = _Names()

    def push(self, payload: Any, *, device: str | None = None) -> Receipt:
        """Take a message of the device called `device` behind this gateway; None: the gateway itself.

        Blocks while the send buffer is full. See `AsyncGateway.push`.
        """
        source = self._names.source(device)
        return Receipt(self._outbox, self._outbox.put(encode_payload(payload), source))

    def device(self, name: str) -> Behind:
        """Return a handle for the device called `name` behind this gateway."""
        return Behind(self, valid_name(name, "device"))


class Behind:
    """A device behind a `Gateway`."""

    def __init__(self, gateway: Gateway, name: str) -> None:
        self.gateway = gateway
        self._name = name

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.name!r}: {self.gateway.state}>"

    @property
    def name(self) -> str:
        """The device's full name, which `Message.device` says and orders are sent to."""
        return f"{self.gateway.name}.{self._name}"

    def push(self, payload: Any) -> Receipt:
        """Take a message of this device; see `Gateway.push`."""
        return self.gateway.push(payload, device=self._name)
