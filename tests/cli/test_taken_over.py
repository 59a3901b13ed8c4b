"""Two `pratipad cloud` of one reader's name: the newer takes over, the older ends with a code of its own."""

from __future__ import annotations

import json
import signal
import socket
import sqlite3
from contextlib import closing
from typing import Any

import pytest
from patience import until

ROOM = """
import itertools
from pratipad_nb import Device

rooms = [Device(f"room{n}", read=({"value": v} for v in itertools.count()), every=0.004) for n in range(4)]
"""
TAKEN_OVER = 3
pytestmark = pytest.mark.timeout(90)


def ids(house: Any, name: str) -> list[str]:
    """Return the ids of the messages in a reader's database, one for each row."""
    path = house.folder / name
    if not path.exists():
        return []
    with closing(sqlite3.connect(path)) as database:
        try:
            return [found for (found,) in database.execute("SELECT id FROM messages ORDER BY rowid")]
        except sqlite3.OperationalError:  # it is being made
            return []


@pytest.fixture
def house(shell: Any) -> Any:
    """A server, a flow and a device, each a process, and three readers that can be started."""
    shell.house()
    shell.file("room.py", ROOM)
    shell.start("server").says("run a flow here")
    shell.start("run", "house.py").says("house runs")
    shell.rooms = shell.start("device", "room.py", "--flow", "house")
    shell.reader = lambda name: shell.start("cloud", "house", "--sqlite", name, "--quiet")
    return shell


def test_the_older_reader_is_told_by_name_and_host_and_between_them_nothing_is_lost_or_doubled(
    house: Any,
) -> None:
    first = house.reader("first.db")
    until(lambda: len(ids(house, "first.db")) > 100)
    second = house.reader("second.db")
    assert first.wait() == TAKEN_OVER
    told = first.says("has taken this reader's place")
    assert f"process {second.process.pid} on {socket.gethostname()}" in told
    until(lambda: len(ids(house, "second.db")) > 100)

    # Frozen for longer than any reader waits: the newer reader takes the name without an answer.
    second.process.send_signal(signal.SIGSTOP)
    before = ids(house, "second.db")
    third = house.reader("third.db")
    until(lambda: len(ids(house, "third.db")) > 100)
    second.process.send_signal(signal.SIGCONT)
    assert second.wait() == TAKEN_OVER
    assert len(ids(house, "second.db")) - len(before) <= 1000  # what it held in its hands, at most

    assert house.rooms.end() == 0
    sent = int(json.loads(house("top", "--once", "--json").stdout)["delivered"])
    found = {name: ids(house, name) for name in ("first.db", "second.db")}
    until(lambda: len({*found["first.db"], *found["second.db"], *ids(house, "third.db")}) == sent)
    assert third.end() == 0
    assert not set(found["first.db"]) & {*found["second.db"], *ids(house, "third.db")}
