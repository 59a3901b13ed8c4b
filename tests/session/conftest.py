"""Waiting on conditions."""

import pytest

from pratipad_nb.testing import memory_server, real_server


@pytest.fixture
def url():
    """An in-memory server of this test's own."""
    with memory_server() as found:
        yield found


@pytest.fixture(scope="session")
def home():
    """One state folder for all tests that use the real server."""
    with real_server() as folder:
        yield folder
