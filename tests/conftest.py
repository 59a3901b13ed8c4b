"""Time-outs of tests, as long as this machine needs them."""

from __future__ import annotations

from collections.abc import Callable

import patience
import pytest


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Scale each test's time-out by the patience that this machine needs."""
    usual = config.getoption("timeout", None) or float(config.getini("timeout"))
    for item in items:
        marker = item.get_closest_marker("timeout")
        seconds = marker.args[0] if marker else usual
        if seconds:
            item.add_marker(pytest.mark.timeout(seconds * patience.factor()), append=False)


@pytest.fixture(name="until")
def _until() -> Callable[..., None]:
    """Give what waits on a condition in this thread."""
    return patience.until
