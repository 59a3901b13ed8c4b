"""The store of certificates: the folder of each party's files.

::

    pki/                          0700
    ├── authority/                ca.pem, ca-key.pem
    ├── server/                   ca.pem, cert.pem, key.pem, as in the folders below
    ├── owner/                    the server's owner, a user of its system account
    ├── edge/FLOW/
    ├── device/FLOW/NAME/
    ├── reader/FLOW/NAME/
    ├── carried/edge/FLOW/DIR/    cert.pem alone: a copy of the certificate that was issued into DIR
    └── carried/leaf/FLOW/SITE/DIR/    cert.pem alone

Owns that layout. The form of an identity, and of a FLOW (``house``, or of a tenant
``acme/house``, whose folder is ``acme~house``), belongs to `pratipad_nb.transport.parties`.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from pratipad_nb.errors import CertificateError
from pratipad_nb.files import guarded_folder, private_folder, write_whole
from pratipad_nb.settings import Credentials, party_name, valid_name

if TYPE_CHECKING:
    from pratipad_nb.pki.authority import Authority

__all__ = ["LOOPBACK_HOSTS", "CertificateStore"]

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

    def note_carried(self, role: Literal["edge", "leaf"], flow: str, name: str, issued: Path) -> None:
        """Keep a copy of the certificate in `issued`, a folder to be carried away, to know when it ends."""
        certificate = issued / "cert.pem"
        folder = self._folder
        for part in ("carried", role, _folder_name(flow), *([name] if name else []), issued.resolve().name):
            folder = private_folder(folder / part)
        write_whole(folder / certificate.name, certificate.read_bytes(), 0o644)

    def names(self, flow: str, role: Literal["device", "reader"]) -> list[str]:
        """Return the devices or readers of `flow` that have a certificate in this store, sorted."""
        folder = self._of(role, flow)
        return sorted(entry.parent.name for entry in folder.glob("*/cert.pem"))

    def forget(self, flow: str) -> None:
        """Delete all certificates of `flow`; only revoking the server's user keeps a holder of a copy out."""
        for role in ("edge", "device", "reader"):
            shutil.rmtree(self._of(role, flow), ignore_errors=True)
        shutil.rmtree(self._folder / "carried" / "edge" / _folder_name(flow), ignore_errors=True)

    def _of(self, role: str, flow: str) -> Path:
        return private_folder(self._folder / role) / _folder_name(flow)


def _folder_name(flow: str) -> str:
    return flow.replace("/", "~")
