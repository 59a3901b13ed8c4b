"""`Device`: a device's side of a flow, for synchronous code.

Synchronous code has a module at both ends of a flow: this module is the device's end, and
`pratipad_nb.cloud.blocking` is the cloud's, which takes messages from a `Reader`.

Owns the fast way of `push` into the outbox, and the lease of the shared portal on which the asynchronous twin
runs. All else that a device does is for `pratipad_nb.device.client`.
"""

from __future__ import annotations

import atexit
import logging
import threading
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from pratipad_nb.device.client import CLOSE_SECONDS, AsyncDevice
from pratipad_nb.device.outbox import KEEP_BYTES
from pratipad_nb.device.receipt import Receipt
from pratipad_nb.device.target import find_endpoint_blocking
from pratipad_nb.errors import DeviceError, PratipadError
from pratipad_nb.forks import closing_in_parent, watch
from pratipad_nb.portal import PortalLease, shared_portal
from pratipad_nb.transport.codec import encode_payload

__all__ = ["Device"]

log = logging.getLogger(__name__)


class Device:
    """A device for synchronous code; every method may be called from any thread.

    The methods and parameters are those of `AsyncDevice`, which does the work. All devices of a process share
    one background thread, which ends with the `close` of the last device. A device that is still open when
    the program ends is closed then.
    """

    def __init__(
        self,
        name: str,
        *,
        read: Any = None,
        receive: Callable[[Any], Any] | None = None,
        every: float | None = None,
        keep: str | Path | None = None,
        keep_bytes: int = KEEP_BYTES,
        tenant: str = "",
    ) -> None:
        self._stand_on(
            AsyncDevice(
                name,
                read=read,
                receive=receive,
                every=every,
                keep=keep,
                keep_bytes=keep_bytes,
                tenant=tenant,
            )
        )

    def _stand_on(self, twin: AsyncDevice) -> None:
        self._twin = twin
        self._outbox = self._twin.outbox
        self._offer = self._outbox.offer  # bound once: `push` runs a hundred thousand times a second
        self._lock = threading.Lock()
        self._lease: PortalLease | None = None
        watch(self)

    def _find_forked(self) -> bool:
        self._lock = threading.Lock()
        atexit.unregister(self._close_at_exit)
        return self._lease is not None

    def __repr__(self) -> str:
        return self._twin.described(type(self).__name__)

    @property
    def name(self) -> str:
        """Name of the device."""
        return self._twin.name

    @property
    def flow(self) -> str:
        """Name of the flow that the device is connected to, empty before `connect`."""
        return self._twin.flow

    @property
    def tenant(self) -> str:
        """The tenant of the device and its flow; empty: none."""
        return self._twin.tenant

    @property
    def connected(self) -> bool:
        """Whether the link to the server stands now."""
        return self._twin.connected

    @property
    def state(self) -> str:
        """The device's state in a phrase.

        One of "not connected", "connecting", "connected", "link down" and "not let in: …"; or a phrase that
        begins with "closed" or "failed" and ends with the reason.
        """
        return self._twin.state

    @property
    def sent(self) -> int:
        """How many messages are safe (durable delivery) or handed over (fast)."""
        return self._twin.sent

    @property
    def waiting(self) -> int:
        """How many messages are held or in flight."""
        return self._twin.waiting

    @property
    def kept_in(self) -> str:
        """Path at which the waiting messages outlive this device; empty for a device without `keep`."""
        return self._twin.kept_in

    @property
    def unkept(self) -> int:
        """How many waiting messages are lost if the program ends now; see `AsyncDevice.unkept`."""
        return self._twin.unkept

    @property
    def dropped(self) -> int:
        """How many messages were dropped for want of room; only a device with `keep` drops messages."""
        return self._twin.dropped

    @property
    def mode(self) -> str:
        """The flow's mode, ``"push"``, ``"pull"`` or ``"demand"``; empty until the flow has answered."""
        return self._twin.mode

    @property
    def error(self) -> str:
        """The error of the last reading, or of the last order, or why messages can't be kept; else empty."""
        return self._twin.error

    @property
    def warnings(self) -> tuple[str, ...]:
        """Warnings that the certificate of this device ends, from 14 days before; empty as a rule."""
        return self._twin.warnings

    @property
    def failed(self) -> int:
        """How many readings and orders have failed since the device connected."""
        return self._twin.failed

    def connect(self, target: Any, *, flow: str | None = None, certs: str | Path | None = None) -> Self:
        """Connect to a flow and start; returns the device itself. See `AsyncDevice.connect`."""
        endpoint = find_endpoint_blocking(target, self.name, flow, certs, self.tenant)
        with self._lock:
            mine = self._lease is None
            lease = self._lease = self._lease or shared_portal()
        try:
            lease.portal.run(self._twin.connect(endpoint))
        except BaseException:
            if mine:
                self._let_go()
            raise
        if mine:
            atexit.register(self._close_at_exit)
        return self

    def push(self, payload: Any) -> Receipt:
        """Take `payload` for sending and return its receipt; blocks while the send buffer is full.

        See `AsyncDevice.push`.
        """
        data = encode_payload(payload)
        return Receipt(self._outbox, self._offer(data) or self._outbox.put(data))

    def renew(self) -> None:
        """Get a new certificate with a new key over the device's own connection. See `AsyncDevice.renew`."""
        lease = self._lease
        if lease is None:
            raise DeviceError(
                f"device {self.name!r} is {self.state}. Connect it: it asks over its connection."
            )
        lease.portal.run(self._twin.renew())

    def flush(self, timeout: float | None = 30.0) -> None:
        """Return once all pushed messages are safe (durable) or handed over (fast).

        See `AsyncDevice.flush`.
        """
        lease = self._lease
        if lease is not None:
            lease.portal.run(self._twin.flush(timeout))

    def close(self, timeout: float = CLOSE_SECONDS) -> None:
        """Flush, say farewell and close; nothing of the device remains. Idempotent.

        See `AsyncDevice.close`.
        """
        lease = self._lease
        if lease is None:
            return
        try:
            lease.portal.run(self._twin.close(timeout))
        finally:
            self._let_go()

    def _let_go(self) -> None:
        atexit.unregister(self._close_at_exit)
        with self._lock:
            lease, self._lease = self._lease, None
        if lease is not None:
            lease.release()

    def _close_at_exit(self) -> None:
        try:
            self.close()
        except PratipadError as error:
            log.error("device %s at the end of the program: %s", self.name, error)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with closing_in_parent():
            self.close()
