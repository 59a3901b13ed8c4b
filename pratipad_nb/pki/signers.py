"""The pairs that an authority signs with: one, and two while the authority is changed to a new one.

Owns the authority's files, and the two steps of a change. In the first step a new pair is made, and both are
trusted: every certificate folder that is written from then on has both authorities' certificates. Clients'
certificates are signed by the new pair. Servers' are signed by the former pair until the second step, for
clients that don't know the new authority yet go on to trust the server. In the second step the former pair
is deleted.

::

    ca.pem, ca-key.pem       the present pair; during a change, ca.pem has the former certificate below
    former/                  during a change: ca.pem, ca-key.pem, and until, the day to finish by
"""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from pratipad_nb.errors import CertificateError
from pratipad_nb.files import private_folder, write_together, write_whole
from pratipad_nb.pki.certificates import Pair, read_pair

__all__ = ["Signers", "begin_change", "finish_change", "read_signers", "stamp_of", "write_first"]

_CERTIFICATE, _KEY, _FORMER, _UNTIL = "ca.pem", "ca-key.pem", "former", "until"


@dataclass(frozen=True, slots=True)
class Signers:
    """The pairs of an authority.

    Attributes
    ----------
    present
        The pair that signs clients' certificates.
    former
        The pair that signs servers' certificates during a change; None while there is no change.
    until
        By when the change is to be finished.
    """

    present: Pair
    former: Pair | None = None
    until: datetime | None = None

    @property
    def trusted(self) -> bytes:
        """The certificates of all pairs, as PEM: the ``ca.pem`` of every party."""
        return self.present.certificate_pem() + (self.former.certificate_pem() if self.former else b"")

    def of(self, *, server: bool) -> Pair:
        """Return the pair that signs a server's, or a client's, certificates."""
        return self.former if server and self.former is not None else self.present


def read_signers(folder: Path) -> Signers:
    """Read the pairs in `folder`; what a crash has left of a change's first step is put back.

    Raises
    ------
    CertificateError
        If the files can't be read or don't belong together.
    OSError
        If the files of a step that was broken off can't be put back.
    """
    former = _former(folder)
    try:
        present = read_pair(folder / _CERTIFICATE, folder / _KEY)
    except CertificateError:
        if former is None or not _is_first(folder / _CERTIFICATE, former):
            raise
        write_first(folder, former)  # the new key was written, and its certificate was not
        return Signers(former)
    if former is None or former.certificate == present.certificate:
        return Signers(present)
    return Signers(present, former, _until(folder))


def stamp_of(folder: Path) -> tuple[int, int]:
    """Return a value that differs once the pairs in `folder` have changed."""
    found = (folder / _CERTIFICATE).stat()
    return found.st_mtime_ns, found.st_ino


def write_first(folder: Path, pair: Pair) -> None:
    """Write `pair` as the only pair."""
    _write(folder, Signers(pair))


def begin_change(folder: Path, signers: Signers, new: Pair, until: datetime) -> Signers:
    """Do the first step of the change to the pair `new`.

    Raises
    ------
    CertificateError
        If a change is under way already.
    """
    if signers.former is not None:
        raise CertificateError(
            f"the authority in {folder} is being changed already, and both are trusted. Finish that change "
            "first: pratipad certs rotate --finish"
        )
    aside = private_folder(folder / _FORMER)
    write_together(
        {
            aside / _KEY: (signers.present.key_pem(), 0o600),
            aside / _UNTIL: (until.isoformat().encode(), 0o644),
            aside / _CERTIFICATE: (signers.present.certificate_pem(), 0o644),
        }
    )
    changed = Signers(new, signers.present, until)
    _write(folder, changed)
    return changed


def finish_change(folder: Path, signers: Signers) -> Signers:
    """Do the second step of a change: delete the former pair.

    Raises
    ------
    CertificateError
        If no change is under way.
    """
    if signers.former is None:
        raise CertificateError(
            f"the authority in {folder} isn't being changed. Begin a change: pratipad certs rotate"
        )
    # The key first: a broken off deletion leaves no former authority that could sign.
    (folder / _FORMER / _KEY).unlink(missing_ok=True)
    shutil.rmtree(folder / _FORMER, ignore_errors=True)
    write_whole(folder / _CERTIFICATE, signers.present.certificate_pem(), 0o644)
    return Signers(signers.present)


def _write(folder: Path, signers: Signers) -> None:
    write_together(
        {folder / _KEY: (signers.present.key_pem(), 0o600), folder / _CERTIFICATE: (signers.trusted, 0o644)}
    )


def _former(folder: Path) -> Pair | None:
    if not (folder / _FORMER / _KEY).exists():
        return None
    return read_pair(folder / _FORMER / _CERTIFICATE, folder / _FORMER / _KEY)


def _is_first(certificate: Path, pair: Pair) -> bool:
    try:
        return certificate.read_bytes().startswith(pair.certificate_pem())
    except OSError:
        return False


def _until(folder: Path) -> datetime | None:
    try:
        return datetime.fromisoformat((folder / _FORMER / _UNTIL).read_text()).astimezone(UTC)
    except (OSError, ValueError):
        return None
