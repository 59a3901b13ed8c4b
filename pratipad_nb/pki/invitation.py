"""The invitation: a folder that lets one party in, to be carried to the party's machine.

::

    room1-certs/       0700
    ├── pratipad.json  the party, its flow, and where the server is reached
    ├── key.pem        0600
    ├── cert.pem
    └── ca.pem

Owns ``pratipad.json``, and the rule that a folder is written anew for its own party alone. Making the
certificate is for `pratipad_nb.pki.store`.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import re
import stat
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from pratipad_nb.errors import SettingsError
from pratipad_nb.files import write_together, write_whole
from pratipad_nb.settings import Credentials

__all__ = ["INVITATION", "Invitation", "invitation_in", "made_folder"]

#: The file of a certificate folder that names its party, flow and server.
INVITATION = "pratipad.json"

_CERTIFICATE = re.compile(rb"-----BEGIN CERTIFICATE-----(.+?)-----END CERTIFICATE-----", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Invitation:
    """The party that a certificate folder lets in, its flow and its server (empty: not known).

    A leaf's flows stand in `flow` with commas between, and its `server` is the listener for leaves; the
    folder has a folder of certificates for each of its flows. A tenant's flow is called ``TENANT/NAME``,
    and a reader of another tenant ``NAME@TENANT``.
    """

    role: str
    name: str
    flow: str
    server: str = ""

    def claim(self, folder: Path, authority: Path) -> None:
        """Make `folder` the folder of this invitation, before a certificate of `authority` is written there.

        Raises
        ------
        SettingsError
            If `folder` is a symbolic link or no folder, holds anything else than this party's certificate by
            the same authority, or can't be written to.
        """
        with _reported(folder):
            if not made_folder(folder) and any(folder.iterdir()):
                self._check_own(folder, authority)
            else:
                self.write(folder)

    def fill(self, folder: Path, credentials: Credentials) -> Credentials:
        """Copy `credentials` into `folder`, claimed for this invitation, and return the copy.

        The files are written together: an error leaves the folder's former files as they were.

        Raises
        ------
        SettingsError
            As `claim`.
        """
        self.claim(folder, credentials.authority)
        copy = Credentials(folder / "ca.pem", folder / "cert.pem", folder / "key.pem")
        with _reported(folder):
            write_together(
                {
                    copy.key: (credentials.key.read_bytes(), 0o600),
                    copy.certificate: (credentials.certificate.read_bytes(), 0o644),
                    copy.authority: (credentials.authority.read_bytes(), 0o644),
                    folder / INVITATION: (self._text, 0o644),
                }
            )
        return copy

    def write(self, folder: Path) -> None:
        """Write ``pratipad.json`` alone into `folder`."""
        write_whole(folder / INVITATION, self._text, 0o644)

    @property
    def _text(self) -> bytes:
        return (json.dumps(asdict(self), indent=2) + "\n").encode()

    def _check_own(self, folder: Path, authority: Path) -> None:
        """Raise unless `folder`, which is not empty, holds this party's certificate by the same authority."""
        wanted = f"the certificate of the {self.role} {self.name!r} of {self.flow!r}"
        anew = "Name another folder (on the command line: --out DIR), or delete that folder first."
        issued = None if (folder / INVITATION).is_symlink() else invitation_in(folder)
        if issued is None:
            raise SettingsError(
                f"{folder} is not overwritten by {wanted}: it is not empty, and has no file {INVITATION} of "
                f"such a certificate. {anew}"
            )
        if self._party(issued) != self._party(self):
            raise SettingsError(
                f"{folder} is not overwritten by {wanted}: it lets the {issued.role} {issued.name!r} of "
                f"{issued.flow!r} in. {anew}"
            )
        theirs = folder / "ca.pem"
        if theirs.exists() and not _certificates(theirs) & _certificates(authority):
            raise SettingsError(
                f"{folder} is not overwritten by {wanted}: it was issued by another authority, of another "
                f"state folder. {anew}"
            )

    @staticmethod
    def _party(invitation: Invitation) -> Invitation:
        """Return `invitation` without what may differ from one issue to the next."""
        # Which flows a leaf passes on is no part of the leaf's identity.
        flow = "" if invitation.role == "leaf" else invitation.flow
        return dataclasses.replace(invitation, server="", flow=flow)


def invitation_in(folder: Path) -> Invitation | None:
    """Return the invitation in a certificate folder, None if there is none."""
    path = folder.expanduser() / INVITATION
    try:
        return Invitation(**json.loads(path.read_bytes()))
    except FileNotFoundError:
        return None
    except (OSError, ValueError, TypeError) as error:
        raise SettingsError(
            f"{path} can't be read: {error}. Issue the folder again, or delete that file and pass --server "
            "and --flow."
        ) from error


def made_folder(folder: Path) -> bool:
    """Make `folder`, open to its owner alone; return False if `folder` was there. Follows no link.

    Raises
    ------
    SettingsError
        If `folder` is a symbolic link or no folder.
    """
    try:
        mode = os.lstat(folder).st_mode
    except FileNotFoundError:
        folder.parent.mkdir(parents=True, exist_ok=True)
        folder.mkdir(mode=0o700)
        return True
    if stat.S_ISLNK(mode):
        raise SettingsError(
            f"no certificate is written to {folder}: it is a symbolic link, whose target another may choose. "
            f"Name the folder itself: {os.path.realpath(folder)}"
        )
    if not stat.S_ISDIR(mode):
        raise SettingsError(f"no certificate can be written to {folder}: it is no folder. Name another.")
    return False


def _certificates(path: Path) -> set[bytes]:
    """Return the certificates in a PEM file. While an authority changes, there are two."""
    return {b"".join(found.split()) for found in _CERTIFICATE.findall(path.read_bytes())}


@contextlib.contextmanager
def _reported(folder: Path) -> Iterator[None]:
    """Raise an error of the operating system as one that names the next step."""
    try:
        yield
    except OSError as error:
        raise SettingsError(
            f"the certificate can't be written to {folder}: {error.strerror}. Name a folder that can be."
        ) from error
