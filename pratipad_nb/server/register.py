"""The register: which parties a server lets in, and what it knows of their flows and tenants.

Owns the value and its file, the source of the server's accounts. The accounts that follow from a register are
for `pratipad_nb.server.accounts`, changing the register of a running server is for
`pratipad_nb.server.users`.
"""

from __future__ import annotations

from collections.abc import Mapping, Set
from dataclasses import dataclass, field
from typing import TypeVar

import msgspec

from pratipad_nb.errors import ServerError, SettingsError
from pratipad_nb.settings import GUEST
from pratipad_nb.transport.parties import Party
from pratipad_nb.transport.rights import Arrows

__all__ = ["Change", "Quota", "Register", "Rules", "parsed_register", "rendered_register"]

Value = TypeVar("Value")


@dataclass(frozen=True, slots=True)
class Rules:
    """The server's knowledge of one flow.

    Attributes
    ----------
    arrows
        The ways back that the flow's notation has.
    bytes
        How many bytes the flow's logs may take; 0: no bound but the disk.
    each_device
        Whether each device has an account of its own.
    """

    arrows: Arrows = field(default_factory=Arrows)
    bytes: int = 0
    each_device: bool = False


@dataclass(frozen=True, slots=True)
class Quota:
    """The most that a tenant may have, over all its flows; 0: no bound.

    Attributes
    ----------
    bytes
        Bytes that the logs of its flows may take.
    connections
        Connections of its devices, and of its readers.
    devices
        Devices that are let in.
    """

    bytes: int = 0
    connections: int = 0
    devices: int = 0


@dataclass(frozen=True, slots=True)
class Register:
    """What a server goes by.

    Attributes
    ----------
    parties
        The parties that are let in, by the names in their certificates. A guest is among them only while the
        flow is shared with the guest.
    rules
        The rules of flows, by `flow_key`.
    quotas
        The quotas of tenants.
    shares
        The guests that flows are shared with, without serial numbers.
    """

    parties: Mapping[str, Party] = field(default_factory=dict)
    rules: Mapping[str, Rules] = field(default_factory=dict)
    quotas: Mapping[str, Quota] = field(default_factory=dict)
    shares: frozenset[Party] = frozenset()

    def changed(self, *changes: Change) -> Register:
        """Return the register after `changes`, one after the other."""
        parties = dict(self.parties)
        rules: dict[str, Rules | None] = {**self.rules}
        quotas: dict[str, Quota | None] = {**self.quotas}
        shares = set(self.shares)
        for change in changes:
            for party in (*change.gone, *change.unshared):
                _remove(parties, party)
            shares = (shares - set(change.unshared)) | set(change.shared)
            parties |= {party.user: party for party in change.parties if _may_come(party, shares)}
            rules |= change.rules
            quotas |= change.quotas
        return Register(parties, _kept(rules), _kept(quotas), frozenset(shares))

    def rules_of(self, key: str) -> Rules:
        """Return the rules of the flow `key`."""
        return self.rules.get(key, Rules())

    @property
    def flows(self) -> list[str]:
        """The keys of all flows that are known, sorted."""
        return sorted({party.key for party in self.parties.values()} | self.rules.keys())

    def bytes_of(self, tenant: str) -> int:
        """Return how many bytes the logs of the tenant's flows may take in all."""
        return sum(each.bytes for key, each in self.rules.items() if key.rpartition("/")[0] == tenant)

    def devices_of(self, tenant: str) -> int:
        """Return how many devices of the tenant are let in."""
        return len(
            {
                party.identity
                for party in self.parties.values()
                if party.tenant == tenant and party.role == "device"
            }
        )

    def check(self, change: Change) -> None:
        """Raise `SettingsError` if `change` exceeds a tenant's quota, or lets a guest in without a share.

        A tenant that has more than its quota, for the quota was lowered, may have no more than before.
        """
        after = self.changed(change)
        for party in change.parties:
            if not _may_come(party, after.shares):
                name, whose = party.name.partition(GUEST)[0], party.guest_of
                of = f"the tenant {whose!r}" if whose else "no tenant"
                raise SettingsError(
                    f"the flow {party.key!r} isn't shared with a reader {name!r} of {of}. The flow's owner "
                    f"shares it: flow.share({whose!r}, reader={name!r})."
                )
        for tenant, quota in after.quotas.items():
            devices = after.devices_of(tenant)
            if quota.devices and devices > max(quota.devices, self.devices_of(tenant)):
                raise SettingsError(
                    f"the tenant {tenant!r} may have {quota.devices} devices, and this would be number "
                    f"{devices}. Revoke a device (pratipad certs revoke device NAME --flow FLOW --tenant "
                    f"{tenant}), or raise the quota (pratipad tenant {tenant} --devices N)."
                )
            wanted = after.bytes_of(tenant)
            if quota.bytes and wanted > max(quota.bytes, self.bytes_of(tenant)):
                raise SettingsError(
                    f"the logs of the flows of tenant {tenant!r} may take {quota.bytes:,} bytes of the disk, "
                    f"and these flows would take {wanted:,}. Lower a flow's bounds (keep=, FlowOptions), "
                    f"forget a flow (`flow.forget()`), or raise the quota (pratipad tenant {tenant} --disk "
                    "SIZE)."
                )


@dataclass(frozen=True, slots=True)
class Change:
    """A change of a register.

    Attributes
    ----------
    gone
        Parties to be let in no more. A party without a serial number stands for all certificates of its
        identity. A party with a serial number stands for that certificate, and for certificates of version
        0.1, which have none: their holder's other certificates have the same identity.
    parties
        Parties to let in, after that.
    rules, quotas
        New rules of flows, and quotas of tenants; None: forgotten.
    shared
        Guests that a flow is shared with from now on, without serial numbers.
    unshared
        Guests that a flow is shared with no more, and that are let in no more.
    """

    parties: tuple[Party, ...] = ()
    gone: tuple[Party, ...] = ()
    rules: Mapping[str, Rules | None] = field(default_factory=dict)
    quotas: Mapping[str, Quota | None] = field(default_factory=dict)
    shared: tuple[Party, ...] = ()
    unshared: tuple[Party, ...] = ()


def _may_come(party: Party, shares: Set[Party]) -> bool:
    return not party.is_guest or party.with_serial("") in shares


def _remove(parties: dict[str, Party], party: Party) -> None:
    if party.serial:
        parties.pop(party.user, None)
        parties.pop(party.identity, None)
        return
    for user in [user for user, each in parties.items() if each.identity == party.identity]:
        del parties[user]


def _kept(values: Mapping[str, Value | None]) -> dict[str, Value]:
    return {key: value for key, value in values.items() if value is not None}


class _Listed(msgspec.Struct, frozen=True, omit_defaults=True):
    user: str
    mqtt: bool = False


class _Flow(msgspec.Struct, frozen=True, omit_defaults=True):
    orders: bool = True
    downlink: bool = True
    bytes: int = 0
    each_device: bool = False


class _Written(msgspec.Struct, frozen=True):
    version: int
    parties: list[_Listed]
    flows: dict[str, _Flow] = {}
    tenants: dict[str, Quota] = {}
    shares: list[str] = []


_VERSION = 1


def rendered_register(register: Register) -> bytes:
    """Return the file of `register`, which `parsed_register` reads back."""
    parties = [_Listed(user, party.mqtt) for user, party in sorted(register.parties.items())]
    flows = {
        key: _Flow(rules.arrows.orders, rules.arrows.downlink, rules.bytes, rules.each_device)
        for key, rules in sorted(register.rules.items())
    }
    shares = sorted(party.identity for party in register.shares)
    return msgspec.json.encode(_Written(_VERSION, parties, flows, dict(register.quotas), shares))


def parsed_register(data: bytes) -> Register:
    """Return the register in a file.

    Raises
    ------
    ServerError
        If `data` is no register.
    """
    try:
        written = msgspec.json.decode(data, type=_Written)
        parties = [_party(listed) for listed in written.parties]
        shares = frozenset(_party(_Listed(identity)) for identity in written.shares)
    except (ValueError, SettingsError) as error:
        raise ServerError(
            "the server's list of parties is damaged. Delete parties.json in the server's folder and start "
            "again; devices and readers that aren't of a flow started here need a new invitation then."
        ) from error
    rules = {
        key: Rules(Arrows(each.orders, each.downlink), each.bytes, each.each_device)
        for key, each in written.flows.items()
    }
    return Register({party.user: party for party in parties}, rules, written.tenants, shares)


def _party(listed: _Listed) -> Party:
    party = Party.parse(listed.user, mqtt=listed.mqtt)
    if party is None:
        raise SettingsError(f"{listed.user!r:.100} is no party's name.")
    return party
