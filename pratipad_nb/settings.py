"""Names, credentials, endpoints and options: frozen values, validated once, when they are made.

Owns the options, their defaults and their bounds. Reads no file and no environment: reading is for
`pratipad_nb.cli` and `pratipad_nb.notebook`, and in a plain program for `pratipad_nb.session.defaults`.
"""

from __future__ import annotations

import math
import os
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, TypeGuard, get_args

from pratipad_nb.errors import SettingsError

__all__ = [
    "GUEST",
    "HANDLE",
    "NAME_PATTERN",
    "RESERVED_NAMES",
    "Address",
    "Credentials",
    "Delivery",
    "Endpoint",
    "FlowOptions",
    "Keep",
    "Leaf",
    "Security",
    "Sync",
    "checked_count",
    "checked_delivery",
    "checked_keep",
    "checked_number",
    "checked_options",
    "checked_path",
    "checked_wait",
    "file_key",
    "gateway_of",
    "key_of_file",
    "party_name",
    "valid_address",
    "valid_name",
    "valid_reader",
    "valid_tenant",
]

Delivery = Literal["durable", "fast"]
Sync = Literal["interval", "always"]
#: How a server keeps parties apart; see `FlowOptions`.
Security = Literal["accounts", "account-per-device", "shared-account"]

#: The name of a flow, a device, a reader or a tenant. A name is a token of a NATS subject, part of a file
#: name and of a certificate, and (for flows) a Python variable, so the pattern is kept to the characters that
#: all of them take.
NAME_PATTERN = r"[A-Za-z][A-Za-z0-9_-]{0,63}"
RESERVED_NAMES = frozenset({"Push", "Pull", "Demand", "Output"})
#: The reader that is a flow's own handle. No party is let in under this name: it would move the handle's
#: position. The names of the other parties of a flow's own begin with an underscore, as no valid name does.
HANDLE = "notebook"
#: Stands in a reader's name between the name and the reader's own tenant, if that is not the flow's tenant.
GUEST = "@"
#: Stands for the "/" of a tenant's flow in the names of files and folders; no valid name holds it.
_IN_FILES = "~"

_NAME = re.compile(NAME_PATTERN)


def valid_name(name: object, what: str) -> str:
    """Return `name` if it may name a `what` ("flow", "device", "reader").

    Raises
    ------
    SettingsError
        If `name` is no string, doesn't match `NAME_PATTERN` or is one of `RESERVED_NAMES`.
    """
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise SettingsError(
            f"{name!r:.100} can't name a {what}: a name starts with a letter and goes on with at most 63 "
            f"letters, digits, '_' or '-' (pattern {NAME_PATTERN}). Choose another, for example "
            f"{_suggest(name)!r}."
        )
    if name in RESERVED_NAMES:
        raise SettingsError(
            f"{name!r} can't name a {what}: {', '.join(sorted(RESERVED_NAMES))} are words of the notation. "
            f"Choose another, for example {name.lower() + '1'!r}."
        )
    return name


def party_name(name: object, role: str) -> str:
    """Return `name` if a party of that role ("device", "reader", "edge", "leaf") may be let in under `name`.

    Raises
    ------
    SettingsError
        If `name` is no valid name, or is reserved for a flow's own handle.
    """
    if role == "reader" and isinstance(name, str) and name.partition(GUEST)[0] == HANDLE:
        raise SettingsError(
            f"{name!r} can't name a reader that is let in: a flow's own handle reads under that name. Choose "
            "another, for example 'cloud'."
        )
    return valid_reader(name) if role == "reader" else valid_name(name, role)


def valid_reader(name: object) -> str:
    """Return `name` if it can name a reader, or a reader of another tenant (a guest): ``"reader@tenant"``.

    The tenant is empty for a guest of no tenant: ``"reader@"``.

    Raises
    ------
    SettingsError
        If neither `name`, nor both of its parts, are valid names.
    """
    if not isinstance(name, str):
        return valid_name(name, "reader")
    alone, _, tenant = name.partition(GUEST)
    valid_name(alone, "reader")
    if tenant:
        valid_name(tenant, "tenant")
    return name


def valid_tenant(tenant: object) -> str:
    """Return `tenant` if it can name a tenant; empty: none.

    Raises
    ------
    SettingsError
        If `tenant` is no valid name.
    """
    return "" if tenant in ("", None) else valid_name(tenant, "tenant")


def file_key(key: str) -> str:
    """Return the name that the flow `key` has as a file or folder: ``acme~house`` for ``acme/house``."""
    return key.replace("/", _IN_FILES)


def key_of_file(name: str) -> str:
    """Return the flow's key that `file_key` has made `name` of."""
    return name.replace(_IN_FILES, "/")


def valid_address(name: object) -> str:
    """Return `name` if it can name a device, or a device behind a gateway: ``"gateway.device"``.

    Raises
    ------
    SettingsError
        If neither `name`, nor both of its parts, may name a device.
    """
    if not isinstance(name, str):
        return valid_name(name, "device")
    gateway, dot, device = name.partition(".")
    valid_name(gateway, "device")
    if dot:
        valid_name(device, "device")
    return name


def gateway_of(address: str) -> str:
    """Return the gateway of the device at `address`; the device's own name if it speaks for itself."""
    return address.partition(".")[0]


def _suggest(name: object) -> str:
    kept = re.sub(r"[^A-Za-z0-9_-]+", "_", f"{name}"[:100]).strip("_-")[:60]
    return kept if kept and kept[0].isalpha() else "a" + kept


@dataclass(frozen=True, slots=True)
class Address:
    """The address of a listener. ``str()`` gives ``host:port``, with an IPv6 address in brackets."""

    host: str
    port: int

    @classmethod
    def parse(cls, text: str) -> Address:
        """Return the address that `text` (``"host:port"``) means.

        Raises
        ------
        SettingsError
            If `text` is no address: the host is missing, or the port is no number from 1 to 65535.
        """
        host, _, port = text.rpartition(":") if isinstance(text, str) else ("", "", "")
        host = host.removeprefix("[").removesuffix("]")
        if not host or not (port.isascii() and port.isdigit() and 0 < int(port) < 1 << 16):
            raise SettingsError(
                f"{text!r} is no address to listen on: it is HOST:PORT, for example '127.0.0.1:8883' or "
                "'0.0.0.0:8883'."
            )
        return cls(host, int(port))

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


@dataclass(frozen=True, slots=True)
class Credentials:
    """The paths of one party's certificate files: its own certificate and key, and the authority it trusts.

    `Credentials` hold paths and no key material, so they are safe to print.
    """

    authority: Path
    certificate: Path
    key: Path

    @classmethod
    def in_folder(cls, folder: str | Path) -> Credentials:
        """Return the credentials in `folder`: ``ca.pem``, ``cert.pem`` and ``key.pem``.

        `Flow.invite` writes such a folder.

        Raises
        ------
        SettingsError
            If one of the three files is missing.
        """
        folder = checked_path(folder, "certs")
        found = cls(folder / "ca.pem", folder / "cert.pem", folder / "key.pem")
        missing = [p.name for p in (found.authority, found.certificate, found.key) if not p.is_file()]
        if missing:
            raise SettingsError(
                f"{folder} is no certificate folder: {', '.join(missing)} missing. It holds ca.pem, cert.pem "
                "and key.pem; `flow.invite(name, folder)` writes one."
            )
        return found


@dataclass(frozen=True, slots=True)
class Endpoint:
    """The target of a device's or a cloud client's connection: a server, a flow there, and credentials.

    `url` is ``tls://host:port`` (several, comma-separated, for a cluster), or ``memory://NAME`` for the
    in-memory transport of `pratipad_nb.testing`, which needs no credentials. `whereabouts` returns the
    address where a server of this computer listens now, if that has changed (empty: not known). `disk`
    returns how the disk of a server of this computer stands. `renewed` returns the warnings of the program
    that renews the credentials, a part of this process; None: no such program runs. `tenant` is the flow's
    tenant; empty: none.
    """

    url: str
    flow: str
    credentials: Credentials | None = None
    whereabouts: Callable[[], str] | None = field(default=None, compare=False, repr=False)
    disk: Callable[[], Storage] | None = field(default=None, compare=False, repr=False)
    renewed: Callable[[], tuple[str, ...]] | None = field(default=None, compare=False, repr=False)
    tenant: str = ""


@dataclass(frozen=True, slots=True)
class Storage:
    """How the storage of a server stands, as far as it is known.

    Attributes
    ----------
    trouble
        Why the server stores no entries at present, or soon won't, in words; empty while it stores them.
    total
        Size of the disk in bytes; 0: not known.
    missing
        How many bytes of old results should be deleted, so that the disk does not get full.
    short
        Whether the disk is so full that no new message should be taken.
    tight
        Whether the disk is so full that results have to wait, too: a write that fails costs a restart of the
        server.
    """

    trouble: str = ""
    total: int = 0
    missing: int = 0
    short: bool = False
    tight: bool = False


@dataclass(frozen=True, slots=True, init=False)
class Leaf:
    """A server elsewhere that our server joins as a leaf, and the credentials for it.

    `url` is ``tls://host:port``, the address of that server's listener for leaf nodes (by default port 7422).
    `credentials` are one for each flow whose results go on: a certificate lets one flow's account in.
    """

    url: str
    credentials: tuple[Credentials, ...]

    def __init__(self, url: str, credentials: Credentials | Iterable[Credentials]) -> None:
        text = url if isinstance(url, str) else ""
        host, _, port = text.removeprefix("tls://").rpartition(":")
        if not text.startswith("tls://") or not host or not port.isdigit():
            raise SettingsError(
                f"{url!r} is no server to be a leaf of: it is tls://HOST:PORT, as a rule with port 7422. "
                "There is no link without TLS."
            )
        given = (credentials,) if isinstance(credentials, Credentials) else credentials
        listed = tuple(given) if isinstance(given, Iterable) else ()
        if not listed or not all(isinstance(each, Credentials) for each in listed):
            raise SettingsError(
                f"the credentials of a leaf are {credentials!r:.100}; they are Credentials, for each flow "
                "whose results go on."
            )
        object.__setattr__(self, "url", url)
        object.__setattr__(self, "credentials", listed)


@dataclass(frozen=True, slots=True)
class Keep:
    """How many of the results at Output are kept, by two bounds: the bound that is met first counts.

    Attributes
    ----------
    seconds
        Older results are deleted once every named reader has read them. Default: one hour.
    bytes
        Bound of the output log. When the log is full, the flow waits for its slowest named reader. Default: 1
        GiB, and at most a quarter of the server's disk. On a disk that gets full, results are deleted before
        that.
    """

    seconds: float = 3600.0
    bytes: int = 1 << 30

    def __post_init__(self) -> None:
        checked_number(self.seconds, "Keep: seconds", least=1.0)
        checked_count(self.bytes, "Keep: bytes", least=1 << 20)


@dataclass(frozen=True, slots=True)
class FlowOptions:
    """The options of a flow that are seldom changed. Sizes are in bytes, times in seconds.

    Attributes
    ----------
    input_bytes
        Bound of the input log. When the log is full, devices wait. 256 MiB hold minutes of full speed. On a
        small disk, the bound is an eighth of the disk. Where processors keep a state, frames stay until a
        checkpoint has it; a smaller bound makes checkpoints more frequent at full speed.
    memory_bytes
        Bound of the memory that the messages in flight take as Python objects; on the wire, compressed, they
        may be a thousandth of that. Beyond it, frames wait in the input log. A device's messages take at most
        as much as is free: half of it, if no other device sends. Partitions have equal shares.
    order_bytes, order_seconds
        Bound and expiry of the orders that are kept for devices that are away.
    dead_letter_bytes
        Bound of the dead letters. Near the bound, the flow takes no new message until dead letters are
        retried or cleared. The messages in flight are stored beyond the bound if they fail, and a retry
        always ends. No device takes the room of the others: where a few devices have used up the room, the
        others go on, and the newest letters of those few are dropped and counted
        (``stats().dropped_letters``). Letters of malformed frames have a smaller share of the room: at most a
        quarter of the bound for a device.
    batch_messages
        Most messages that go through a processor in one hop to its thread. 2,048 messages amortise the hop to
        under 0.1 µs a message, and stay a small part of a second of work.
    slice_seconds
        After this long, the finished part of a batch is handed on, so that a slow processor's first results
        don't wait for its last results. Also the longest time that pause and stop wait for a processor
        between two messages.
    checkpoint_seconds
        Longest time between two checkpoints of the positions; a restart re-reads the output since the last
        one.
    reader_expiry
        A named reader that has been away for so long no longer holds back a full flow. ``None``: a reader
        never expires.
    on_lag
        What happens at a full log when a named reader is behind: ``"wait"`` (the flow waits) or ``"discard"``
        (the oldest results are deleted).
    sync
        ``"interval"``: the server writes at once, and forces its writes out to disk every two minutes, so a
        power failure may lose the last two minutes. ``"always"``: every write is forced out, about 6 ×
        slower.
    partitions
        Into how many partitions the flow's devices are split, for several edges to run. One (the default) is
        for a flow that runs in one place. The number is fixed when the flow first runs, and the same at all
        edges; take a few times as many partitions as there will be edges. Each partition has its own
        instances of the processors.
    mqtt
        Whether the embedded server takes devices that speak MQTT 3.1.1: True (port 8883 of the host where all
        other devices connect) or an address, ``"host:port"``. The first flow of a state folder decides.
    leaf_of
        The cloud's server, which the embedded server joins as a leaf: results go on to the cloud's server,
        and are kept by the embedded server while the link is down. The first flow of a state folder decides.
        For a server that is not embedded, see `uplink`.
    uplink
        Whether results go on to the server that the flow's own server is a leaf of. None: as the state
        folder's server is set up; a URL doesn't tell whether its server is a leaf.
    drain_seconds
        How long `stop` waits for processors to finish the messages in flight, before it leaves the rest to
        the next start.
    setup_seconds
        How long each of making an instance of a processor, its `setup` and its `restore` may take. A minute
        is enough to load a model. A call that takes longer mostly hangs, and the start, or the change, of the
        flow waits for it.
    hang_seconds
        A call of a processor that lasts longer hangs: a change of the flow, a checkpoint and the end don't
        wait for its end. Its instance is left behind, and the messages of the call go to the next instance.
    security
        How the server keeps parties apart. ``"accounts"``: the flow, its devices, and each reader have an
        account of their own. ``"account-per-device"``: so has each device, for small fleets whose devices
        don't trust each other; each takes some 50 KiB of the server's memory. ``"shared-account"``: accepts a
        server that others run, whose one account all parties share; `docs/security.md` says what stays open.
    """

    input_bytes: int = 256 << 20
    memory_bytes: int = 256 << 20
    order_bytes: int = 64 << 20
    order_seconds: float = 3600.0
    dead_letter_bytes: int = 64 << 20
    batch_messages: int = 2048
    slice_seconds: float = 0.05
    checkpoint_seconds: float = 1.0
    reader_expiry: float | None = 7 * 86400.0
    on_lag: Literal["wait", "discard"] = "wait"
    sync: Sync = "interval"
    partitions: int = 1
    mqtt: bool | str = False
    leaf_of: Leaf | None = None
    uplink: bool | None = None
    drain_seconds: float = 30.0
    setup_seconds: float = 60.0
    hang_seconds: float = 5.0
    security: Security = "accounts"

    def __post_init__(self) -> None:
        for name in ("input_bytes", "memory_bytes", "order_bytes", "dead_letter_bytes"):
            self._is_count(name, 1 << 20)
        for name in ("batch_messages", "partitions"):
            self._is_count(name, 1)
        for name in (
            "order_seconds",
            "checkpoint_seconds",
            "slice_seconds",
            "drain_seconds",
            "setup_seconds",
            "hang_seconds",
        ):
            self._is_number(name)
        if self.reader_expiry is not None:
            self._is_number("reader_expiry", " of seconds, or None for never")
        self._is_one_of("on_lag", "wait", "discard")
        self._is_one_of("sync", "interval", "always")
        self._is_one_of("security", *get_args(Security))
        self._is_one_of("uplink", None, True, False)
        if not isinstance(self.mqtt, bool):
            Address.parse(self.mqtt)
        if self.leaf_of is not None and not isinstance(self.leaf_of, Leaf):
            raise SettingsError(
                f"FlowOptions: leaf_of is {self.leaf_of!r:.100}; it is Leaf('tls://HOST:PORT', credentials), "
                "or None."
            )

    def _is_count(self, name: str, least: int) -> None:
        checked_count(getattr(self, name), f"FlowOptions: {name}", least=least)

    def _is_number(self, name: str, more: str = " of seconds") -> None:
        checked_number(getattr(self, name), f"FlowOptions: {name}", least=0.001, more=more)

    def _is_one_of(self, name: str, *allowed: object) -> None:
        value = getattr(self, name)
        if not any(value is each or (isinstance(each, str) and value == each) for each in allowed):
            listed = " or ".join(map(repr, allowed))
            raise SettingsError(f"FlowOptions: {name} is {value!r:.100}; it can be {listed}.")


def checked_delivery(value: object) -> Delivery:
    """Return `value` if it is a delivery, else raise `SettingsError`."""
    if not isinstance(value, str) or value not in get_args(Delivery):
        raise SettingsError(f"delivery is {value!r:.100}; it can be 'durable' (the default) or 'fast'.")
    return value  # type: ignore[return-value]


def checked_keep(value: object) -> Keep:
    """Return `value` as a `Keep`: a number is its seconds, None means the defaults.

    Raises
    ------
    SettingsError
        If `value` is anything else, or out of bounds.
    """
    if value is None or isinstance(value, Keep):
        return value or Keep()
    if isinstance(value, (int, float)):
        return Keep(seconds=value)
    raise SettingsError(f"keep is {value!r:.100}; it is a Keep(seconds=…, bytes=…), or a number of seconds.")


def checked_options(value: object) -> FlowOptions:
    """Return `value` if it is `FlowOptions`, the defaults for None, else raise `SettingsError`."""
    if value is None or isinstance(value, FlowOptions):
        return value or FlowOptions()
    raise SettingsError(
        f"options is {value!r:.100}; it is FlowOptions(…), for example FlowOptions(partitions=4)."
    )


def checked_number(value: object, what: str, *, least: float, more: str = "") -> float:
    """Return `value` as a float if it is a finite number of at least `least`, else raise `SettingsError`.

    Parameters
    ----------
    what
        The name of the option, for the message.
    more
        Text that follows "a number of at least …" in the message.
    """
    if not _is_finite(value) or not value >= least:
        raise SettingsError(f"{what} is {value!r:.100}; it must be a number of at least {least:g}{more}.")
    return float(value)


def checked_wait(value: object, what: str) -> float | None:
    """Return how long to wait, in seconds, or None for ever; anything else raises `SettingsError`."""
    if value is None or value == math.inf:
        return None
    if not _is_finite(value) or not value >= 0:
        raise SettingsError(f"{what} is {value!r:.100}; it must be seconds (0 or more), or None for ever.")
    return float(value)


def checked_count(value: object, what: str, *, least: int = 1, most: int | None = None) -> int:
    """Return `value` if it is a whole number from `least` to `most`, else raise `SettingsError`."""
    if (
        isinstance(value, bool)
        or not isinstance(value, int)
        or value < least
        or (most is not None and value > most)
    ):
        bounds = f"of at least {least:,}" if most is None else f"from {least:,} to {most:,}"
        raise SettingsError(f"{what} is {value!r:.100}; it must be a whole number {bounds}.")
    return value


def checked_path(value: object, what: str) -> Path:
    """Return the path that `value` means, with ``~`` as the home folder, else raise `SettingsError`."""
    text = os.fspath(value) if isinstance(value, (str, os.PathLike)) else None
    if not isinstance(text, str) or not text or "\0" in text:
        raise SettingsError(f"{what} is {value!r:.100}; it must be a path: a pathlib.Path, or a text.")
    try:
        return Path(text).expanduser()
    except RuntimeError as error:  # "~name" of a user that this computer doesn't know
        raise SettingsError(
            f"{what} is {text!r}, whose ~ nothing is known of. Write the path in full."
        ) from error


def _is_finite(value: object) -> TypeGuard[int | float]:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return False
    try:
        return math.isfinite(value)
    except OverflowError:  # a whole number that is too large for a float
        return False
