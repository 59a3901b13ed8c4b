"""Time-outs of tests, as long as this machine needs them, and the order of tests: long files first."""

from __future__ import annotations

from collections.abc import Callable

import patience
import pytest

#: Folders whose files take longest. Several processes run a file each: the longest begin, so that none is
#: left over for the end.
LONG = ("browser", "faults", "notebooks", "cli", "integration")


def pytest_itemcollected(item: pytest.Item) -> None:
    """Give each file to one process, and all files of browsers to the same, which starts JupyterLab once."""
    file = item.path.relative_to(item.config.rootpath)
    group = "browser" if file.parent.name == "browser" else file.as_posix()
    item.add_marker(pytest.mark.xdist_group(group))


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Scale each test's time-out by the patience that this machine needs, and put long files first."""
    items.sort(key=lambda item: _turn(item.path.parent.name))
    usual = config.getoption("timeout", None) or float(config.getini("timeout"))
    for item in items:
        marker = item.get_closest_marker("timeout")
        seconds = marker.args[0] if marker else usual
        if seconds:
            item.add_marker(pytest.mark.timeout(seconds * patience.factor()), append=False)


def _turn(folder: str) -> int:
    return LONG.index(folder) if folder in LONG else len(LONG)


@pytest.fixture(name="until")
def _until() -> Callable[..., None]:
    """Give what waits on a condition in this thread."""
    return patience.until
