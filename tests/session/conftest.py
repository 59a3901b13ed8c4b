"""Waiting on conditions."""

import time

import pytest

from pratipad_nb.testing import memory_server, real_server


@pytest.fixture
def until():
    """Wait until a condition holds, and fail if it doesn't within ten seconds."""

    def wait(condition, seconds=10.0):
        end = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < end, f"not within {seconds:g} s"
            time.sleep(0.01)

    return wait


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
