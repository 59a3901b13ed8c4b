"""The reason for which a server doesn't let a connection back in that it had let in before.

Owns that question alone. The client library retries for ever, which is right, for a revoked party may be
invited again, but doesn't name the reason. So when the library is turned away,
`pratipad_nb.transport.tls.probe` asks for the reason.
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
    """The reason for which the server at `url` doesn't let the party `name` in.

    A bug in the asking goes to `bugs`.

    Attributes
    ----------
    cause
        Why the party isn't let in; empty while it is let in, or while the reason isn't known.
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
        """Look for the cause, if it isn't known and `error`, of a try to reconnect, looks like a refusal."""
        refused = isinstance(error, ssl.SSLError) or "authorization" in str(error).lower()
        if refused and not self.cause and self._asking is None and not self._closed:
            self._asking = asyncio.get_running_loop().create_task(self._ask(), name=f"{self._name}: refusal")

    def over(self) -> None:
        """Note that the link stands again."""
        self.cause = ""

    async def close(self) -> None:
        """Stop looking for the cause, for good."""
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
