"""The authority: made once in a folder, and signing what the parties of a flow show each other.

Owns the authority's two files and the policy of validity and renewal. What a certificate holds belongs to
`pratipad_nb.pki.certificates`, which folder is whose to `pratipad_nb.pki.store`.
"""

from __future__ import annotations

import secrets
from datetime import UTC, datetime
from pathlib import Path

from pratipad_nb.errors import CertificateError
from pratipad_nb.files import FileLock, private_folder, write_whole
from pratipad_nb.pki.certificates import (
    Pair,
    Profile,
    made_authority,
    made_leaf,
    profile_of,
    read_pair,
)
from pratipad_nb.settings import Credentials

__all__ = ["AUTHORITY_DAYS", "CLIENT_DAYS", "RENEWAL_SHARE", "SERVER_DAYS", "Authority"]

#: Ten years: it never leaves its folder, and its end makes every invitation void at once.
AUTHORITY_DAYS = 3650.0
#: A month, for what this computer shows itself: every start renews it without anybody noticing.
SERVER_DAYS = 30.0
#: A year and a month (the longest that web authorities have issued), for what was carried to a device by hand.
CLIENT_DAYS = 397.0
#: `Authority.ensure` renews what has less than this share of its life left.
RENEWAL_SHARE = 1 / 3

#: Another process makes the authority, or a certificate, in milliseconds; one that takes longer is stuck.
_LOCK_SECONDS = 10.0


class Authority:
    """An opened authority; `Authority.open` makes one."""

    def __init__(self, folder: Path, pair: Pair) -> None:
        self._folder = folder
        self._pair = pair

    @classmethod
    def open(cls, folder: Path) -> Authority:
        """Open the authority in `folder`, and make it first if there is none; two processes may do so at once.

        Raises
        ------
        CertificateError
            If its files can't be read or written, don't belong together, or it has expired.
        """
        try:
            private_folder(folder)
            with FileLock(folder / "lock").held(_LOCK_SECONDS):
                return cls(folder, _opened(folder))
        except TimeoutError as error:
            raise CertificateError(
                f"the authority in {folder} can't be opened: {error}. End that process and try again."
            ) from error
        except OSError as error:
            raise CertificateError(
                f"the authority in {folder} can't be made: {error.strerror}. Choose a folder that can be written to "
                "(PRATIPAD_HOME moves it)."
            ) from error

    @classmethod
    def take(cls, folder: Path, pair: Pair) -> Authority:
        """Make `folder` that of an authority of the user's own, as `read_authority` has read it.

        Raises
        ------
        CertificateError
            If `folder` holds one already, or can't be written to.
        """
        if (folder / "ca.pem").exists():
            raise CertificateError(
                f"{folder} holds an authority already. Changing it makes every certificate void: move the folder "
                f"{folder.parent} away first, and issue new ones afterwards."
            )
        try:
            private_folder(folder)
            _write(folder, pair)
        except OSError as error:
            raise CertificateError(
                f"the authority can't be written to {folder}: {error.strerror}. Choose a folder that can be written to."
            ) from error
        return cls(folder, pair)

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
        """Make a certificate with a new key and write it into `folder`: ``ca.pem``, ``cert.pem`` and ``key.pem``.

        Parameters
        ----------
        identity
            Whose it is: an ASCII URI. It stands in the certificate's alternative names, and, cut to 64
            characters, in its common name.
        folder
            Made with mode 0700 unless it is there; the key has mode 0600.
        hosts
            Host names and IP addresses under which a server is reached.
        server
            Whether it is a server's certificate or, by default, a client's: never both.
        days
            Validity from now on; by default `SERVER_DAYS` or `CLIENT_DAYS`. It starts a day back, for clocks that
            lag, and never outlasts the authority.

        Raises
        ------
        CertificateError
            If `identity` or a host can't stand in a certificate, or the folder can't be written to.
        """
        if days is None:
            days = SERVER_DAYS if server else CLIENT_DAYS
        leaf = made_leaf(self._pair, Profile(identity, hosts, server), days)
        try:
            private_folder(folder)
            write_whole(folder / "key.pem", leaf.key_pem())
            write_whole(folder / "cert.pem", leaf.certificate_pem(), 0o644)
            write_whole(folder / "ca.pem", self._pair.certificate_pem(), 0o644)
        except OSError as error:
            raise CertificateError(
                f"the certificate of {identity} can't be written to {folder}: {error.strerror}. "
                "Choose a folder that can be written to."
            ) from error
        return _credentials(folder)

    def ensure(
        self,
        identity: str,
        folder: Path,
        *,
        hosts: tuple[str, ...] = (),
        server: bool = False,
        days: float | None = None,
    ) -> Credentials:
        """Return the certificate in `folder` if it is still good, and otherwise issue one, as `issue` does.

        Good means: signed by this authority, for the same identity, hosts and side, with its key, and with at least
        `RENEWAL_SHARE` of its life left.

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
                return self.issue(identity, folder, hosts=hosts, server=server, days=days)
        except TimeoutError as error:
            raise CertificateError(
                f"no certificate can be issued: {error}. End that process and try again."
            ) from error

    def _is_good(self, credentials: Credentials, wanted: Profile) -> bool:
        try:
            leaf = read_pair(credentials.certificate, credentials.key)
            authority = credentials.authority.read_bytes()
        except (CertificateError, OSError):
            return False
        begin, end = leaf.certificate.not_valid_before_utc, leaf.certificate.not_valid_after_utc
        now = datetime.now(UTC)
        return (
            leaf.signed_by(self._pair)
            and authority == self._pair.certificate_pem()
            and profile_of(leaf.certificate) == wanted
            and begin <= now
            and (end - now) > (end - begin) * RENEWAL_SHARE
        )


def _opened(folder: Path) -> Pair:
    certificate, key = folder / "ca.pem", folder / "ca-key.pem"
    # The key is written first, so one without a certificate is what a crash left of an authority never used.
    if not certificate.exists():
        # Of a name of its own, so that another authority's certificates are told from forged ones.
        made = made_authority(f"Pratipad-NB authority {secrets.token_hex(4)}", AUTHORITY_DAYS)
        _write(folder, made)
        return made
    anew = (
        f"Put the files of {folder} back from a copy, or delete that folder: a new authority is made then, and every "
        "device and reader needs a new invitation."
    )
    try:
        pair = read_pair(certificate, key)
    except CertificateError as error:
        raise CertificateError(f"the authority is damaged: {error} {anew}") from error
    if not pair.valid_at(datetime.now(UTC)):
        begin, end = pair.certificate.not_valid_before_utc, pair.certificate.not_valid_after_utc
        raise CertificateError(
            f"the authority {certificate} is valid from {begin:%Y-%m-%d} to {end:%Y-%m-%d}, and today is "
            f"{datetime.now(UTC):%Y-%m-%d}. If this computer's clock is right, it is over. {anew}"
        )
    return pair


def _write(folder: Path, pair: Pair) -> None:
    write_whole(folder / "ca-key.pem", pair.key_pem())
    write_whole(folder / "ca.pem", pair.certificate_pem(), 0o644)


def _credentials(folder: Path) -> Credentials:
    return Credentials(folder / "ca.pem", folder / "cert.pem", folder / "key.pem")
