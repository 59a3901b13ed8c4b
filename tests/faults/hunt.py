"""A hunt: the processes of a flow, their books, and the rounds in which faults happen to them."""

from __future__ import annotations

import signal
import subprocess
import time
from collections import Counter
from collections.abc import Callable, Iterator
from itertools import chain
from pathlib import Path

from books import DatabaseBook, OutputBook, ReceiptBook, RunBook, SentBook
from doing import Doing
from hosts import Hosts
from ledger import Ledger
from orders import Order, OrderLedger
from programs import DEVICES, PARTIES, ROOMS, Process, programs, run_command
from schedule import EDGES, Fault
from states import Key

from pratipad_nb.cli.exits import TAKEN_OVER

__all__ = ["Hunt"]

#: How often the books are looked into, in seconds.
LOOK_SECONDS = 0.05
#: How often the dead letters are retried at the end, in seconds.
RETRY_SECONDS = 5.0


class Stuck(Exception):
    """The flow does not go on."""


class Hunt:
    """The processes, their books, and what happens to them.

    Parameters
    ----------
    folder
        Where everything lies.
    hosts
        The machines.
    patience
        How long a round's end, or the end of a process, is waited for, in seconds.
    tell
        Is told how each round was.
    """

    def __init__(self, folder: Path, hosts: Hosts, patience: float, tell: Callable[[str], None]) -> None:
        self._tell = tell
        self._folder = folder
        self._patience = patience
        self._processes = {name: Process(each, folder, hosts) for name, each in programs(hosts).items()}
        self._doing = Doing(folder, hosts, self._processes, self._start_again, self._supersede)
        self._database = DatabaseBook(folder / "house.db")
        self.ledger = Ledger({"archive": self._database, "witness": OutputBook(folder / "witness.out")})
        self.orders = OrderLedger()
        self.faults: Counter[str] = Counter()
        self._to_answer: set[Key] = set()
        #: Processes that go on though newer ones were started, by their names.
        self._superseded: list[tuple[str, subprocess.Popen[bytes]]] = []
        self.rounds = 0
        self.longest_stall = 0.0
        #: What happened besides, a sentence each.
        self.findings: list[str] = []

    def __enter__(self) -> Hunt:
        return self

    def __exit__(self, *_: object) -> None:
        for _, older in self._superseded:
            older.kill()
        for each in reversed(self._processes.values()):
            each.destroy()
        self._read()
        self._database.close()

    def run(self, rounds: Iterator[tuple[Fault, ...]]) -> None:
        """Start everything, do all rounds, and end everything so that nothing is left under way."""
        try:
            self._start_all()
            self._settle()
            for faults in rounds:
                stall = self._round(faults)
                self.longest_stall = max(self.longest_stall, stall)
                happened = ", ".join(map(str, faults))
                self._tell(f"round {self.rounds}: {happened}: {stall:.1f} s{self._wrong()}")
            self._finish()
        except Stuck as stuck:
            self.findings.append(str(stuck))

    def _start_all(self) -> None:
        """Start the server, let the parties elsewhere in, and start everything."""
        names = iter(self._processes)
        self._start(next(names))
        said = self._folder / "server.out"
        if not self._watch(lambda: "tls://" in said.read_text(), self._patience):
            raise Stuck("the server does not start")
        for role, party, folder in chain.from_iterable(PARTIES.values()):
            run_command(self._folder, "certs", "issue", role, party, "--flow", "house", "--out", folder)
        for name in names:
            self._start(name)

    def _round(self, faults: tuple[Fault, ...]) -> float:
        """Do one round; return how long its stall was."""
        self.rounds += 1
        began = time.monotonic()
        begins = [(fault.at, fault, self._begin) for fault in faults]
        ends = [(fault.at + fault.pause, fault, self._doing.undo) for fault in faults]
        for at, fault, act in sorted(begins + ends, key=lambda each: each[0]):
            self._watch(lambda: False, began + at - time.monotonic())
            act(fault)
        return self._settle()

    def _begin(self, fault: Fault) -> None:
        self.faults[fault.kind] += 1
        self._doing.begin(fault)

    def _start_again(self, name: str) -> None:
        self._await_end(name)
        self._start(name)

    def _supersede(self, name: str) -> None:
        """Start a process beside the one that runs; `_await_superseded` waits for the end of that one."""
        older = self._processes[name].rival()
        if older is not None:
            self._superseded.append((name, older))

    def _await_superseded(self) -> None:
        """Wait for the ends of processes that newer ones have taken over from; each has to say so.

        After the round's faults alone: while the server is away, nobody can tell the older process.
        """
        for name, older in self._superseded:
            if not self._watch(lambda older=older: older.poll() is not None, self._patience):
                self.findings.append(f"round {self.rounds}: the older {name} did not end")
                older.kill()
            elif older.returncode != TAKEN_OVER:
                self.findings.append(f"round {self.rounds}: the older {name} ended with {older.returncode}")
        self._superseded.clear()

    def _start(self, name: str) -> None:
        process = self._processes[name]
        self._read()
        if name == "witness":
            self.ledger.arrivals[name].resume()  # started again, it has ended by itself, which is a finding
        process.start()
        for room in DEVICES.get(name, ()):
            self.ledger.expect(ReceiptBook(process.book("receipts", room), room, process.starts))
            self.orders.follow(room, RunBook(process.book("run", room)))
        if name == "desk":
            self.orders.expect(SentBook(process.book("sent"), process.starts))

    def _await_end(self, name: str) -> None:
        """Wait for the end of a process that was told to end; a process that goes on is a finding."""
        process = self._processes[name]
        if not self._watch(lambda: process.code is not None, self._patience):
            self.findings.append(f"{name} did not end in {self._patience:g} s: {process.last_words}")
            process.destroy()

    def _read(self) -> None:
        self.ledger.update()
        self.orders.update()

    def _watch(self, done: Callable[[], bool], seconds: float) -> bool:
        """Read the books until `done`, or for so many seconds; return whether it was done.

        A process that ends meanwhile without being told to is a finding, and is started again.
        """
        until = time.monotonic() + seconds
        while not (finished := done()) and time.monotonic() < until:
            self._read()
            for name, process in self._processes.items():
                if process.code is not None and not process.told:
                    self.findings.append(
                        f"round {self.rounds}: {name} ended by itself ({process.code}): {process.last_words}"
                    )
                    self._start(name)
            time.sleep(LOOK_SECONDS)
        return finished

    def _settle(self) -> float:
        """Wait until new messages and orders of all devices arrive, and all that is promised by now.

        Returns how long that took.
        """
        began = time.monotonic()
        self._await_superseded()
        self._read()
        before = self._latest()
        owed = {
            name: {key for key in arrivals.owed if not key.poisoned}
            for name, arrivals in self.ledger.arrivals.items()
        }
        ordered = set(self.orders.owed)

        def arrived() -> bool:
            return self._goes_on(before) and not (
                any(self.ledger.arrivals[name].owed & keys for name, keys in owed.items())
                or self.orders.owed & ordered
            )

        if not self._watch(lambda: arrived() or self._too_late(owed), self._patience):
            raise Stuck(
                f"round {self.rounds}: {self._missing(before, owed, ordered)} in {self._patience:g} s"
            )
        return time.monotonic() - began

    def _latest(self) -> dict[str, dict[str, Key] | dict[str, Order]]:
        """Return the latest messages and orders, by who has them."""
        readers = {name: dict(each.latest) for name, each in self.ledger.arrivals.items()}
        return {**readers, "orders": dict(self.orders.latest)}

    def _goes_on(self, before: dict[str, dict[str, Key] | dict[str, Order]]) -> bool:
        """Whether each reader has a new message of each room's present start, and each room a new order."""
        return all(
            (latest := each.get(room)) is not None
            and latest != before[name].get(room)
            and (name == "orders" or latest.start == self._processes[process].starts)
            for name, each in self._latest().items()
            for process, rooms in DEVICES.items()
            for room in rooms
        )

    def _too_late(self, owed: dict[str, set[Key]]) -> bool:
        """Whether all that a reader still lacks is overtaken, so that waiting for it is of no use."""
        lacks = [(self.ledger.arrivals[name], key) for name, keys in owed.items() for key in keys]
        left = [(arrivals, key) for arrivals, key in lacks if key in arrivals.owed]
        return bool(left) and all(arrivals.overtaken(key) for arrivals, key in left)

    def _missing(
        self,
        before: dict[str, dict[str, Key] | dict[str, Order]],
        owed: dict[str, set[Key]],
        ordered: set[Order],
    ) -> str:
        """Say what has not arrived."""
        late = [
            f"{name} lacks {len(lacks)}, first {tuple(min(lacks))}"
            for name, keys in owed.items()
            if (lacks := self.ledger.arrivals[name].owed & keys)
        ]
        if lacking := self.orders.owed & ordered:
            late.append(f"{len(lacking)} orders did not come, first {tuple(min(lacking))}")
        late += [
            f"nothing new of {room} at {name}"
            for name, each in self._latest().items()
            for room in ROOMS
            if each.get(room) == before[name].get(room)
        ]
        return "; ".join(late) or "the devices' present starts are not heard of"

    # -- the end ---------------------------------------------------------------------------------------------

    def _finish(self) -> None:
        """End those who send, let what is under way and what was poisoned arrive, then end the others."""
        self._stop("desk")
        self._read()
        self._to_answer = set(self.ledger.answered)
        self._watch(lambda: not self.orders.owed and not self.unanswered, self._patience)
        for name in DEVICES:
            self._stop(name)
        end = time.monotonic() + self._patience
        while self.ledger.under_way and time.monotonic() < end:
            self._doing.retry()
            self._watch(lambda: not self.ledger.under_way, RETRY_SECONDS)
        for name in (*EDGES, "archive", "witness", "server"):
            self._stop(name)
        self._read()

    def _stop(self, name: str) -> None:
        process = self._processes[name]
        process.end(signal.SIGTERM)
        self._await_end(name)
        if process.code:
            self.findings.append(f"{name} ended with {process.code}: {process.last_words}")

    # -- the outcome -----------------------------------------------------------------------------------------

    @property
    def unanswered(self) -> set[Key]:
        """Results of which the device has not got the processor's answer; known at the end alone."""
        return self.orders.unanswered(self._to_answer)

    def counts(self) -> dict[str, int]:
        """Return how much went wrong, by kind; what is under way counts as lost."""
        return {
            "lost": len(self.ledger.lost),
            "doubled": len(self.ledger.doubled),
            "reordered": len(self.ledger.reordered),
            "wrong states": len(self.ledger.wrong),
            "orders lost": len(self.orders.owed),
            "orders doubled": len(self.orders.doubled),
            "orders reordered": len(self.orders.reordered),
            "answers lost": len(self.unanswered),
        }

    def _wrong(self) -> str:
        """Say what is wrong by now, with a comma before."""
        counts = self.counts() | {
            "lost": len(self.ledger.lost - self.ledger.under_way),
            "orders lost": len(self.orders.overtaken()),
            "findings": len(self.findings),
        }
        return "".join(f", {name} {count}" for name, count in counts.items() if count)

    @property
    def failed(self) -> bool:
        """Whether anything is wrong."""
        return bool(self.findings) or any(self.counts().values())

    def line(self, seed: int, seconds: float) -> str:
        """Return the line of this run."""
        faults = ", ".join(f"{count} {name}" for name, count in sorted(self.faults.items()))
        counts = ", ".join(f"{name} {count}" for name, count in self.counts().items())
        return (
            f"seed {seed}: {self.rounds} rounds in {seconds:.0f} s, {self.ledger.receipts:,} receipts, "
            f"{self.orders.sent:,} orders; faults: {faults or 'none'}; {counts}; "
            f"longest stall {self.longest_stall:.1f} s"
        )

    def examples(self) -> Iterator[str]:
        """Give the first few of each kind that went wrong, and the findings."""
        found = {
            "lost": self.ledger.lost,
            "doubled": self.ledger.doubled,
            "reordered": self.ledger.reordered,
            "wrong states": self.ledger.wrong,
            "orders lost": self.orders.owed,
            "orders doubled": self.orders.doubled,
            "orders reordered": self.orders.reordered,
            "answers lost": self.unanswered,
        }
        for kind, keys in found.items():
            if keys:
                shown = ", ".join(
                    f"{key.device} start {key.start} number {key.number}" for key in sorted(keys)[:5]
                )
                yield f"{kind}: {shown}{', …' if len(keys) > 5 else ''}"
        yield from self.findings
