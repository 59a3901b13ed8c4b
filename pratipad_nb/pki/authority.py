"""The authority: made once in a folder, it signs the certificates that the parties of a flow show each other.

Owns the policy of validity and renewal. The contents of a certificate belong to
`pratipad_nb.pki.certificates`, the authority's own files and its change to `pratipad_nb.pki.signers`, the
layout of folders to `pratipad_nb.pki.store`.
"""

from __future__ import annotations

import contextlib
import logging
import secrets
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from pratipad_nb.errors import CertificateError
from pratipad_nb.files import FileLock, guarded_folder, private_folder, write_together
from pratipad_nb.pki.certificates import (
    Pair,
    Profile,
    made_authority,
    made_leaf,
    profile_of,
    read_certificate,
    read_pair,
    requested_key,
    signed_by,
    signed_leaf,
)
from pratipad_nb.pki.requests import Answer, vouched
from pratipad_nb.pki.signers import (
    Signers,
    begin_change,
    finish_change,
    read_signers,
    stamp_of,
    write_first,
)
from pratipad_nb.settings import Credentials

__all__ = [
    "AUTHORITY_DAYS",
    "CHANGE_DAYS",
    "CLIENT_DAYS",
    "RENEWAL_FRACTION",
    "SERVER_DAYS",
    "Authority",
]

log = logging.getLogger(__name__)

#: Ten years: an authority never leaves its folder, and its end makes every invitation void at once.
AUTHORITY_DAYS = 3650.0
#: A month, for a server's certificate: every start, and the running program, renews it without a word.
SERVER_DAYS = 30.0
#: A year and a month (the longest that web authorities have issued), for a certificate carried by hand.
CLIENT_DAYS = 397.0
#: A month, in which all carried certificates are to be renewed, from the begin of an authority's change on.
CHANGE_DAYS = 30.0
#: `Authority.ensure` renews a certificate that has less than this fraction of its life left. Of a server's
#: certificate, that is before the 14 days begin in which a certificate that is not renewed is warned of.
RENEWAL_FRACTION = 1 / 2

#: Another process makes the authority, or a certificate, in milliseconds; a slower process is stuck.
_LOCK_SECONDS = 10.0


class Authority:
    """An opened authority; made by `Authority.open`. Another process may change it meanwhile."""

    def __init__(self, folder: Path, signers: Signers) -> None:
        self._folder = folder
        self._stamp = stamp_of(folder)
        self._known = signers

    @classmethod
    def open(cls, folder: Path) -> Authority:
        """Return the authority in `folder`, made first if there is none. Two processes may call this at once.

        Raises
        ------
        CertificateError
            If the authority's files can't be read or written or don't belong together, or the authority has
            expired.
        """
        try:
            guarded_folder(folder)
            with FileLock(folder / "lock").held(_LOCK_SECONDS):
                return cls(folder, _opened(folder))
        except TimeoutError as error:
            raise CertificateError(
                f"the authority in {folder} can't be opened: {error}. End that process and try again."
            ) from error
        except OSError as error:
            raise CertificateError(
                f"the authority in {folder} can't be made: {error.strerror}. Choose a folder that can be "
                "written to (PRATIPAD_HOME moves it)."
            ) from error

    @classmethod
    def take(cls, folder: Path, pair: Pair) -> Authority:
        """Write `pair`, an authority of the user's own that `read_authority` has read, into `folder`.

        Raises
        ------
        CertificateError
            If `folder` holds an authority already, or can't be written to.
        """
        if (folder / "ca.pem").exists():
            raise CertificateError(
                f"{folder} holds an authority already. Changing it makes every certificate void: move the "
                f"folder {folder.parent} away first, and issue new ones afterwards."
            )
        try:
            guarded_folder(folder)
            write_first(folder, pair)
            return cls(folder, Signers(pair))
        except OSError as error:
            raise CertificateError(
                f"the authority can't be written to {folder}: {error.strerror}. Choose a folder that can be "
                "written to."
            ) from error

    def begin_change(self, new: Pair | None = None, days: float | None = None) -> datetime:
        """Begin the change to a new authority, and return by when the change is to be finished.

        Both authorities are trusted until `finish_change`. Meanwhile every client's certificate is to be
        renewed.

        Parameters
        ----------
        new
            The new authority, as `read_authority` has read it; None: one is made.
        days
            Days until the change is to be finished; by default `CHANGE_DAYS`.

        Raises
        ------
        CertificateError
            If a change is under way, or the files can't be written.
        """
        until = datetime.now(UTC) + timedelta(days=CHANGE_DAYS if days is None else days)
        with self._changing():
            made = new or made_authority(_name(), AUTHORITY_DAYS)
            self._known = begin_change(self._folder, self._signers(), made, until)
        return until

    def finish_change(self) -> None:
        """Finish the change: the former authority, and all that it has signed, is trusted no longer.

        Raises
        ------
        CertificateError
            If no change is under way, or the files can't be written.
        """
        with self._changing():
            self._known = finish_change(self._folder, self._signers())

    @property
    def stamp(self) -> tuple[int, int]:
        """A value that differs once the authority has changed; (0, 0) while its files are away."""
        try:
            return stamp_of(self._folder)
        except OSError:
            return 0, 0

    @property
    def finish_by(self) -> datetime | None:
        """By when the change that is under way is to be finished; None if there is no change."""
        return self._signers().until

    def has_signed(self, certificate: Path) -> bool:
        """Return whether the present authority signed the certificate in a file.

        Raises
        ------
        CertificateError
            If the file holds no certificate.
        """
        return signed_by(read_certificate(certificate), self._signers().present.certificate)

    @contextlib.contextmanager
    def _changing(self) -> Iterator[None]:
        try:
            with FileLock(self._folder / "lock").held(_LOCK_SECONDS):
                yield
        except TimeoutError as error:
            raise CertificateError(
                f"the authority in {self._folder} can't be changed: {error}. End that process and try again."
            ) from error
        except OSError as error:
            raise CertificateError(
                f"the authority in {self._folder} can't be changed: {error.strerror}. Make the folder "
                "writable, and try again."
            ) from error

    def _signers(self) -> Signers:
        """Return the pairs as they are now: another process may have changed the authority."""
        stamp = stamp_of(self._folder)
        if stamp != self._stamp:
            self._known, self._stamp = read_signers(self._folder), stamp
        return self._known

    @property
    def certificate(self) -> Path:
        """The file of the authority's certificate, which every party gets."""
        return self._folder / "ca.pem"

    def issue(
        self,
        identity: str,
        folder: Path,
        *,
        hosts: tuple[str, ...] = (),
        server: bool = False,
        days: float | None = None,
    ) -> Credentials:
        """Write a certificate with a new key into `folder`, as ``ca.pem``, ``cert.pem`` and ``key.pem``.

        Parameters
        ----------
        identity
            The identity of the certificate's holder: an ASCII URI. It stands in the certificate's alternative
            names, and, cut to 64 characters, in its common name.
        folder
            The folder is made with mode 0700 unless it exists; the key has mode 0600.
        hosts
            Host names and IP addresses under which a server is reached.
        server
            Whether the certificate is a server's or, by default, a client's: never both.
        days
            Validity from now on; by default `SERVER_DAYS` or `CLIENT_DAYS`. The validity starts a day back,
            for clocks that lag, and never outlasts the authority.

        Raises
        ------
        CertificateError
            If `identity` or a host can't stand in a certificate, or the folder can't be written to.
        """
        if days is None:
            days = SERVER_DAYS if server else CLIENT_DAYS
        try:
            signers = self._signers()
            leaf = made_leaf(signers.of(server=server), Profile(identity, hosts, server), days)
            private_folder(folder)
            # Together: a new key without its certificate would make the old, valid certificate useless.
            write_together(
                {
                    folder / "key.pem": (leaf.key_pem(), 0o600),
                    folder / "cert.pem": (leaf.certificate_pem(), 0o644),
                    folder / "ca.pem": (signers.trusted, 0o644),
                }
            )
        except OSError as error:
            raise CertificateError(
                f"the certificate of {identity} can't be written to {folder}: {error.strerror}. "
                "Choose a folder that can be written to."
            ) from error
        return _credentials(folder)

    def answer(self, request: bytes, identity: str, days: float | None = None) -> Answer:
        """Return a certificate of `identity` for the key of a holder's request.

        The caller knows that `identity` asks.

        Raises
        ------
        CertificateError
            If `request` is none.
        """
        key, signers = requested_key(request), self._signers()
        days = CLIENT_DAYS if days is None else days
        leaf = signed_leaf(signers.present, Profile(identity), days, key)
        voucher = vouched(signers.former, signers.present) if signers.former is not None else b""
        return Answer(leaf.public_bytes(Encoding.PEM), signers.trusted, voucher)

    def ensure(
        self,
        identity: str,
        folder: Path,
        *,
        hosts: tuple[str, ...] = (),
        server: bool = False,
        days: float | None = None,
    ) -> Credentials:
        """Return the certificate in `folder` if it is still good, and otherwise issue a new one by `issue`.

        Good means: signed by this authority, for the same identity, hosts and side, with its key, and with at
        least `RENEWAL_FRACTION` of its life left. A certificate that has less left, but is valid, is returned
        as well if no new certificate can be written, with a warning: a full disk ends no flow.

        Raises
        ------
        CertificateError
            As `issue`.
        """
        wanted = Profile(identity, tuple(sorted(hosts)), server)
        try:
            with FileLock(self._folder / "lock").held(_LOCK_SECONDS):
                if self._is_good(_credentials(folder), wanted):
                    return _credentials(folder)
                try:
                    return self.issue(identity, folder, hosts=hosts, server=server, days=days)
                except CertificateError as error:
                    if not self._is_good(_credentials(folder), wanted, left=0.0):
                        raise
                    log.warning("%s The certificate that is there is valid for now.", error)
                    return _credentials(folder)
        except TimeoutError as error:
            raise CertificateError(
                f"no certificate can be issued: {error}. End that process and try again."
            ) from error
        except OSError as error:
            raise CertificateError(
                f"no certificate can be issued: {self._folder / 'lock'}: {error.strerror}. Make it "
                "writable, or choose another state folder (PRATIPAD_HOME)."
            ) from error

    def is_due(self, credentials: Credentials) -> bool:
        """Return whether the certificate has less than `RENEWAL_FRACTION` of its life left.

        Raises
        ------
        CertificateError
            If the files can't be read.
        """
        leaf = read_pair(credentials.certificate, credentials.key).certificate
        return not _has_left(leaf, RENEWAL_FRACTION)

    def _is_good(self, credentials: Credentials, wanted: Profile, left: float = RENEWAL_FRACTION) -> bool:
        try:
            leaf = read_pair(credentials.certificate, credentials.key)
            authority = credentials.authority.read_bytes()
        except (CertificateError, OSError):
            return False
        signers = self._signers()
        return (
            signed_by(leaf.certificate, signers.of(server=wanted.server).certificate)
            and authority == signers.trusted
            and profile_of(leaf.certificate) == wanted
            and _has_left(leaf.certificate, left)
        )


def _has_left(certificate: x509.Certificate, fraction: float) -> bool:
    """Return whether the certificate is valid, and has more than `fraction` of its life left."""
    begin, end = certificate.not_valid_before_utc, certificate.not_valid_after_utc
    now = datetime.now(UTC)
    return begin <= now and (end - now) > (end - begin) * fraction


def _name() -> str:
    # A name of its own tells another authority's certificates from forged ones.
    return f"Pratipad-NB authority {secrets.token_hex(4)}"


def _opened(folder: Path) -> Signers:
    certificate = folder / "ca.pem"
    # The key is written first, so a key without a certificate is left by a crash, of an authority never used.
    if not certificate.exists():
        made = made_authority(_name(), AUTHORITY_DAYS)
        write_first(folder, made)
        return Signers(made)
    anew = (
        f"Put the files of {folder} back from a copy, or delete that folder: a new authority is made then, "
        "and every device and reader needs a new invitation."
    )
    try:
        signers = read_signers(folder)
    except CertificateError as error:
        raise CertificateError(f"the authority is damaged: {error} {anew}") from error
    pair = signers.present
    if not pair.valid_at(datetime.now(UTC)):
        begin, end = pair.certificate.not_valid_before_utc, pair.certificate.not_valid_after_utc
        raise CertificateError(
            f"the authority {certificate} is valid from {begin:%Y-%m-%d} to {end:%Y-%m-%d}, and today is "
            f"{datetime.now(UTC):%Y-%m-%d}. If this computer's clock is right, it is over. {anew}"
        )
    return signers


def _credentials(folder: Path) -> Credentials:
    return Credentials(folder / "ca.pem", folder / "cert.pem", folder / "key.pem")
