"""The schedule of a hunt: which faults come in which round, made from a seed.

Owns the kinds of faults, their targets, and how often and how long each happens. Making a fault happen is for
`hunt`.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, replace

__all__ = ["KINDS", "NAMESPACED", "SHORT", "Fault", "Kind", "schedule"]

#: How likely a round has two faults.
BOTH = 0.3
PROCESSES = ("server", "edge1", "edge2", "below", "above", "archive", "desk")
EDGES = ("edge1", "edge2")
REMOTE = ("edge2", "above", "desk")


@dataclass(frozen=True)
class Kind:
    """A kind of fault.

    Attributes
    ----------
    name, does
        The kind's name, and what it does to its target, in words.
    targets
        What the fault can happen to.
    weight
        How often the kind comes, beside the others.
    least, most
        How long it lasts, in seconds: mostly short. `most` is None where the option `--longest` decides.
    ends
        Whether the target is out of action meanwhile, so that no second fault can need it.
    amount
        Draws what else the fault needs: a clock's seconds, a number of instances.
    """

    name: str
    does: str
    targets: Sequence[str]
    weight: float
    least: float = 0.0
    most: float | None = None
    ends: bool = False
    amount: Callable[[random.Random], float] = lambda _: 0


def _seconds_back(chance: random.Random) -> float:
    """Draw how far a clock is set back: from a second to fifty years."""
    return round(10 ** chance.uniform(0.0, 9.2))


def _instances(chance: random.Random) -> float:
    return chance.randint(1, 4)


#: All kinds by their names.
KINDS = {
    kind.name: kind
    for kind in (
        Kind("kill", "kill -9, started again", PROCESSES, 24, ends=True),
        Kind("stop", "SIGTERM, started again", PROCESSES, 12, ends=True),
        Kind("crash", "kill -9 of the NATS server alone", ("server",), 4, most=0.0),
        Kind("freeze", "SIGSTOP, SIGCONT", PROCESSES, 10, least=0.1, most=4.0, ends=True),
        Kind("long-freeze", "SIGSTOP longer than any time-out", PROCESSES, 1.5, least=35, most=40, ends=True),
        Kind("full", "disk full, then room again", ("server", "above"), 6, least=0.5, most=6.0),
        Kind("cut", "link cut, then whole again", REMOTE, 6, least=0.1, most=12.0),
        Kind("half-open", "packets of one direction lost", REMOTE, 4, least=0.1, most=20.0,
             amount=lambda chance: chance.randint(0, 1)),
        Kind("clock", "clock set back while the process runs", ("edge1", "edge2", "below", "above"), 6,
             amount=_seconds_back),
        Kind("swap", "hot swap", EDGES, 8, most=0.0),
        Kind("concurrency", "other number of instances", EDGES, 8, most=0.0, amount=_instances),
        Kind("rewind", "input sent again; reader from the oldest on", ("input", "archive"), 5, most=0.0),
        Kind("rival", "a newer reader of the name takes over", ("archive",), 4, most=0.0),
        Kind("mend", "dead letters retried once mended", ("fragile",), 6, least=0.2, most=2.0),
    )
}  # fmt: skip
#: The kinds that need namespaces: links and disks of their own.
NAMESPACED = frozenset({"full", "cut", "half-open"})
#: The kinds that a test run has time for.
SHORT = tuple(name for name in KINDS if name not in NAMESPACED | {"long-freeze"})


@dataclass(frozen=True)
class Fault:
    """A fault that begins `at` seconds from the start of a round, and is over after `pause` seconds."""

    kind: str
    target: str
    at: float
    pause: float
    amount: float = 0

    def __str__(self) -> str:
        amount = f" ({self.amount:g})" if self.amount else ""
        lasts = f" for {self.pause:.2f} s" if self.pause else ""
        return f"{self.kind} {self.target}{amount} at {self.at:.2f} s{lasts}"


def schedule(
    seed: int, kinds: Sequence[str], longest: float, targets: Collection[str] = ()
) -> Iterator[tuple[Fault, ...]]:
    """Give the faults of each round, without end.

    A process is away for at most `longest` seconds. With `targets`, faults happen to these alone.
    """
    chance = random.Random(seed)
    chosen = [
        replace(kind, targets=[target for target in kind.targets if not targets or target in targets])
        for kind in map(KINDS.__getitem__, kinds)
    ]
    chosen = [kind for kind in chosen if kind.targets]
    weights = [kind.weight for kind in chosen]

    def draw(at: float) -> Fault:
        (kind,) = chance.choices(chosen, weights)
        most = longest if kind.most is None else kind.most
        pause = kind.least + max(0.0, most - kind.least) * chance.random() ** 2
        return Fault(kind.name, chance.choice(kind.targets), at, pause, kind.amount(chance))

    while True:
        at = chance.uniform(0.2, 1.0)
        faults = [draw(at)]
        if chance.random() < BOTH:
            second = draw(at + chance.uniform(0.0, 0.3))
            if not _clash(faults[0], second):
                faults.append(second)
        yield tuple(faults)


def _clash(first: Fault, second: Fault) -> bool:
    """Return whether two faults can't happen together: both end the same process, or are the same kind."""
    if first.target == second.target:
        return first.kind == second.kind or (KINDS[first.kind].ends and KINDS[second.kind].ends)
    return first.kind == second.kind == "mend"
