"""The house of the fourth notebook as five processes: same commands, same result, and nothing lost."""

from __future__ import annotations

import json
import shutil
import signal
import sqlite3
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

NOTEBOOKS = Path(__file__).parents[2] / "notebooks"
pytestmark = pytest.mark.timeout(90)

#: A room whose readings are numbered, across restarts, in a ledger written before a reading is taken.
NUMBERED = """
import sys
from pathlib import Path

sys.path.insert(0, "notebooks/house_parts")
from room import Room

class Numbered(Room):
    def __init__(self, *arguments, **options):
        super().__init__(*arguments, **options)
        self.ledger = Path(f"{self.name}.ledger").open("a+", buffering=1)
        self.ledger.seek(0)
        self.last = max((int(line) for line in self.ledger if line.strip()), default=0)
        self.ledger.write("\\n")  # a new life

    def read(self):
        self.last += 1
        self.ledger.write(f"{self.last}\\n")
        return super().read() | {"n": self.last}

device = Numbered("NAME", people=2, volume=20).device(keep=".pratipad/NAME")
"""


@pytest.fixture
def house(shell: Any) -> Any:
    """A checkout's notebooks, in a folder where the commands are given as they are written."""
    shutil.copytree(NOTEBOOKS, shell.folder / "notebooks", ignore=shutil.ignore_patterns(".*", "*.db*"))
    return shell


def commands() -> list[list[str]]:
    """Return the five commands that the notebook ends with."""
    cells = json.loads((NOTEBOOKS / "04_house.ipynb").read_text())["cells"]
    text = "".join(line for cell in cells if cell["cell_type"] == "markdown" for line in cell["source"])
    shown = text.partition("```sh\n")[2].partition("```")[0].splitlines()
    return [line.partition("#")[0].split()[1:] for line in shown]


def stored(house: Any, device: str) -> list[dict[str, Any]]:
    """Return the payloads of a device in the database, in the order in which they were written."""
    path = house.folder / "house.db"
    if not path.exists():
        return []
    database = sqlite3.connect(path)
    try:
        rows = database.execute("SELECT payload FROM messages WHERE device = ? ORDER BY number", [device])
        return [json.loads(payload) for (payload,) in rows]
    except sqlite3.OperationalError:  # it is being made
        return []
    finally:
        database.close()


def airs(readings: list[dict[str, Any]]) -> bool:
    """Whether a window was opened and the air got better by it."""
    return any(reading["window"] == "open" and reading["co2_ppm"] < 750 for reading in readings)


def opened_by_rule(readings: list[dict[str, Any]]) -> bool:
    """Whether the window was shut until the air was bad and it rained little."""
    first = next(at for at, reading in enumerate(readings) if reading["window"] == "open")
    reasons = [r for r in readings[:first] if r["co2_ppm"] > 800 and r["precipitation_mm"] < 5]
    return bool(reasons) and reasons[0] in readings[max(0, first - 10) : first]


def test_the_commands_of_the_notebook_open_the_windows_in_five_processes(house: Any, until: Any) -> None:
    first, *rest = commands()
    server = house.start(*first)
    server.says("run a flow here")
    edge, room1, room2, cloud = (house.start(*arguments) for arguments in rest)
    until(lambda: airs(stored(house, "room1")) and airs(stored(house, "room2")))
    for process in (room1, room2, edge, cloud, server):
        assert process.end() == 0
    assert opened_by_rule(stored(house, "room1"))
    assert opened_by_rule(stored(house, "room2"))
    assert "room1: closed" in room1.says("closed")


def test_nothing_is_lost_when_a_room_the_edge_the_cloud_and_the_server_are_killed(
    house: Any, until: Any
) -> None:
    serving, edging, _, _, answering = commands()
    rooms = {name: house.file(f"{name}.py", NUMBERED.replace("NAME", name)) for name in ("room1", "room2")}
    serve = house.start(*serving)
    serve.says("run a flow here")
    running = {
        "edge": house.start(*edging),
        **{name: house.start("device", file, "--flow", "house") for name, file in rooms.items()},
        "cloud": house.start(*answering),
    }

    def goes_on() -> None:
        before = {name: len(stored(house, name)) for name in rooms}
        until(lambda: all(len(stored(house, name)) > before[name] + 5 for name in rooms))

    goes_on()
    for name in ("room1", "edge", "cloud"):
        running[name].end(signal.SIGKILL)
        running[name] = house.start(*running[name].arguments)
        goes_on()
    nats = house.server_pid()
    serve.end(signal.SIGKILL)
    serve = house.start(*serving)
    goes_on()
    assert house.server_pid() != nats
    until(lambda: all(airs(stored(house, name)) for name in rooms))

    for name in rooms:
        assert running[name].end() == 0
    for name in rooms:
        lives = [life.split() for life in (house.folder / f"{name}.ledger").read_text().split("\n\n")]
        # The last of each life may have been cut off between the sensor and the disk.
        kept = {int(n) for life in lives for n in life[:-1]}
        assert len(lives) == (2 if name == "room1" else 1)
        until(lambda name=name, kept=kept: kept <= {reading["n"] for reading in stored(house, name)})
        numbers = [reading["n"] for reading in stored(house, name)]
        assert all(before < after for before, after in pairwise(numbers))
    assert running["edge"].end() == 0  # not sooner: what an edge leaves at its input waits for its next start
    assert running["cloud"].end() == 0
    assert serve.end() == 0
