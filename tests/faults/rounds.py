"""A hunt for what is lost, doubled, reordered or inexact: a flow's parts suffer seeded faults in rounds.

    python tests/faults/rounds.py --rounds 20 --seed 7        (or: make hunt ROUNDS=20 SEED=7)

Seven processes run as a user runs them: a server, two edges that share a flow of four partitions, two devices
that keep their outboxes, two devices that keep none, a named reader that writes into SQLite, and a desk that
sends orders. The flow has a processor that fails on poisoned messages until it is mended, and a processor
with state, whose value is in every result. An eighth process is never harmed: the witness, a reader with a
name of its own, which prints what stands at Output. The database keeps one row of a message that a killed
reader reads again; the witness reads each result once, so that a result which stands at Output twice is seen.

In a round a fault happens, at times two (`schedule.py` lists the kinds). The round is over when new messages
of all devices arrive, new orders reach all devices, and all that was promised until then has arrived.
Devices push all the while. A message is promised once its receipt is done, or, by a device that keeps its
outbox, once the message is kept. An order is promised once `send` returns. A dead letter is retried, and
arrives once.

With links that are cut and disks that are full the hunt runs in namespaces of its own (`hosts.py`).

The same seed makes the same schedule; `--plan` prints the schedule. At the end the hunt prints one line, and
with `--keep` keeps that line, and a line a round, in `docs/hunt.txt` and in the README. Its exit code is 1 if
anything was lost, doubled, reordered or inexact, and also if a process ended that was not told to, or a
process did not end that was told to. The logs of all processes, the books and the store then stay in a folder
that is named. The longest stall is the longest time from the end of a round's faults to the end of that
round.
"""

from __future__ import annotations

import argparse
import random
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

from hosts import Hosts, Namespaces, enter_namespaces
from hunt import Hunt
from kept import heading, keep
from programs import PARTIES
from schedule import KINDS, NAMESPACED, SHORT, Fault, schedule


class Log:
    """Says how far the hunt is, beside its line, and notes it."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def __call__(self, text: str) -> None:
        print(text, file=sys.stderr, flush=True)
        self.lines.append(text)


def hunt(seed: int, rounds: Iterator[tuple[Fault, ...]], options: argparse.Namespace) -> int:
    """Do the rounds, print the line, and return the exit code."""
    folder = Path(tempfile.mkdtemp(prefix="pratipad-hunt-"))
    tell = Log()
    print(f"seed {seed}, in {folder}", file=sys.stderr, flush=True)
    hosts = Namespaces(folder, tuple(PARTIES)) if needs_namespaces(options.faults) else Hosts(folder)
    began = time.monotonic()
    try:
        with Hunt(folder, hosts, options.patience, tell) as running:
            running.run(rounds)
        if running.failed:
            for disk in (".pratipad", "outbox"):  # what a disk of the hunt's own holds goes with the disk
                shutil.copytree(folder / disk, folder / f"{disk.strip('.')}-kept", dirs_exist_ok=True)
    finally:
        hosts.close()
    line = running.line(seed, time.monotonic() - began)
    print(line, flush=True)
    if options.keep:
        keep([heading(seed, options.rounds, besides(options)), *tell.lines, line])
    if not running.failed:
        shutil.rmtree(folder, ignore_errors=True)
        return 0
    for example in running.examples():
        print(f"  {example}")
    print(f"  the logs, the books and the store: {folder}")
    print(f"  the same schedule again: --seed {seed}, the other options as they were", flush=True)
    return 1


def besides(options: argparse.Namespace) -> str:
    """Return the options that a run was given besides its rounds and its seed, as they are written."""
    given = []
    if options.faults != tuple(KINDS):
        given.append(f"--faults {','.join(options.faults)}")
    if options.targets:
        given.append(f"--targets {','.join(options.targets)}")
    return " ".join(given)


def needs_namespaces(kinds: tuple[str, ...]) -> bool:
    """Whether one of the faults needs links or disks that can fail."""
    return bool(NAMESPACED & set(kinds))


def kinds_of(text: str) -> tuple[str, ...]:
    """Return the kinds of faults that an option names."""
    kinds = SHORT if text == "short" else tuple(KINDS) if text == "all" else tuple(text.split(","))
    if unknown := [kind for kind in kinds if kind not in KINDS]:
        raise argparse.ArgumentTypeError(f"{unknown[0]!r} is none; it can be all, short, {', '.join(KINDS)}")
    return kinds


def targets_of(text: str) -> tuple[str, ...]:
    """Return the targets of faults that an option names."""
    targets = tuple(filter(None, text.split(",")))
    known = sorted({target for kind in KINDS.values() for target in kind.targets})
    if unknown := [target for target in targets if target not in known]:
        raise argparse.ArgumentTypeError(f"{unknown[0]!r} is none; it can be {', '.join(known)}")
    return targets


def parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument(
        "--seed", type=int, help="what the schedule is made from; default: another one each time"
    )
    parser.add_argument(
        "--faults",
        type=kinds_of,
        default="all",
        help="which kinds of faults, with commas between them; or all, or short: those without long pauses",
    )
    parser.add_argument(
        "--targets",
        type=targets_of,
        default="",
        help="what alone the faults happen to, with commas between; default: anything",
    )
    parser.add_argument("--longest", type=float, default=6.0, help="how long a process is away, in seconds")
    parser.add_argument(
        "--patience",
        type=float,
        default=120.0,
        help="how long the end of a round, or of a process, is waited for, in seconds",
    )
    parser.add_argument(
        "--keep", action="store_true", help="keep the lines in docs/hunt.txt, and the last line in the README"
    )
    parser.add_argument("--plan", action="store_true", help="print the schedule, and do nothing")
    options = parser.parse_args()
    if not options.plan and needs_namespaces(options.faults) and (reason := enter_namespaces()):
        parser.error(
            f"{', '.join(sorted(NAMESPACED))} need namespaces, and there are none here: {reason}. Leave "
            "these faults out: --faults short"
        )
    return options


def main() -> None:
    options = parsed()
    seed = options.seed if options.seed is not None else random.randrange(1_000_000)
    rounds = islice(schedule(seed, options.faults, options.longest, options.targets), options.rounds)
    if options.plan:
        for number, faults in enumerate(rounds, 1):
            print(f"round {number}: {', '.join(map(str, faults))}")
        return
    # An exit ends all processes, which a signal would leave behind.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    sys.exit(hunt(seed, rounds, options))


if __name__ == "__main__":
    main()
