"""The store of certificates: the folder of each party's files.

::

    pki/                          0700
    ├── authority/                ca.pem, ca-key.pem
    ├── server/, listener/        ca.pem, cert.pem, key.pem, as in the folders below
    ├── owner/                    the server's owner, a user of its system account
    ├── edge/FLOW/
    ├── device/FLOW/NAME/
    ├── reader/FLOW/NAME/
    ├── carried/edge/FLOW/DIR/    cert.pem alone: a copy of the certificate that was issued into DIR
    ├── carried/leaf/FLOW/SITE/DIR/
    └── carried/device/FLOW/NAME/DIR/, carried/reader/FLOW/NAME/DIR/

Owns that layout. The form of an identity, and of a FLOW (``house``, or of a tenant
``acme/house``, whose folder is ``acme~house``), belongs to `pratipad_nb.transport.parties`.
"""

from __future__ import annotations

import contextlib
import shutil
import time
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from pratipad_nb.errors import CertificateError
from pratipad_nb.files import guarded_folder, private_folder, write_whole
from pratipad_nb.settings import Credentials, file_key, party_name, valid_name
from pratipad_nb.validity import valid_until

if TYPE_CHECKING:
    from pratipad_nb.pki.authority import Authority
    from pratipad_nb.pki.requests import Answer

__all__ = ["ASK_AGAIN_SECONDS", "LOOPBACK_HOSTS", "CertificateStore", "forget_party"]

#: A party that asks over the wire gets one certificate in so many seconds: each is an entry at the server.
ASK_AGAIN_SECONDS = 3600.0
#: Begins the names of the folders that note what was answered over the wire.
_ASKED = "asked-"
#: The names under which a server that listens on this computer alone is reached.
LOOPBACK_HOSTS = ("127.0.0.1", "::1", "localhost")


class CertificateStore:
    """The certificates of one state folder; made by `CertificateStore.open`."""

    def __init__(self, folder: Path, authority: Authority) -> None:
        self._folder = folder
        self._authority = authority

    @classmethod
    def open(cls, state: Path) -> CertificateStore:
        """Return the store below the folder `state`; store and authority are made first if there are none.

        Raises
        ------
        CertificateError
            If the authority can't be opened or made, or `cryptography` isn't installed.
        SettingsError
            If others may write to the folder.
        """
        try:
            # Imported late: `cryptography` takes longer to import than all else in a session that brings its
            # own server.
            from pratipad_nb.pki.authority import Authority
        except ModuleNotFoundError as error:
            raise CertificateError(
                f"certificates can't be made without {error.name}. Install it: pip install "
                "'pratipad-nb[edge]'."
            ) from error
        folder = state / "pki"
        try:
            guarded_folder(state)
            guarded_folder(folder)
        except OSError as error:
            raise CertificateError(
                f"{folder} can't be made: {error.strerror}. Choose a state folder that can be written to "
                "(PRATIPAD_HOME moves it)."
            ) from error
        return cls(folder, Authority.open(folder / "authority"))

    @property
    def authority(self) -> Authority:
        """The authority that signs this store's certificates."""
        return self._authority

    def server(self, identity: str, hosts: tuple[str, ...] = LOOPBACK_HOSTS) -> Credentials:
        """Return the server's credentials, renewed if need be; valid for 30 days."""
        return self._authority.ensure(identity, self._folder / "server", hosts=hosts, server=True)

    def owner(self, identity: str) -> Credentials:
        """Return the credentials of the server's owner, renewed if need be; valid for 30 days."""
        from pratipad_nb.pki.authority import SERVER_DAYS

        return self._authority.ensure(identity, self._folder / "owner", days=SERVER_DAYS)

    def edge(self, flow: str, identity: str) -> Credentials:
        """Return the credentials of the edge of `flow`, renewed if need be; valid for 30 days."""
        from pratipad_nb.pki.authority import SERVER_DAYS

        return self._authority.ensure(identity, self._of("edge", flow), days=SERVER_DAYS)

    def device(self, flow: str, name: str, identity: str) -> Credentials:
        """Return the credentials of the device `name` of `flow`, renewed if need be; valid for 397 days."""
        return self._authority.ensure(identity, self._of("device", flow) / valid_name(name, "device"))

    def reader(self, flow: str, name: str, identity: str) -> Credentials:
        """Return the credentials of the reader `name` of `flow`, renewed if need be; valid for 397 days."""
        return self._authority.ensure(identity, self._of("reader", flow) / party_name(name, "reader"))

    def renew(self, role: str, flow: str, name: str, identity: str) -> Credentials:
        """Return credentials of a device or a reader with a new key, whatever the present ones are."""
        return self._authority.issue(identity, self._of(role, flow) / party_name(name, role))

    def note_carried(self, role: str, flow: str, name: str, issued: Path) -> None:
        """Keep a copy of the certificate in `issued`, a folder to be carried away, to know when it ends.

        Parameters
        ----------
        role, flow, name
            The party; an edge has no name.
        issued
            The folder.
        """
        certificate = issued / "cert.pem"
        folder = self._folder
        for part in ("carried", role, _folder_name(flow), *([name] if name else []), issued.resolve().name):
            folder = private_folder(folder / part)
        write_whole(folder / certificate.name, certificate.read_bytes(), 0o644)

    def stored_until(self) -> dict[str, datetime]:
        """Return when the certificates of devices and readers in this store end, by the holders' identities.

        Certificates of this computer's server and edges aren't among them: a start renews them.
        """
        return _ends(self._certificates("device", "reader"))

    def carried_until(self) -> dict[str, datetime]:
        """Return when the newest certificate ends that was carried away, by the holders' identities."""
        return _ends(self._certificates("carried"))

    def answered(
        self, role: str, flow: str, name: str, identity: str, request: bytes
    ) -> tuple[Answer, list[str]]:
        """Answer a party's request for a new certificate, and note the certificate as carried away.

        Return also the serial numbers of those that the party got this way before the last one: a party keeps
        two, so that the server's list doesn't grow.

        Raises
        ------
        CertificateError
            If `request` is none, or the last request was answered less than `ASK_AGAIN_SECONDS` ago.
        """
        from pratipad_nb.pki.certificates import read_pem, serial_of

        folder = self._folder / "carried" / role / _folder_name(flow) / party_name(name, role)
        before = sorted(folder.glob(f"{_ASKED}*/cert.pem"), key=lambda path: path.stat().st_mtime)
        if before and 0 <= time.time() - before[-1].stat().st_mtime < ASK_AGAIN_SECONDS:
            raise CertificateError(
                f"the {role} {name!r} got a new certificate less than {ASK_AGAIN_SECONDS / 60:g} min ago."
            )
        answer = self._authority.answer(request, identity)
        former = [serial_of(path) for path in before[:-1]]
        for path in before[:-1]:
            shutil.rmtree(path.parent, ignore_errors=True)
        kept = folder / f"{_ASKED}{read_pem(answer.certificate).serial_number:x}"
        for each in (folder.parent.parent, folder.parent, folder, kept):
            private_folder(each)
        write_whole(kept / "cert.pem", answer.certificate, 0o644)
        return answer, former

    def carried_names(self, role: str, flow: str) -> frozenset[str]:
        """Return the names in the certificates of a flow's parties of that role that were carried away."""
        from pratipad_nb.pki.certificates import identity_in

        found = set()
        for path in (self._folder / "carried" / role / _folder_name(flow)).rglob("cert.pem"):
            with contextlib.suppress(CertificateError):
                found.add(identity_in(path))
        return frozenset(found)

    def left_behind(self) -> list[str]:
        """Return the parties that have no certificate of the present authority, by identity, sorted.

        They are those for whom a change of the authority can't be finished yet.
        """
        found = self._certificates("device", "reader", "carried")
        known = {identity: False for identity, _ in found}
        for identity, path in found:
            known[identity] = known[identity] or self._authority.has_signed(path)
        return sorted(identity for identity, has in known.items() if not has)

    def _certificates(self, *folders: str) -> list[tuple[str, Path]]:
        """Return the holder's identity and the file of each certificate below `folders`."""
        from pratipad_nb.pki.certificates import identity_in, party_of

        found = []
        for folder in folders:
            for path in (self._folder / folder).rglob("cert.pem"):
                with contextlib.suppress(CertificateError):  # deleted meanwhile, or damaged
                    found.append((party_of(identity_in(path)), path))
        return found

    def renew_servers(self) -> None:
        """Have the certificates of this computer's servers fit the authority, which has changed.

        The servers show and trust them once they have read their files again.

        Raises
        ------
        CertificateError
            If a certificate can't be written.
        """
        from pratipad_nb.pki.certificates import profile_of, read_certificate

        for folder in (self._folder / "server", self._folder / "listener"):
            if (folder / "cert.pem").exists():
                profile = profile_of(read_certificate(folder / "cert.pem"))
                if profile is not None:
                    self._authority.ensure(profile.identity, folder, hosts=profile.hosts, server=True)

    def names(self, flow: str, role: Literal["device", "reader"]) -> list[str]:
        """Return the devices or readers of `flow` that have a certificate in this store, sorted."""
        folder = self._of(role, flow)
        return sorted(entry.parent.name for entry in folder.glob("*/cert.pem"))

    def forget(self, flow: str) -> None:
        """Delete all certificates of `flow`; only revoking the server's user keeps a holder of a copy out."""
        for role in ("edge", "device", "reader"):
            shutil.rmtree(self._of(role, flow), ignore_errors=True)
            shutil.rmtree(self._folder / "carried" / role / _folder_name(flow), ignore_errors=True)

    def _of(self, role: str, flow: str) -> Path:
        return private_folder(self._folder / role) / _folder_name(flow)


def forget_party(pki: Path, role: str, flow: str, name: str) -> None:
    """Delete the certificates of one party in the folder `pki`, as `CertificateStore.forget` does.

    Parameters
    ----------
    role, flow, name
        The party; an edge has no name.
    """
    for folder in (pki / role, pki / "carried" / role):
        shutil.rmtree(folder / _folder_name(flow) / name, ignore_errors=True)


def _folder_name(flow: str) -> str:
    tenant, _, name = flow.rpartition("/")
    valid_name(name, "flow")
    if tenant:
        valid_name(tenant, "tenant")
    return file_key(flow)


def _ends(certificates: list[tuple[str, Path]]) -> dict[str, datetime]:
    """Return when each party's newest certificate ends."""
    found: dict[str, datetime] = {}
    for identity, path in certificates:
        until = valid_until(path)
        found[identity] = max(until, found.get(identity, until))
    return found
