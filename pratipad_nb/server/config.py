"""The embedded server's configuration as text, and the paths of its files.

Owns the text and its hard-wired part: a listener that speaks TLS from its first byte on and lets in nobody
without a certificate of our authority whose name is a listed user's. No parameter loosens this. The
configuration is nearly JSON, but for its strings, which hold the names of folders: any bytes but zero. The
accounts, which the configuration includes, are for `pratipad_nb.server.accounts`.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from pratipad_nb.errors import CertificateError
from pratipad_nb.pki.certificates import identity_in
from pratipad_nb.server.accounts import SYSTEM, Account, flow_account
from pratipad_nb.settings import Address, Credentials, Leaf, Sync
from pratipad_nb.transport.parties import Party
from pratipad_nb.transport.rights import CLOUD

__all__ = [
    "LEAF_PORT",
    "LOOPBACK",
    "MAX_PAYLOAD",
    "MAX_STORE",
    "MQTT_PORT",
    "ServerFiles",
    "leaf_party",
    "rendered_config",
    "rendered_include",
]

#: A server's default address: a program on another machine doesn't even see the server.
LOOPBACK = "127.0.0.1"

#: The port of MQTT over TLS: ``secure-mqtt`` in IANA's registry of ports.
MQTT_PORT = 8883

#: The port for leaf nodes, by NATS's convention.
LEAF_PORT = 7422

#: Largest message of the server, in bytes. NATS's own default is 1 MiB, and its makers advise against more
#: than 8 MiB.
MAX_PAYLOAD = 8 << 20

_RANDOM_PORT = -1
_MAX_SUBSCRIPTIONS = 1024
#: What JetStream may store, in bytes: more than any disk has. When a log is made, the server takes the log's
#: whole bound off this number, whose default is 75 % of what the disk has free: few flows' bounds, though
#: their logs are empty. A bound is no reservation here: the disk itself is watched (`disk`).
MAX_STORE = 1 << 60


@dataclass(frozen=True, slots=True)
class ServerFiles:
    """The paths of the embedded server's files, all in one folder.

    ::

        lock          held by the owner and by the server process
        server.json   which server runs, for a process that joins it
        port          the port of the last start
        wanted        the standalone process that waits for the folder to be handed over
        server.conf   accounts.conf
        tls.pem       the key and the certificate that the server shows
        parties.json  the register, from which accounts.conf is made   parties.lock
        log           and rotated logs
        run/          the server's report of the port that it got
        store/        JetStream
    """

    folder: Path

    @property
    def lock(self) -> Path:
        """The lock that is held as long as an owner or a server lives."""
        return self.folder / "lock"

    @property
    def state(self) -> Path:
        """The file that says which server runs, while a server runs."""
        return self.folder / "server.json"

    @property
    def pair(self) -> Path:
        """The file with the server's key and certificate, so that the server never reads half a change."""
        return self.folder / "tls.pem"

    @property
    def port(self) -> Path:
        """The file with the port of the last start."""
        return self.folder / "port"

    @property
    def wanted(self) -> Path:
        """The file with the process that waits for the folder to be handed over to it."""
        return self.folder / "wanted"

    @property
    def config(self) -> Path:
        """The configuration file."""
        return self.folder / "server.conf"

    @property
    def accounts(self) -> Path:
        """The accounts, included by the configuration; made from the register."""
        return self.folder / "accounts.conf"

    @property
    def parties(self) -> Path:
        """The register; changed under `parties_lock` alone."""
        return self.folder / "parties.json"

    @property
    def parties_lock(self) -> Path:
        """The lock that is held while the register changes and the server reads its accounts again."""
        return self.folder / "parties.lock"

    @property
    def former_users(self) -> Path:
        """The list of users of version 0.1, from before there were accounts."""
        return self.folder / "users.conf"

    @property
    def log(self) -> Path:
        """The server's log."""
        return self.folder / "log"

    @property
    def run(self) -> Path:
        """The folder where the server reports the port that it got."""
        return self.folder / "run"

    @property
    def store(self) -> Path:
        """The folder of JetStream's files."""
        return self.folder / "store"


def rendered_config(
    files: ServerFiles,
    credentials: Credentials,
    *,
    host: str = LOOPBACK,
    port: int | None = None,
    sync: Sync = "interval",
    mqtt: Address | None = None,
    leaves: Address | None = None,
    leaf_of: Leaf | None = None,
) -> str:
    """Return the server's configuration.

    Parameters
    ----------
    files
        The paths of the server's files.
    credentials
        The server's certificate and key, and the authority whose certificates the server takes.
    host
        The address to listen on; ``"0.0.0.0"``: all. The listener is the same on every address: mutual TLS.
    port
        The port to listen on; None: any free port.
    sync
        ``"interval"``: written files are forced to the disk every two minutes (the server's default).
        ``"always"``: at every write.
    mqtt
        Where to listen for devices that speak MQTT 3.1.1, with mutual TLS as everywhere. None: nowhere.
    leaves
        Where to listen for other sites' servers that join this one as leaves, with mutual TLS as everywhere.
        None: nowhere.
    leaf_of
        A server to join as a leaf. None: none.
    """
    sections: dict[str, Any] = {
        "server_name": "pratipad",
        "listen": str(Address(host, _RANDOM_PORT if port is None else port)),
        "ports_file_dir": str(files.run),
        "max_payload": MAX_PAYLOAD,
        # Of one connection. A device has six subscriptions, an edge some twenty.
        "max_subscriptions": _MAX_SUBSCRIPTIONS,
        # A client that has gone without a word is noticed after 5 to 15 s.
        "ping_interval": "5s",
        "ping_max": 2,
        "tls": _tls(credentials),
        "jetstream": {
            "store_dir": str(files.store),
            "sync_interval": "2m" if sync == "interval" else "always",
            "max_file_store": MAX_STORE,
        },
        "log_file": str(files.log),
        # Two files of a megabyte: enough to explain a failure, and bounded.
        "logfile_size_limit": 1 << 20,
        "logfile_max_num": 2,
    }
    if mqtt is not None:
        # MQTT's listener speaks TLS from the first byte on in any case, and doesn't know this key.
        tls = {key: value for key, value in _tls(credentials).items() if key != "handshake_first"}
        sections["mqtt"] = {"listen": str(mqtt), "tls": tls}
    if leaves is not None:
        sections["leafnodes"] = {"listen": str(leaves), "no_advertise": True, "tls": _tls(credentials)}
        # By this domain the leaves' edges tell this server's JetStream from their own.
        sections["jetstream"]["domain"] = CLOUD
    elif leaf_of is not None:
        sections["leafnodes"] = _joining(leaf_of)
        sections["jetstream"]["domain"] = "edge"
        sections["server_name"] = f"pratipad-{_fingerprint(leaf_of)}"
    # The include stands before the sections; a relative path is looked up beside this file.
    lines = [f"include ./{files.accounts.name}"]
    lines += [f"{_written(name)}: {_written(section)}" for name, section in sections.items()]
    return "\n".join(lines) + "\n"


def _written(value: Any) -> str:
    """Return `value` in the notation of the server's configuration."""
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{_written(key)}: {_written(each)}" for key, each in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(_written, value)) + "]"
    if isinstance(value, str):
        return _quoted(value)
    return str(value).lower()  # a number, or true and false


def _quoted(text: str) -> str:
    r"""Return `text` as a string of the server's configuration.

    The server knows no ``\u`` of JSON, but ``\x``, which stands for a byte. So a path comes to the server as
    the bytes that the file system has for the path, in any encoding.
    """
    return '"' + "".join(map(_character, os.fsencode(text))) + '"'


def _character(byte: int) -> str:
    if byte in b'"\\':
        return "\\" + chr(byte)
    return chr(byte) if 32 <= byte < 127 else f"\\x{byte:02x}"


def _joining(leaf_of: Leaf) -> dict[str, Any]:
    return {"reconnect": "1s", "remotes": [_remote(leaf_of.url, each) for each in leaf_of.credentials]}


def _remote(url: str, credentials: Credentials) -> dict[str, Any]:
    """Return the link of one flow: each account has a link of its own, and a certificate for it."""
    tls = {
        "cert_file": str(credentials.certificate.absolute()),
        "key_file": str(credentials.key.absolute()),
        "ca_file": str(credentials.authority.absolute()),
        "handshake_first": True,
        "timeout": 5,
    }
    party = leaf_party(credentials)
    return {"url": url, "account": flow_account(party.flow, party.tenant), "tls": tls}


def leaf_party(credentials: Credentials) -> Party:
    """Return the leaf that a certificate lets in; raise `CertificateError` if it is no leaf's."""
    named = identity_in(credentials.certificate)
    party = Party.parse(named)
    if party is None or party.role != "leaf":
        raise CertificateError(
            f"{credentials.certificate} is the certificate of {named!r:.100}, and no leaf's. Issue one "
            "beside the server to join, and carry it here: pratipad certs issue leaf NAME --flow FLOW"
        )
    return party


def _fingerprint(leaf_of: Leaf) -> str:
    # A server refuses two leaves of one name. The certificate is the site's own, so its fingerprint is a name
    # of the site's own.
    return hashlib.sha256(leaf_of.credentials[0].certificate.read_bytes()).hexdigest()[:12]


def _tls(credentials: Credentials) -> dict[str, Any]:
    return {
        "cert_file": str(credentials.certificate.absolute()),
        "key_file": str(credentials.key.absolute()),
        "ca_file": str(credentials.authority.absolute()),
        "verify_and_map": True,
        "handshake_first": True,
        "min_version": "1.2",
        # Seconds for a handshake. The server's default of 2 is short when thousands reconnect at once.
        "timeout": 5,
    }


def rendered_include(accounts: Mapping[str, Account]) -> bytes:
    """Return the file of the accounts, which the configuration includes."""
    return msgspec.json.encode({"accounts": accounts, "system_account": SYSTEM})
