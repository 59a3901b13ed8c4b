"""The clock of a hunted process: `HUNT_CLOCK` names a file with the seconds that the clock is off.

The file is mapped into memory, so that a change sets the clock of the running process. Python imports this
module at its start, before any other module can keep the true clock.
"""

import mmap
import os
import struct
import time
from pathlib import Path


def _set_off(path):
    with Path(path).open("rb") as file:
        off = mmap.mmap(file.fileno(), 8, access=mmap.ACCESS_READ)
    true_time, true_time_ns = time.time, time.time_ns
    time.time = lambda: true_time() + struct.unpack_from("d", off)[0]
    time.time_ns = lambda: true_time_ns() + int(struct.unpack_from("d", off)[0] * 1e9)


if os.environ.get("HUNT_CLOCK"):
    _set_off(os.environ["HUNT_CLOCK"])
