"""The parties of flows: who they are, and the names by which certificates and the server know them.

Owns identities, parsed and built here alone, and the inboxes of a party. What a party may do is for
`pratipad_nb.transport.rights`.

A party's identity is a URI, for example ``urn:pratipad:house:device:room1``, and of a tenant's flow
``urn:pratipad:acme/house:device:room1``. A certificate names its holder by the identity and the certificate's
own serial number, ``urn:pratipad:house:device:room1#3f2a…``, so that a server which knows the valid serial
numbers lets no other certificate of the same name in. Certificates of version 0.1 have no serial number in
their name.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal, cast

from pratipad_nb.errors import SettingsError
from pratipad_nb.settings import GUEST, valid_name, valid_reader

__all__ = ["Party", "Role", "flow_key"]

Role = Literal["edge", "device", "reader", "leaf"]

_ROLES = ("edge", "device", "reader", "leaf")
_ROOT = "urn:pratipad"


def flow_key(flow: str, tenant: str = "") -> str:
    """Return the name that tells a flow from the flows of other tenants: ``house``, or ``acme/house``."""
    valid_name(flow, "flow")
    return f"{valid_name(tenant, 'tenant')}/{flow}" if tenant else flow


@dataclass(frozen=True, slots=True)
class Party:
    """A device, a reader, an edge, or another site's server (a leaf) of one flow.

    Attributes
    ----------
    flow
        Name of the flow.
    role
        ``"edge"``, ``"device"``, ``"reader"`` or ``"leaf"``.
    name
        Name of the device, of the reader, or of the leaf's site; an edge has none. The name of a reader of
        another tenant, a guest, is followed by that tenant: ``archive@globex``, or ``archive@`` for none.
    tenant
        The flow's tenant; empty: the flow is of no tenant.
    serial
        Serial number of the party's certificate, in hexadecimal digits; empty: any, or a certificate of
        version 0.1.
    mqtt
        Whether the device speaks MQTT.

    Raises
    ------
    SettingsError
        If a name is none, or a role has a name that it can't have.
    """

    flow: str
    role: Role
    name: str = ""
    tenant: str = ""
    serial: str = ""
    mqtt: bool = False

    def __post_init__(self) -> None:
        flow_key(self.flow, self.tenant)
        if self.role not in _ROLES:
            raise SettingsError(f"{self.role!r:.100} is no role; the roles are {', '.join(_ROLES)}.")
        if self.role == "edge":
            if self.name:
                raise SettingsError(f"{self.name!r:.100} can't name an edge: an edge has its flow's name.")
            return
        if self.role == "reader":
            valid_reader(self.name)
        else:
            valid_name(self.name, "site" if self.role == "leaf" else self.role)

    @property
    def key(self) -> str:
        """The flow's name with its tenant; see `flow_key`."""
        return flow_key(self.flow, self.tenant)

    @property
    def identity(self) -> str:
        """The party's name, for example ``urn:pratipad:house:device:room1``."""
        return ":".join((_ROOT, self.key, self.role, *([self.name] if self.name else [])))

    @property
    def user(self) -> str:
        """The name in the party's certificate: the identity, and the serial number after ``#``."""
        return f"{self.identity}#{self.serial}" if self.serial else self.identity

    @property
    def in_words(self) -> str:
        """The party in words, for messages: ``the device 'room1' of 'house'``."""
        return f"the {self.role} {self.name!r} of {self.key!r}" if self.name else f"the edge of {self.key!r}"

    @property
    def is_guest(self) -> bool:
        """Whether the party is a reader of another tenant, with which the flow is shared."""
        return self.role == "reader" and GUEST in self.name

    @property
    def guest_of(self) -> str:
        """The tenant of a guest; empty for a guest of no tenant, and for all other parties."""
        return self.name.partition(GUEST)[2] if self.is_guest else ""

    @property
    def inbox(self) -> str:
        """The prefix of the party's own inboxes, without a dot at its end.

        A party may subscribe to its own inboxes alone, so that no party can read the answers to another
        party. Tokens are parted by dots and not by underscores, since names may hold underscores: two parties
        never share a prefix.
        """
        return ".".join(("_INBOX", self.flow, self.role, *([self.name] if self.name else [])))

    def with_serial(self, serial: str) -> Party:
        """Return the same party with the certificate of that serial number."""
        return replace(self, serial=serial)

    @classmethod
    def called(cls, role: Role, flow: str, name: str = "", tenant: str = "") -> Party:
        """Return the party that a user means.

        Parameters
        ----------
        flow
            The flow's name, or `flow_key`: ``acme/house``. ``/house`` is the flow of no tenant, whatever the
            party's tenant is.
        name
            The name of the device, reader or site; an edge's is left out. A guest's may name its tenant.
        tenant
            The party's own tenant, which a reader may have beside the flow's.

        Raises
        ------
        SettingsError
            If a name is none, a party that is no reader is of another tenant than its flow, or a reader's
            name says another tenant than `tenant`.
        """
        owner, said, bare = flow.rpartition("/")
        if role == "edge":
            name = ""
        if role == "reader" and GUEST in name:
            if tenant not in ("", name.partition(GUEST)[2]):
                raise SettingsError(
                    f"the reader's name {name!r} says another tenant than {tenant!r}. Leave the tenant out "
                    "here, or in the name."
                )
            return cls(bare, role, name, owner)
        if said and tenant and owner != tenant:
            if role != "reader":
                whose = f"the tenant {owner!r}" if owner else "no tenant"
                raise SettingsError(
                    f"the flow {flow!r} is of {whose}, and the {role} of {tenant!r}. Readers alone may be of "
                    "another tenant (flow.share)."
                )
            name = f"{name}{GUEST}{tenant}"
        return cls(bare, role, name, owner if said else tenant)

    @classmethod
    def parse(cls, user: str, *, mqtt: bool = False) -> Party | None:
        """Return the party of an identity, with or without a serial number; None if it is no party's."""
        identity, _, serial = user.partition("#")
        if not identity.startswith(f"{_ROOT}:"):
            return None
        key, *rest = identity.removeprefix(f"{_ROOT}:").split(":")
        tenant, _, flow = key.rpartition("/")
        role, *name = rest or [""]
        if role not in _ROLES or len(name) > 1:
            return None
        try:
            return cls(flow, cast("Role", role), "".join(name), tenant, serial, mqtt)
        except SettingsError:
            return None
