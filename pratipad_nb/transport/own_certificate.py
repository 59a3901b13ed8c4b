"""A connection's own certificate: the files as they are now, and the warning before their end.

Owns two things that a connection of a year needs. Every try to reconnect shows the certificate that the files
hold then, so that a renewed certificate is shown without a restart. And the end of a certificate that nobody
renews is warned of in the log, once a day from two weeks before.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import ssl
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

from pratipad_nb.errors import CertificateError
from pratipad_nb.settings import Credentials
from pratipad_nb.transport.tls import client_context
from pratipad_nb.validity import CARRIED_ADVICE, ending, valid_until

__all__ = ["OwnCertificate"]

log = logging.getLogger(__name__)

#: Seconds between two looks at the certificate's end, and how often a warning is logged again.
_LOOK_SECONDS = 3600.0
_AGAIN = timedelta(days=1)


class OwnCertificate:
    """The certificate files of one connection.

    Parameters
    ----------
    credentials
        The files.
    name
        The connection's name, for the log.
    renewed
        Returns the warnings of the program that renews these files; None: no program does.
    now
        Returns the present. The computer's clock may jump.

    Raises
    ------
    CertificateError
        As `client_context`.
    """

    def __init__(
        self,
        credentials: Credentials,
        name: str,
        renewed: Callable[[], tuple[str, ...]] | None = None,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._credentials = credentials
        self._name = name
        self._renewed = renewed
        self._now = now
        self._stamp = self._stamped()
        self._context: ssl.SSLContext | None = client_context(credentials)
        self._until: datetime | None = None
        self._told: datetime | None = None
        self._next: asyncio.TimerHandle | None = None

    def context(self) -> ssl.SSLContext:
        """Return the context for the next try to connect, read anew if the files have changed.

        While the files can't be used (a copy is half done), the last context that could be is returned.
        """
        stamp = self._stamped()
        if self._context is None or stamp != self._stamp:
            try:
                self._context = client_context(self._credentials)
            except CertificateError as error:
                if self._context is None:
                    raise
                log.warning("%s goes on with the certificate that was read before: %s", self._name, error)
            else:
                self._stamp = stamp
                self._read_end()
        return self._context

    @property
    def warnings(self) -> tuple[str, ...]:
        """What is to be done before the server lets this party in no more; as a rule nothing."""
        if self._renewed is not None:
            return self._renewed()
        if self._until is None:
            return ()
        found = ending(self._name, self._until, self._now(), CARRIED_ADVICE)
        return (found,) if found else ()

    @property
    def valid_until(self) -> float:
        """When the certificate ends, in seconds since 1970-01-01 UTC; 0.0 if that can't be read."""
        return self._until.timestamp() if self._until is not None else 0.0

    def watch(self) -> None:
        """Look at the certificate's end now and once an hour, until `close`."""
        self._read_end()
        self._tell()
        self._next = asyncio.get_running_loop().call_later(_LOOK_SECONDS, self.watch)

    def close(self) -> None:
        """Look no more, and free the context: half a megabyte."""
        self._context = None
        if self._next is not None:
            self._next.cancel()

    def _tell(self) -> None:
        """Log the warning, if there is one and it was not logged within a day; clocks may have gone back."""
        now = self._now()
        if self._renewed is None and (self._told is None or not timedelta(0) <= now - self._told < _AGAIN):
            for warning in self.warnings:
                log.warning("%s", warning)
                self._told = now

    def refresh(self) -> None:
        """Read the end of the certificate anew: its files have changed."""
        self._read_end()

    def _read_end(self) -> None:
        with contextlib.suppress(CertificateError):
            self._until = valid_until(self._credentials.certificate)

    def _stamped(self) -> tuple[tuple[int, int, int], ...]:
        files = (self._credentials.authority, self._credentials.certificate, self._credentials.key)
        found = []
        for path in files:
            try:
                stat = path.stat()
            except OSError:
                found.append((0, 0, 0))
            else:
                found.append((stat.st_mtime_ns, stat.st_ino, stat.st_size))
        return tuple(found)
