"""What a fault does: to a process, to a link, to a disk, to a clock, or to the flow as a user changes it.

Owns making each kind of fault happen and undoing it. When that is, and what it must not do to the results, is
for `hunt`.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Protocol

from hosts import Hosts
from programs import SIGNALS, Process
from rewinding import rewind_inputs
from schedule import EDGES, Fault

__all__ = ["Doing", "Starting"]


class Starting(Protocol):
    """What starts a process again."""

    def __call__(self, name: str) -> None:
        """Start the process of that name again."""


class Doing:
    """Makes faults happen.

    Parameters
    ----------
    processes
        All processes by their names.
    restart
        Starts a process again once it has ended; it writes its books from then on.
    supersede
        Starts a process again beside the one that runs, which has to end by itself.
    """

    def __init__(
        self,
        folder: Path,
        hosts: Hosts,
        processes: dict[str, Process],
        restart: Starting,
        supersede: Starting,
    ) -> None:
        self._hosts = hosts
        self._processes = processes
        self._restart = restart
        self._mended = folder / "mended"
        self._certs = folder / "edge2-certs"
        self._begins: dict[str, Callable[[Fault], None]] = {
            "kill": self._end_process,
            "stop": self._end_process,
            "crash": lambda fault: self._of(fault).crash("nats-server"),
            "freeze": lambda fault: self._of(fault).freeze(),
            "long-freeze": lambda fault: self._of(fault).freeze(),
            "full": lambda fault: hosts.fill(fault.target),
            "cut": lambda fault: hosts.cut(fault.target, None),
            "half-open": lambda fault: hosts.cut(fault.target, fault.amount),
            "clock": lambda fault: self._of(fault).set_clock(-fault.amount),
            "swap": lambda fault: self._of(fault).command("swap"),
            "concurrency": self._change_concurrency,
            "rewind": self._rewind,
            "rival": lambda fault: supersede(fault.target),
            "mend": lambda _: self.retry(),
        }
        self._undoes: dict[str, Callable[[Fault], None]] = {
            "kill": lambda fault: restart(fault.target),
            "stop": lambda fault: restart(fault.target),
            "freeze": lambda fault: self._of(fault).thaw(),
            "long-freeze": lambda fault: self._of(fault).thaw(),
            "full": lambda fault: hosts.empty(fault.target),
            "cut": lambda fault: hosts.mend(fault.target),
            "half-open": lambda fault: hosts.mend(fault.target),
            "clock": lambda fault: self._of(fault).set_clock(0.0),
            "mend": lambda _: self._mended.unlink(),
        }

    def begin(self, fault: Fault) -> None:
        """Make a fault happen."""
        self._begins[fault.kind](fault)

    def undo(self, fault: Fault) -> None:
        """Undo a fault, if it is of a kind that lasts."""
        undo = self._undoes.get(fault.kind)
        if undo is not None:
            undo(fault)

    def retry(self) -> None:
        """Mend the processor that fails, and let all edges retry their dead letters."""
        self._mended.touch()
        for edge in EDGES:
            self._processes[edge].command("retry")

    def _of(self, fault: Fault) -> Process:
        return self._processes[fault.target]

    def _end_process(self, fault: Fault) -> None:
        self._of(fault).end(SIGNALS[fault.kind])

    def _change_concurrency(self, fault: Fault) -> None:
        edge = self._of(fault)
        edge.instances = int(fault.amount)
        edge.command("concurrency", str(edge.instances))

    def _rewind(self, fault: Fault) -> None:
        if fault.target == "input":
            rewind_inputs(self._hosts.url, "house", self._certs)
            return
        reader = self._of(fault)
        reader.besides = ("--from", "oldest")
        reader.end(SIGNALS["stop"])
        self._restart(fault.target)
