"""The register of parties, and its file."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pratipad_nb.errors import ServerError, SettingsError
from pratipad_nb.server.register import (
    Change,
    Quota,
    Register,
    Rules,
    parsed_register,
    rendered_register,
)
from pratipad_nb.settings import NAME_PATTERN, RESERVED_NAMES
from pratipad_nb.transport.parties import Party
from pratipad_nb.transport.rights import Arrows

names = st.from_regex(NAME_PATTERN, fullmatch=True).filter(lambda name: name not in RESERVED_NAMES)
tenants = st.just("") | names
serials = st.just("") | st.text("0123456789abcdef", min_size=1, max_size=40)
parties = st.one_of(
    st.builds(Party, names, st.just("edge"), st.just(""), tenants, serials),
    st.builds(Party, names, st.just("device"), names, tenants, serials, st.booleans()),
    st.builds(Party, names, st.sampled_from(["reader", "leaf"]), names, tenants, serials),
)
rules = st.builds(
    Rules,
    st.builds(Arrows, st.booleans(), st.booleans()),
    st.integers(0, 1 << 60),
    st.booleans(),
)
quotas = st.builds(Quota, *[st.integers(0, 1 << 60)] * 3)


@given(st.lists(parties, max_size=5), st.dictionaries(names, rules), st.dictionaries(names, quotas))
def test_a_register_is_read_back_as_it_was_written(
    listed: list[Party], of_flows: dict[str, Rules], of_tenants: dict[str, Quota]
) -> None:
    register = Register().changed(Change(tuple(listed), (), of_flows, of_tenants))
    assert parsed_register(rendered_register(register)) == register


@given(parties)
def test_a_party_is_read_back_from_the_name_in_its_certificate(party: Party) -> None:
    assert Party.parse(party.user, mqtt=party.mqtt) == party


@given(data=st.binary() | st.recursive(st.none() | st.text(), st.lists).map(json.dumps).map(str.encode))
def test_any_bytes_are_a_register_or_a_server_error(data: bytes) -> None:
    with pytest.raises(ServerError, match=r"Delete parties\.json"):
        parsed_register(data)


def test_who_is_gone_is_gone_with_every_certificate() -> None:
    old, new = Party("house", "device", "lamp"), Party("house", "device", "lamp", serial="2a")
    other = Party("house", "device", "lamp", tenant="acme")
    register = Register().changed(Change((old, new, other)), Change(gone=(old,)))
    assert set(register.parties.values()) == {other}


def test_a_certificate_that_is_revoked_takes_the_name_without_a_serial_number_with_it() -> None:
    """Else the server would find the holder's plain name in the revoked certificate, and let it in."""
    plain, stolen = Party("house", "device", "lamp"), Party("house", "device", "lamp", serial="1")
    new = Party("house", "device", "lamp", serial="2")
    register = Register().changed(Change((plain, stolen, new)), Change(gone=(stolen,)))
    assert set(register.parties.values()) == {new}


def test_a_quota_of_devices_counts_devices_and_not_their_certificates() -> None:
    register = Register(quotas={"acme": Quota(devices=1)})
    both = Change(tuple(Party("house", "device", "lamp", "acme", serial) for serial in ("1", "2")))
    register.check(both)
    with pytest.raises(SettingsError, match="may have 1 devices, and this would be number 2"):
        register.changed(both).check(Change((Party("garden", "device", "pump", "acme"),)))


def test_a_quota_of_bytes_is_for_all_flows_of_the_tenant_and_names_the_ways_out() -> None:
    register = Register(quotas={"acme": Quota(bytes=100)})
    first = Change(rules={"acme/house": Rules(bytes=60), "house": Rules(bytes=1000)})
    register.check(first)
    with pytest.raises(SettingsError, match=r"take 100 bytes of the disk.*take 120.*keep=.*forget\(\)"):
        register.changed(first).check(Change(rules={"acme/garden": Rules(bytes=60)}))


def test_a_tenant_over_its_lowered_quota_hinders_neither_itself_nor_others() -> None:
    lamps = tuple(Party("house", "device", f"lamp{number}", "acme") for number in range(3))
    register = Register().changed(Change(lamps, rules={"acme/house": Rules(bytes=60)}))
    lowered = Change(quotas={"acme": Quota(devices=1, bytes=10)})
    register.check(lowered)
    register = register.changed(lowered)
    for harmless in (
        Change((Party("house", "device", "lamp", "globex"), Party("house", "device", "lamp"))),
        Change(gone=(lamps[0],)),
        Change((lamps[0].with_serial("1"),)),
        Change(rules={"acme/house": Rules(bytes=50), "globex/house": Rules(bytes=1000)}),
    ):
        register.check(harmless)
    with pytest.raises(SettingsError, match="this would be number 3"):
        register.changed(Change(gone=(lamps[0],))).check(Change((lamps[0],)))


@pytest.mark.parametrize("tenant", ["globex", ""])
def test_a_guest_is_let_in_while_the_flow_is_shared_with_that_very_guest(tenant: str) -> None:
    guest = Party("house", "reader", f"archive@{tenant}", "acme")
    own = Party("house", "reader", "archive", "acme")
    others = (
        Party("house", "reader", f"desk@{tenant}", "acme"),
        Party("house", "reader", "archive@initech", "acme"),
        Party("garden", "reader", f"archive@{tenant}", "acme"),
        Party("house", "reader", f"archive@{tenant}"),
    )
    register = Register().changed(Change(shared=(guest,)))
    register = parsed_register(rendered_register(register))
    register.check(Change((guest.with_serial("1"), own)))
    for other in others:
        with pytest.raises(SettingsError, match=rf"the flow '{other.key}' isn't shared with a reader"):
            register.check(Change((other,)))
    register = register.changed(Change((guest.with_serial("1"), guest.with_serial("2"), own, *others)))
    assert set(register.parties.values()) == {own, guest.with_serial("1"), guest.with_serial("2")}
    register = register.changed(Change(unshared=(guest,)))
    assert set(register.parties.values()) == {own}
    assert not register.shares
    assert not register.changed(Change((guest,))).parties.keys() & {guest.user}
