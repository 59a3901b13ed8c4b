"""The processes of a hunt, as a user runs them: started, ended, started again.

Owns each process's command, environment and files. When something happens to a process is for `hunt`; the
machines on which the processes run are for `hosts`.
"""

from __future__ import annotations

import os
import signal
import struct
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

import psutil
from hosts import Hosts
from ledger import POISON_EVERY, REPLY_EVERY

__all__ = ["PARTIES", "ROOMS", "Process", "Program", "programs", "run_command"]

HERE = Path(__file__).parent
PRATIPAD = (sys.executable, "-m", "pratipad_nb.cli.main")
ROOMS = ("room1", "room2")
#: The parties elsewhere, and the certificate folders that let them in: what `certs issue` is given.
PARTIES = {"edge2": ("edge", "house"), "room2": ("device", "room2"), "desk": ("reader", "desk")}


@dataclass(frozen=True)
class Program:
    """A process as a user runs it: its command, and what its environment has besides."""

    name: str
    command: tuple[str, ...]
    environment: dict[str, str] = field(default_factory=dict)


def programs(hosts: Hosts) -> dict[str, Program]:
    """Return the programs, in the order in which they are started.

    The first edge, the first room and the readers live beside the server, and find it in the state folder.
    The parties elsewhere have a certificate folder and a link of their own.
    """
    house, room = str(HERE / "hunted_house.py"), str(HERE / "hunted_room.py")
    cloud = (*PRATIPAD, "cloud", "house", "--reader")
    each = (
        Program("server", (*PRATIPAD, "server", *hosts.listening)),
        Program("edge1", (*PRATIPAD, "run", house, "--join")),
        Program("edge2", (*PRATIPAD, "run", house, "--certs", "edge2-certs")),
        Program("room1", (*PRATIPAD, "device", room, "--flow", "house"), {"HUNT_KEEP": ""}),
        Program("room2", (*PRATIPAD, "device", room, "--certs", "room2-certs"), {"HUNT_KEEP": "outbox"}),
        Program("archive", (*cloud, "archive", "--sqlite", "house.db", "--quiet")),
        Program("witness", (*cloud, "witness")),
        Program("desk", (sys.executable, str(HERE / "hunted_desk.py")), {"HUNT_ROOMS": ",".join(ROOMS)}),
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

    def book(self, kind: str) -> Path:
        """Return the book of that kind that this start writes."""
        return self._folder / f"{self.name}-{self.starts}.{kind}"

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
            "HUNT_DEVICE": self.name,
            "HUNT_POISON_EVERY": str(POISON_EVERY),
            "HUNT_RECEIPTS": str(self.book("receipts")),
            "HUNT_REPLY_EVERY": str(REPLY_EVERY),
            "HUNT_RUN": str(self.book("run")),
            "HUNT_SENT": str(self.book("sent")),
            "HUNT_SERVER": self._hosts.url,
            "HUNT_START": str(self.starts),
        }  # fmt: skip

    def end(self, number: int) -> None:
        """Send a signal that ends the process."""
        self.told = True
        if self._popen is not None:
            self._popen.send_signal(number)

    def freeze(self) -> None:
        """Stop the process, and those that it has started."""
        self._frozen = self._tree()
        for each in self._frozen:
            each.suspend()

    def thaw(self) -> None:
        """Let the process go on, and those that it has started."""
        for each in self._frozen:
            if each.is_running():
                each.resume()
        self._frozen = []

    def crash(self, name: str) -> None:
        """Kill the processes of that name which this process has started."""
        for each in self._tree()[1:]:
            if each.name() == name:
                each.kill()

    def _tree(self) -> list[psutil.Process]:
        if self._popen is None or self._popen.poll() is not None:
            return []
        process = psutil.Process(self._popen.pid)
        return [process, *process.children(recursive=True)]

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
        try:
            self._popen.stdin.write((" ".join(words) + "\n").encode())
            self._popen.stdin.flush()
        except BrokenPipeError:
            pass  # it has just ended

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
