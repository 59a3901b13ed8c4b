"""Identities and inboxes: two parties never share either."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pratipad_nb.errors import SettingsError
from pratipad_nb.settings import NAME_PATTERN, RESERVED_NAMES
from pratipad_nb.transport.parties import Party

names = st.from_regex(NAME_PATTERN, fullmatch=True).filter(lambda name: name not in RESERVED_NAMES)
called = st.tuples(names, names, st.just("") | names)


@given(a=called, b=called)
def test_two_parties_share_neither_identity_nor_account_and_inbox(
    a: tuple[str, ...], b: tuple[str, ...]
) -> None:
    roles: tuple[Any, ...] = ("device", "reader", "leaf")
    parties = {Party(flow, role, name, tenant) for flow, name, tenant in (a, b) for role in roles}
    parties |= {Party(flow, "edge", tenant=tenant) for flow, _, tenant in (a, b)}
    assert len({party.identity for party in parties}) == len(parties)
    inboxes = [(party.tenant, f"{party.inbox}.") for party in parties]
    assert not [
        1
        for tenant, inbox in inboxes
        for other, theirs in inboxes
        if (tenant, inbox) != (other, theirs) and tenant == other and inbox.startswith(theirs)
    ]


@pytest.mark.parametrize("role", ["device", "reader", "leaf"])
@pytest.mark.parametrize(
    ("flow", "name", "tenant"),
    [
        ("*", "a", ""),
        ("house", "*", ""),
        ("house", ">", ""),
        ("house", "", ""),
        ("", "a", ""),
        ("house", "a", "*"),
        ("house", "a@*", ""),
        ("house", "a@b@c", ""),
        ("house", "@acme", ""),
        ("house", "a@b.c", ""),
    ],
)
def test_a_name_that_would_widen_a_partys_rights_is_refused(
    role: Any, flow: str, name: str, tenant: str
) -> None:
    with pytest.raises(SettingsError):
        Party(flow, role, name, tenant)


def test_a_reader_alone_may_be_of_another_tenant() -> None:
    guest = Party.called("reader", "acme/house", "archive", "globex")
    assert guest == Party("house", "reader", "archive@globex", "acme")
    assert (guest.guest_of, guest.is_guest) == ("globex", True)
    assert Party.called("reader", "acme/house", "archive@globex") == guest
    assert Party.called("reader", "/house", "archive", "globex") == Party("house", "reader", "archive@globex")
    nobodys = Party.called("reader", "acme/house", "archive@")
    assert (nobodys.guest_of, nobodys.is_guest) == ("", True)
    own = Party("house", "reader", "archive", "acme")
    for flow, tenant in (("acme/house", ""), ("house", "acme"), ("acme/house", "acme")):
        assert Party.called("reader", flow, "archive", tenant) == own
    with pytest.raises(SettingsError, match="says another tenant than 'initech'"):
        Party.called("reader", "acme/house", "archive@globex", "initech")
    with pytest.raises(SettingsError, match=r"Readers alone may be of another tenant \(flow\.share\)"):
        Party.called("device", "acme/house", "lamp", "globex")
