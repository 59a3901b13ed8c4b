"""A hunt for what is lost, doubled or reordered: a flow's processes are killed and stopped in rounds.

    python tests/faults/rounds.py --rounds 20 --seed 7        (or: make hunt ROUNDS=20 SEED=7)

Five processes run as a user runs them, on the command line: a server, an edge, a device that keeps its
outbox, a device that keeps none, and a named reader that writes into SQLite. A sixth process is never ended:
the witness, a reader with a name of its own, which prints what stands at Output. The database keeps one row
of a message that a killed reader reads again; the witness reads each result once, so that a result which
stands at Output twice is seen.

In a round one process, at times two, is ended at a seeded moment and started again after a seeded pause. The
round is over when new messages of both devices arrive, and all that was promised until then has arrived.
Devices push all the while. A message is promised once its receipt is done, or, by a device that keeps its
outbox, once `push` returns.

The same seed makes the same schedule; `--plan` prints the schedule. At the end the hunt prints one line. Its
exit code is 1 if anything was lost, doubled or reordered, and also if a process ended that was not told to,
or a process did not end that was told to. The logs of all processes, the books and the store then stay in a
folder that is named. The longest stall is the longest time from the last start of a round's processes to the
end of that round.
"""

from __future__ import annotations

import argparse
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from books import DatabaseBook, Ledger, OutputBook, ReceiptBook

HERE = Path(__file__).parent
COMMAND = [sys.executable, "-m", "pratipad_nb.cli.main"]
#: Each kind of fault, and the signal that makes it.
KINDS = {"kill": signal.SIGKILL, "stop": signal.SIGTERM}
#: How often the books are looked into, in seconds.
LOOK_SECONDS = 0.05
#: How likely a round has two faults.
BOTH = 0.25


@dataclass(frozen=True)
class Program:
    """A process as a user runs it: what comes behind `pratipad`, and of a device the folder of its outbox."""

    name: str
    arguments: tuple[str, ...]
    keep: str | None = None


SERVER = Program("server", ("server",))
EDGE = Program("edge", ("run", str(HERE / "hunted_house.py"), "--join"))
ROOMS = tuple(
    Program(name, ("device", str(HERE / "hunted_room.py"), "--flow", "house"), keep)
    for name, keep in (("room1", ""), ("room2", "outbox"))
)
READER = Program("reader", ("cloud", "house", "--reader", "archive", "--sqlite", "house.db", "--quiet"))
#: Never ended.
WITNESS = Program("witness", ("cloud", "house", "--reader", "witness"))
#: What is ended, in the order in which the processes are started.
HUNTED = (SERVER, EDGE, *ROOMS, READER)


@dataclass(frozen=True)
class Fault:
    """A process is ended `at` seconds from the start of a round, and started again after `pause` seconds."""

    kind: str
    process: str
    at: float
    pause: float

    def __str__(self) -> str:
        return f"{self.kind} {self.process} at {self.at:.2f} s for {self.pause:.2f} s"


def schedule(seed: int, kinds: tuple[str, ...], longest: float) -> Iterator[tuple[Fault, ...]]:
    """Give the faults of each round, without end; the pauses are at most `longest`, and mostly short."""
    chance = random.Random(seed)
    names = [each.name for each in HUNTED]
    while True:
        at = chance.uniform(0.0, 1.0)
        yield tuple(
            Fault(chance.choice(kinds), name, at + chance.uniform(0.0, 0.2), longest * chance.random() ** 2)
            for name in chance.sample(names, 2 if chance.random() < BOTH else 1)
        )


class Process:
    """A program that is started, ended and started again."""

    def __init__(self, program: Program, folder: Path) -> None:
        self.program = program
        self.starts = 0
        #: Whether the process was told to end.
        self.told = True
        self._folder = folder
        self._popen: subprocess.Popen[bytes] | None = None

    @property
    def receipts(self) -> Path:
        """The book that this start of a device writes."""
        return self._folder / f"{self.program.name}-{self.starts}.receipts"

    def start(self) -> None:
        self.starts += 1
        self.told = False
        name = self.program.name
        environment = {k: v for k, v in os.environ.items() if not k.startswith(("PRATIPAD_", "HUNT_"))}
        if self.program.keep is not None:
            environment |= {
                "HUNT_DEVICE": name,
                "HUNT_START": str(self.starts),
                "HUNT_KEEP": self.program.keep,
                "HUNT_RECEIPTS": str(self.receipts),
            }
        with (
            (self._folder / f"{name}.out").open("ab") as out,
            (self._folder / f"{name}.log").open("ab") as log,
        ):
            log.write(f"--- start {self.starts}\n".encode())
            log.flush()
            self._popen = subprocess.Popen(
                [*COMMAND, *self.program.arguments], cwd=self._folder, env=environment, stdout=out, stderr=log
            )

    def end(self, number: int) -> None:
        """Send a signal that ends the process."""
        self.told = True
        if self._popen is not None:
            self._popen.send_signal(number)

    @property
    def code(self) -> int | None:
        """The exit code, None while the process runs."""
        return self._popen.poll() if self._popen is not None else 0

    @property
    def last_words(self) -> str:
        """The last line of the log."""
        return (self._folder / f"{self.program.name}.log").read_text(errors="replace").splitlines()[-1]

    def destroy(self) -> None:
        """End the process, whatever it does."""
        if self._popen is not None:
            self._popen.kill()
            self._popen.wait()


class Stuck(Exception):
    """The flow does not go on."""


class Hunt:
    """The processes, their books, and what happens to them.

    Parameters
    ----------
    folder
        Where everything lies.
    patience
        How long a round's end, or the end of a process, is waited for, in seconds.
    """

    def __init__(self, folder: Path, patience: float) -> None:
        self._patience = patience
        self._processes = {each.name: Process(each, folder) for each in (*HUNTED, WITNESS)}
        self._database = DatabaseBook(folder / "house.db")
        self.ledger = Ledger({"reader": self._database, "witness": OutputBook(folder / "witness.out")})
        self.faults: Counter[str] = Counter()
        self.rounds = 0
        self.longest_stall = 0.0
        #: What happened besides, a sentence each.
        self.findings: list[str] = []

    def __enter__(self) -> Hunt:
        return self

    def __exit__(self, *_: object) -> None:
        for each in reversed(self._processes.values()):
            each.destroy()
        self.ledger.update()
        self._database.close()

    def run(self, rounds: Iterator[tuple[Fault, ...]]) -> None:
        """Start everything, do all rounds, and end everything so that nothing is left under way."""
        try:
            for name in self._processes:
                self._start(name)
            self._settle()
            for faults in rounds:
                stall = self._round(faults)
                self.longest_stall = max(self.longest_stall, stall)
                tell(f"round {self.rounds}: {', '.join(map(str, faults))}: {stall:.1f} s{self._wrong()}")
            self._finish()
        except Stuck as stuck:
            self.findings.append(str(stuck))

    def _round(self, faults: tuple[Fault, ...]) -> float:
        """Do one round; return how long its stall was."""
        self.rounds += 1
        began = time.monotonic()
        ends = [(fault.at, fault, self._end) for fault in faults]
        starts = [(fault.at + fault.pause, fault, self._start_again) for fault in faults]
        for at, fault, act in sorted(ends + starts, key=lambda each: each[0]):
            self._watch(lambda: False, began + at - time.monotonic())
            act(fault)
        return self._settle()

    def _end(self, fault: Fault) -> None:
        self.faults[f"{fault.kind} {fault.process}"] += 1
        self._processes[fault.process].end(KINDS[fault.kind])

    def _start_again(self, fault: Fault) -> None:
        self._await_end(fault.process)
        self._start(fault.process)

    def _start(self, name: str) -> None:
        process = self._processes[name]
        self.ledger.update()
        if process.program is WITNESS:
            self.ledger.arrivals[name].resume()  # started again, it has ended by itself, which is a finding
        process.start()
        if process.program.keep is not None:
            self.ledger.expect(ReceiptBook(process.receipts, name, process.starts))

    def _await_end(self, name: str) -> None:
        """Wait for the end of a process that was told to end; a process that goes on is a finding."""
        process = self._processes[name]
        if not self._watch(lambda: process.code is not None, self._patience):
            self.findings.append(f"{name} did not end in {self._patience:g} s: {process.last_words}")
            process.destroy()

    def _watch(self, done: Callable[[], bool], seconds: float) -> bool:
        """Read the books until `done`, or for so many seconds; return whether it was done.

        A process that ends meanwhile without being told to is a finding, and is started again.
        """
        until = time.monotonic() + seconds
        while not (finished := done()) and time.monotonic() < until:
            self.ledger.update()
            for name, process in self._processes.items():
                if process.code is not None and not process.told:
                    self.findings.append(f"{name} ended by itself ({process.code}): {process.last_words}")
                    self._start(name)
            time.sleep(LOOK_SECONDS)
        return finished

    def _settle(self) -> float:
        """Wait until new messages of both devices arrive, and all that is promised by now.

        Returns how long that took.
        """
        began = time.monotonic()
        self.ledger.update()
        readers = self.ledger.arrivals.values()
        before = [dict(each.latest) for each in readers]
        owed = [set(each.owed) for each in readers]

        def goes_on() -> bool:
            return all(
                (latest := arrivals.latest.get(room.name)) is not None
                and latest.start == self._processes[room.name].starts
                and latest != past.get(room.name)
                for arrivals, past in zip(readers, before, strict=True)
                for room in ROOMS
            )

        def arrived() -> bool:
            return all(
                arrivals.overtaken(key) for arrivals, keys in zip(readers, owed, strict=True) for key in keys
            )

        if not self._watch(lambda: goes_on() and arrived(), self._patience):
            raise Stuck(
                f"{self._patience:g} s after round {self.rounds}, not all that was promised has arrived"
            )
        return time.monotonic() - began

    def _finish(self) -> None:
        """End the devices, which send what they hold; then the others, when both readers have all."""
        for room in ROOMS:
            self._stop(room.name)
        self._watch(lambda: not self.ledger.under_way, self._patience)
        for program in (EDGE, READER, WITNESS, SERVER):
            self._stop(program.name)
        self.ledger.update()

    def _stop(self, name: str) -> None:
        process = self._processes[name]
        process.end(signal.SIGTERM)
        self._await_end(name)
        if process.code:
            self.findings.append(f"{name} ended with {process.code}: {process.last_words}")

    def _wrong(self) -> str:
        """Say what is wrong by now, with a comma before."""
        ledger = self.ledger
        counts = {
            "lost": len(ledger.lost - ledger.under_way),
            "doubled": len(ledger.doubled),
            "reordered": len(ledger.reordered),
            "findings": len(self.findings),
        }
        return "".join(f", {name} {count}" for name, count in counts.items() if count)

    @property
    def failed(self) -> bool:
        """Whether anything is wrong."""
        ledger = self.ledger
        return bool(ledger.lost or ledger.doubled or ledger.reordered or self.findings)

    def line(self, seed: int, seconds: float) -> str:
        """Return the line of this run."""
        faults = ", ".join(f"{count} {name}" for name, count in sorted(self.faults.items()))
        ledger = self.ledger
        return (
            f"seed {seed}: {self.rounds} rounds in {seconds:.0f} s, {ledger.receipts:,} receipts; "
            f"faults: {faults or 'none'}; "
            f"lost {len(ledger.lost)}, doubled {len(ledger.doubled)}, reordered {len(ledger.reordered)}, "
            f"longest stall {self.longest_stall:.1f} s"
        )


def examples(done: Hunt) -> Iterator[str]:
    """Give the first few messages of each kind that went wrong, and the findings."""
    for kind in ("lost", "doubled", "reordered"):
        keys = sorted(getattr(done.ledger, kind))
        if keys:
            shown = ", ".join(f"{key.device} start {key.start} number {key.number}" for key in keys[:5])
            yield f"{kind}: {shown}{', …' if len(keys) > 5 else ''}"
    yield from done.findings


def tell(text: str) -> None:
    """Say how far the hunt is, beside its line."""
    print(text, file=sys.stderr, flush=True)


def hunt(seed: int, rounds: Iterator[tuple[Fault, ...]], patience: float) -> int:
    """Do the rounds, print the line, and return the exit code."""
    folder = Path(tempfile.mkdtemp(prefix="pratipad-hunt-"))
    tell(f"seed {seed}, in {folder}")
    began = time.monotonic()
    with Hunt(folder, patience) as running:
        running.run(rounds)
    print(running.line(seed, time.monotonic() - began), flush=True)
    if not running.failed:
        shutil.rmtree(folder, ignore_errors=True)
        return 0
    for example in examples(running):
        print(f"  {example}")
    print(f"  the logs, the books and the store: {folder}")
    print(f"  the same schedule again: --seed {seed}, the other options as they were", flush=True)
    return 1


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument(
        "--seed", type=int, help="what the schedule is made from; default: another one each time"
    )
    parser.add_argument("--faults", default=",".join(KINDS), help="which faults, with commas between them")
    parser.add_argument("--longest", type=float, default=6.0, help="the longest pause, in seconds")
    parser.add_argument(
        "--patience",
        type=float,
        default=120.0,
        help="how long the end of a round, or of a process, is waited for, in seconds",
    )
    parser.add_argument("--plan", action="store_true", help="print the schedule, and do nothing")
    options = parser.parse_args()
    kinds = tuple(options.faults.split(","))
    if unknown := [kind for kind in kinds if kind not in KINDS]:
        parser.error(f"--faults has {unknown[0]!r}; it can have {', '.join(KINDS)}.")
    seed = options.seed if options.seed is not None else random.randrange(1_000_000)
    rounds = islice(schedule(seed, kinds, options.longest), options.rounds)
    if options.plan:
        for number, faults in enumerate(rounds, 1):
            print(f"round {number}: {', '.join(map(str, faults))}")
        return
    # An exit ends all processes, which a signal would leave behind.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    sys.exit(hunt(seed, rounds, options.patience))


if __name__ == "__main__":
    main()
