"""A server that outlives the edges of a test."""

import pytest

from pratipad_nb.portal import Portal
from pratipad_nb.session.site import Site
from pratipad_nb.testing import real_server
from pratipad_nb.transport.parties import Party


@pytest.fixture
def endpoint_for():
    """Give a function that lets a party in at a server which outlives all edges."""
    with real_server() as home, Portal("test server") as portal:
        site = portal.run(Site.acquire(home, "interval"))
        yield lambda role, name: portal.run(site.endpoint_for(Party.called(role, "house", name)))
        portal.run(site.release())
