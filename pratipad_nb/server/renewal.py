"""Renewal: a program that runs for a year renews the certificates that it shows, without a restart.

Owns when to look, what is told of a renewal that fails, and the issuer's warnings of certificates that were
carried away and end soon. Making certificates is for `pratipad_nb.pki`. Showing a renewed certificate is for
its holder: each holder names a function that has its server, or its connection, take the new files.

A look is cheap, so that there is one an hour, and more where certificates are valid for minutes only. All
decisions go by the wall clock as it is at that look: a clock may jump, and a computer may sleep.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import NoReturn

from pratipad_nb.errors import CertificateError, PratipadError
from pratipad_nb.pki.store import CertificateStore
from pratipad_nb.server.accounts import OWNER
from pratipad_nb.settings import Credentials
from pratipad_nb.transport.parties import Party
from pratipad_nb.validity import CARRIED_ADVICE, WARNING_DAYS, ending, party_ending, valid_until

__all__ = ["Renewal"]

log = logging.getLogger(__name__)

#: Seconds between two looks; after a failure; and at least.
_LOOK_SECONDS, _AGAIN_SECONDS, _LEAST_SECONDS = 3600.0, 60.0, 1.0
#: So often it is looked whether the authority is another, in seconds: a system call.
_STAMP_SECONDS = 1.0
#: Looks are earlier by up to this fraction, so that a site's programs don't all look at the same time.
_JITTER = 0.1
#: A certificate is looked at so many times before its end.
_LOOKS_LEFT = 3
#: How often the same warning is logged again.
_TOLD_AGAIN = timedelta(days=1)
#: An authority's end is warned of so many days before: all certificates have to be carried anew until then.
_AUTHORITY_DAYS = 90.0
#: The keys of the warnings that concern all flows: about the authority, its change, and all that was carried.
_AUTHORITY, _CHANGE, _CARRIED = "", "change", "carried"
#: So many parties are named in a warning.
_NAMED = 5


@dataclass(slots=True)
class _Kept:
    """A certificate that is renewed here; `flow` is the flow that it concerns, all flows if empty."""

    whose: str
    flow: str
    ensure: Callable[[], Credentials | None]
    renewed: Callable[[Credentials], Awaitable[None]]
    #: The certificate that the holder shows, as PEM.
    shown: bytes
    until: datetime
    #: Whether the files are renewed elsewhere.
    carried: bool = False


@dataclass(frozen=True, slots=True)
class _Warning:
    """A warning, and the flow that it concerns, by its `flow_key`; every flow, if `flow` is empty."""

    text: str
    flow: str = ""


@dataclass(slots=True)
class _Found:
    """What a look has found."""

    warnings: dict[str, _Warning] = field(default_factory=dict)
    failed: bool = False


class Renewal:
    """Renews the certificates of one state folder that this process shows.

    Parameters
    ----------
    store
        The certificates of the state folder.
    now
        Returns the present.
    """

    def __init__(
        self, store: CertificateStore, now: Callable[[], datetime] = lambda: datetime.now(UTC)
    ) -> None:
        self._store = store
        self._now = now
        self._kept: dict[str, _Kept] = {}
        self._woken = asyncio.Event()
        self._soon = False
        self._found = _Found()
        self._told: dict[str, datetime] = {}

    def keep(
        self,
        identity: str,
        whose: str,
        credentials: Credentials,
        *,
        flow: str = "",
        ensure: Callable[[], Credentials | None],
        renewed: Callable[[Credentials], Awaitable[None]],
    ) -> None:
        """Renew a certificate from now on.

        Parameters
        ----------
        identity
            The holder's identity, under which `drop` and `warnings` know the certificate.
        whose
            The holder in words, for warnings.
        credentials
            The files that the holder shows now.
        flow
            The flow that a warning concerns; empty: all flows.
        ensure
            Returns the files, made anew if need be; None if the holder is let in no more, and its certificate
            not to be renewed. Called on a thread.
        renewed
            Has the new files shown. Called again at the next look if it raises a `PratipadError`.
        """
        shown = credentials.certificate.read_bytes()
        until = valid_until(credentials.certificate)
        self._kept[identity] = _Kept(whose, flow, ensure, renewed, shown, until)
        self._woken.set()

    def keep_owner(self, credentials: Credentials) -> None:
        """Renew the certificate of the server's owner, whose connections are short, from now on."""

        async def shown_next_time(_credentials: Credentials) -> None: ...

        ensure = partial(self._store.owner, OWNER)
        self.keep(OWNER, "the server's owner", credentials, ensure=ensure, renewed=shown_next_time)

    def follow(
        self, whose: str, credentials: Credentials, *, renewed: Callable[[Credentials], Awaitable[None]]
    ) -> None:
        """Have files shown that are renewed elsewhere and carried here, and warn of their end.

        The parameters are those of `keep`.
        """
        self.keep(whose, whose, credentials, ensure=lambda: credentials, renewed=renewed)
        self._kept[whose].carried = True

    def note_carried(self, until: datetime) -> None:
        """Have a certificate that was carried away, and ends on `until`, warned of now if it ends soon."""
        if until - self._now() < timedelta(days=WARNING_DAYS):
            self._soon = True
            self._woken.set()

    def drop(self, identity: str) -> None:
        """Renew the certificate of `identity` no longer."""
        self._kept.pop(identity, None)

    def warnings(self, flow: str | None = None) -> tuple[str, ...]:
        """Return what a person should see to, of `flow` and of what all flows share; of all flows with None.

        Any thread may call this method.
        """
        found = self._found.warnings.values()
        return tuple(each.text for each in found if flow is None or each.flow in ("", flow))

    def warnings_of(self, identity: str) -> tuple[str, ...]:
        """Return why the certificate of `identity` can't be renewed; empty as a rule. Of any thread."""
        found = self._found.warnings.get(identity)
        return (found.text,) if found is not None else ()

    async def run(self) -> NoReturn:
        """Look once an hour, for ever; the first look is at once."""
        while True:
            stamp = self._store.authority.stamp
            await self._look()
            await self._rest(stamp)

    async def _rest(self, stamp: tuple[int, int]) -> None:
        """Sleep until the next look.

        A certificate that is kept meanwhile may need an earlier look, and so does an authority that is not
        the one of `stamp`.
        """
        loop = asyncio.get_running_loop()
        since, early = loop.time(), 1 - _JITTER * random.random()  # noqa: S311 - spreads looks, guards nothing
        self._soon = False
        while (left := since + self._pause() * early - loop.time()) > 0:
            self._woken.clear()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(min(left, _STAMP_SECONDS)):
                    await self._woken.wait()
            if self._store.authority.stamp != stamp:
                return

    def _pause(self) -> float:
        pause = _AGAIN_SECONDS if self._found.failed else _LOOK_SECONDS
        if self._soon:
            pause = _LEAST_SECONDS
        lefts = [(kept.until - self._now()).total_seconds() / _LOOKS_LEFT for kept in self._kept.values()]
        return max(_LEAST_SECONDS, min([pause, *(left for left in lefts if left > 0)]))

    async def _look(self) -> None:
        found = _Found()
        for identity, kept in list(self._kept.items()):
            trouble = await self._renew(identity, kept)
            if trouble:
                until = f"{kept.until.astimezone(UTC):%Y-%m-%d %H:%M} UTC"
                trouble = f"the certificate of {kept.whose}, which ends on {until}, is not renewed: {trouble}"
                found.failed = True
            elif kept.carried:
                trouble = ending(kept.whose, kept.until, self._now(), CARRIED_ADVICE)
            if trouble:
                found.warnings[identity] = _Warning(trouble, kept.flow)
        try:
            found.warnings |= await asyncio.to_thread(self._carried)
        except (PratipadError, OSError) as error:
            found.warnings[_CARRIED] = _Warning(f"certificates that were carried away can't be read: {error}")
            found.failed = True
        self._found = found
        self._tell()

    async def _renew(self, identity: str, kept: _Kept) -> str:
        """Renew a certificate if need be; return what hinders that, empty if nothing does."""
        try:
            credentials = await asyncio.to_thread(kept.ensure)
            if credentials is None:
                self.drop(identity)
                return ""
            shown = credentials.certificate.read_bytes()
            if shown != kept.shown:
                await kept.renewed(credentials)
                kept.shown, kept.until = shown, valid_until(credentials.certificate)
                log.info("the certificate of %s was renewed; it is valid until %s", kept.whose, kept.until)
                return ""
            due = not kept.carried and await asyncio.to_thread(self._store.authority.is_due, credentials)
        except (PratipadError, OSError) as error:
            return str(error)
        return "no new certificate can be written. The log says why." if due else ""

    def _carried(self) -> dict[str, _Warning]:
        """Return the warnings of certificates that were carried away, by identity, and of the authority."""
        now = self._now()
        found: dict[str, _Warning] = {}
        stored = {each: until for each, until in self._store.stored_until().items() if each not in self._kept}
        for identity, until in (stored | self._store.carried_until()).items():
            party = Party.parse(identity)
            if party is not None and (text := party_ending(party.key, party.role, party.name, until, now)):
                found[f"carried {identity}"] = _Warning(text, party.key)
        with contextlib.suppress(CertificateError):
            end = valid_until(self._store.authority.certificate)
            if end - now < timedelta(days=_AUTHORITY_DAYS):
                text = (
                    f"the authority ends on {end:%Y-%m-%d}, and all certificates with it. Make a new one: "
                    "pratipad certs rotate"
                )
                found[_AUTHORITY] = _Warning(text)
        finish_by = self._store.authority.finish_by
        if finish_by is not None and finish_by < now:
            found[_CHANGE] = _Warning(_unfinished(finish_by, self._store.left_behind()))
        return found

    def _tell(self) -> None:
        """Log the warnings, the same one once a day; the clock may have gone back since."""
        now = self._now()
        for key, warning in self._found.warnings.items():
            if key not in self._told or not timedelta(0) <= now - self._told[key] < _TOLD_AGAIN:
                log.warning("%s", warning.text)
                self._told[key] = now
        self._told = {key: told for key, told in self._told.items() if key in self._found.warnings}


def _unfinished(finish_by: datetime, left: list[str]) -> str:
    begin = f"the change of the authority was to be finished by {finish_by:%Y-%m-%d}, and "
    end = "pratipad certs rotate --finish"
    if not left:
        return f"{begin}isn't, though all certificates are of the new authority. Finish it: {end}"
    named = ", ".join(left[:_NAMED]) + (", …" if len(left) > _NAMED else "")
    return (
        f"{begin}certificates that were carried away are still of the former authority: {named}. Renew them "
        f"(pratipad certs renew), then finish: {end}"
    )
