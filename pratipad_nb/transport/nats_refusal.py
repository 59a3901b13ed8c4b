"""Why a server doesn't let a connection back in, once it had.

Owns that one question. The client library retries for ever, which is right, for who was revoked may be invited again, and
says nothing; so the probe, which names the cause, is asked when it is turned away.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import ssl

from pratipad_nb.bugs import Bugs
from pratipad_nb.errors import CertificateError, NotInvited, PratipadError
from pratipad_nb.settings import Credentials
from pratipad_nb.transport.tls import probe

__all__ = ["Refusal"]

log = logging.getLogger(__name__)


class Refusal:
    """What the server at `url` has against the party `name`; a bug met while it is asked goes to `bugs`.

    Attributes
    ----------
    cause
        Why it isn't let in; empty while it is, or while that isn't known.
    """

    def __init__(self, url: str, credentials: Credentials, name: str, bugs: Bugs) -> None:
        self.cause = ""
        self._bugs = bugs
        self._url = url
        self._credentials = credentials
        self._name = name
        self._asking: asyncio.Task[None] | None = None
        self._closed = False

    def note(self, error: Exception) -> None:
        """Look for the cause, if a try to reconnect failed with what looks like a refusal and it isn't known yet."""
        refused = isinstance(error, ssl.SSLError) or "authorization" in str(error).lower()
        if refused and not self.cause and self._asking is None and not self._closed:
            self._asking = asyncio.get_running_loop().create_task(self._ask(), name=f"{self._name}: refusal")

    def over(self) -> None:
        """Note that the link stands again."""
        self.cause = ""

    async def close(self) -> None:
        """Look no longer, and never again."""
        self._closed = True
        if self._asking is not None:
            self._asking.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._asking

    async def _ask(self) -> None:
        try:
            with self._bugs:
                await self._look()
        finally:
            self._asking = None

    async def _look(self) -> None:
        try:
            await probe(self._url, self._credentials)
        except (NotInvited, CertificateError) as error:
            self.cause = str(error)
            log.warning("%s is not let in any more, and goes on trying: %s", self._name, error)
        except PratipadError as error:
            log.debug("%s: %s", self._name, error)
