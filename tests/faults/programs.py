"""The processes of a hunt, as a user runs them: started, ended, started again.

Owns each process's command, environment and files. When something happens to a process is for `hunt`; the
machines on which the processes run are for `hosts`.
"""

from __future__ import annotations

import contextlib
import os
import signal
import struct
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

import psutil
from hosts import Hosts

__all__ = ["DEVICES", "PARTIES", "ROOMS", "Process", "Program", "programs", "run_command"]

HERE = Path(__file__).parent
PRATIPAD = (sys.executable, "-m", "pratipad_nb.cli.main")
#: The devices of each process; each device is in a partition of its own, so that both edges have devices.
DEVICES = {"below": ("room1", "room3"), "above": ("room2", "room4")}
#: All devices.
ROOMS = tuple(room for rooms in DEVICES.values() for room in rooms)
#: The processes elsewhere, and the folders that `certs issue` makes for them: role, name and folder.
PARTIES = {
    "edge2": (("edge", "house", "edge2-certs"),),
    "above": tuple(("device", room, f"above-certs/{room}") for room in DEVICES["above"]),
    "desk": (("reader", "desk", "desk-certs"),),
}


@dataclass(frozen=True)
class Program:
    """A process as a user runs it: its command, what its environment has besides, its devices."""

    name: str
    command: tuple[str, ...]
    environment: dict[str, str] = field(default_factory=dict)
    devices: tuple[str, ...] = ()


def programs(hosts: Hosts) -> dict[str, Program]:
    """Return the programs, in the order in which they are started.

    The first edge, the devices `below` and the readers live beside the server, and find it in the state
    folder. The others have a certificate folder and a link of their own.
    """
    house, device = str(HERE / "hunted_house.py"), (*PRATIPAD, "device", str(HERE / "hunted_room.py"))
    cloud = (*PRATIPAD, "cloud", "house", "--reader")
    each = (
        Program("server", (*PRATIPAD, "server", *hosts.listening)),
        Program("edge1", (*PRATIPAD, "run", house, "--join")),
        Program("edge2", (*PRATIPAD, "run", house, "--certs", "edge2-certs")),
        Program("below", (*device, "--flow", "house"), {"HUNT_KEEP": ""}, DEVICES["below"]),
        Program("above", (*device, "--certs", "above-certs"), {"HUNT_KEEP": "outbox"}, DEVICES["above"]),
        Program("archive", (*cloud, "archive", "--sqlite", "house.db", "--quiet")),
        Program("witness", (*cloud, "witness")),
        Program("desk", (sys.executable, str(HERE / "hunted_desk.py"))),
    )  # fmt: skip
    return {program.name: program for program in each}


def surroundings() -> dict[str, str]:
    """Return the environment of every process: this tree's package, and nothing of a user's settings."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("PRATIPAD_", "HUNT_"))}
    return kept | {"PYTHONPATH": f"{HERE / 'clock'}{os.pathsep}{HERE.parent.parent}"}


def run_command(folder: Path, *arguments: str) -> str:
    """Run a command of `pratipad` to its end, and return its output."""
    command = [*PRATIPAD, *arguments]
    ran = subprocess.run(command, cwd=folder, env=surroundings(), capture_output=True, text=True, timeout=60)
    if ran.returncode:
        raise RuntimeError(f"pratipad {' '.join(arguments)} ended with {ran.returncode}: {ran.stderr}")
    return ran.stdout


class Process:
    """A program that is started, ended and started again."""

    def __init__(self, program: Program, folder: Path, hosts: Hosts) -> None:
        self.name = program.name
        self.starts = 0
        #: Whether the process was told to end.
        self.told = True
        #: With how many instances an edge starts; another process has none.
        self.instances = 1
        #: What the next start is told besides, once.
        self.besides: tuple[str, ...] = ()
        self._program = program
        self._folder = folder
        self._hosts = hosts
        self._popen: subprocess.Popen[bytes] | None = None
        self._frozen: list[psutil.Process] = []
        self._clock = folder / f"{self.name}.clock"
        self.set_clock(0.0)

    def book(self, kind: str, party: str = "") -> Path:
        """Return the book of that kind that this start writes, or one of its devices."""
        return self._folder / f"{party or self.name}-{self.starts}.{kind}"

    def start(self) -> None:
        self.starts += 1
        self.told = False
        command = [*self._hosts.at(self.name), *self._program.command, *self.besides]
        self.besides = ()
        with (
            (self._folder / f"{self.name}.out").open("ab") as out,
            (self._folder / f"{self.name}.log").open("ab") as log,
        ):
            log.write(f"--- start {self.starts}\n".encode())
            log.flush()
            self._popen = subprocess.Popen(
                command,
                cwd=self._folder,
                env=self._environment(),
                stdin=subprocess.PIPE,
                stdout=out,
                stderr=log,
            )

    def _environment(self) -> dict[str, str]:
        return surroundings() | self._program.environment | {
            "HUNT_CERTS": f"{self.name}-certs",
            "HUNT_CLOCK": str(self._clock),
            "HUNT_CONCURRENCY": str(self.instances),
            "HUNT_DEVICES": ",".join(self._program.devices or ROOMS),
            "HUNT_SENT": str(self.book("sent")),
            "HUNT_SERVER": self._hosts.url,
            "HUNT_START": str(self.starts),
        }  # fmt: skip

    def end(self, number: int) -> None:
        """Send a signal that ends the process."""
        self.told = True
        if self._popen is not None:
            self._popen.send_signal(number)

    def rival(self) -> subprocess.Popen[bytes] | None:
        """Start the program once more beside the process that runs, and return that process."""
        older = self._popen
        if older is not None and older.stdin is not None:
            older.stdin.close()
        self.start()
        return older

    def freeze(self) -> None:
        """Stop the process, and those that it has started."""
        self._frozen = self._tree()
        for each in self._frozen:
            with contextlib.suppress(psutil.NoSuchProcess):  # it has just ended
                each.suspend()

    def thaw(self) -> None:
        """Let the process go on, and those that it has started."""
        for each in self._frozen:
            with contextlib.suppress(psutil.NoSuchProcess):
                each.resume()
        self._frozen = []

    def crash(self, name: str) -> None:
        """Kill the processes of that name which this process has started."""
        for each in self._tree()[1:]:
            with contextlib.suppress(psutil.NoSuchProcess):
                if each.name() == name:
                    each.kill()

    def _tree(self) -> list[psutil.Process]:
        if self._popen is None or self._popen.poll() is not None:
            return []
        try:
            process = psutil.Process(self._popen.pid)
            return [process, *process.children(recursive=True)]
        except psutil.NoSuchProcess:  # it has just ended
            return []

    def set_clock(self, off: float) -> None:
        """Set the process's clock so many seconds off the true time."""
        if not self._clock.exists():
            self._clock.write_bytes(bytes(8))
        with self._clock.open("r+b") as file:
            file.write(struct.pack("d", off))

    def command(self, *words: str) -> None:
        """Write a command to the process's stdin."""
        if self._popen is None or self._popen.stdin is None or self._popen.poll() is not None:
            return
        with contextlib.suppress(BrokenPipeError):  # it has just ended
            self._popen.stdin.write((" ".join(words) + "\n").encode())
            self._popen.stdin.flush()

    @property
    def code(self) -> int | None:
        """The exit code, None while the process runs."""
        return self._popen.poll() if self._popen is not None else 0

    @property
    def last_words(self) -> str:
        """The last line of the log."""
        return (self._folder / f"{self.name}.log").read_text(errors="replace").splitlines()[-1]

    def destroy(self) -> None:
        """End the process, whatever it does."""
        if self._popen is not None:
            self.thaw()
            self._popen.kill()
            self._popen.wait()
            if self._popen.stdin is not None:
                self._popen.stdin.close()


#: What ends a process, by the kind of fault.
SIGNALS = {"kill": signal.SIGKILL, "stop": signal.SIGTERM}
