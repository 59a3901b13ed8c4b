"""Does the suite see that a mechanism is switched off? Each mutation in turn, and the tests for it.

    python tests/faults/mutants.py                  (or: make mutants)
    python tests/faults/mutants.py --only fence

Each mutation is made in a copy of this tree, and its tests run there. A mutation that no test sees has
survived. First all the tests run in a copy without a mutation: tests that fail there would see anything. At
the end the program prints a table; its exit code is 1 if a mutation has survived.
"""

from __future__ import annotations

import argparse
import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from mutations import MUTATIONS, Mutation

ROOT = Path(__file__).parent.parent.parent
#: What the tests need of this tree.
NEEDED = ("pratipad_nb", "tests", "pyproject.toml")
#: How long the tests of a mutation may take, in seconds; a mutation that hangs is seen.
PATIENCE = 300.0


@dataclass(frozen=True)
class Outcome:
    """What came of a mutation: which of its tests saw the mutation (empty: none), and how long that took."""

    mutation: Mutation
    seen_by: str
    seconds: float


def copied(to: Path) -> Path:
    """Return a copy of this tree."""
    for name in NEEDED:
        source = ROOT / name
        if source.is_dir():
            shutil.copytree(source, to / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(source, to / name)
    return to


def mutate(tree: Path, mutation: Mutation) -> None:
    """Make a mutation in a copy of this tree.

    Raises
    ------
    ValueError
        If the text isn't there, or is there more than once.
    """
    path = tree / "pratipad_nb" / mutation.file
    text = path.read_text()
    if (count := text.count(mutation.before)) != 1:
        raise ValueError(
            f"{mutation.name}: the text to replace is in {mutation.file} {count} times. Mend the mutation in "
            f"tests/faults/mutations.py: {mutation.before!r}"
        )
    path.write_text(text.replace(mutation.before, mutation.after))


def fails(tree: Path, test: str) -> str:
    """Run a test in a copy of this tree; return how it failed, empty if it passed.

    Raises
    ------
    RuntimeError
        If the test could not be run.
    """
    command = _command(test)
    environment = os.environ | {"PYTHONPATH": str(tree), "PYTHONDONTWRITEBYTECODE": "1"}
    with subprocess.Popen(
        command, cwd=tree, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as ran:
        try:
            output, _ = ran.communicate(timeout=PATIENCE)
        except subprocess.TimeoutExpired:
            ran.kill()
            return f"{test} hangs"
    if ran.returncode == 0:
        return ""
    if ran.returncode != 1:
        raise RuntimeError(f"{shlex.join(command)} ended with {ran.returncode}:\n{output[-3000:]}")
    return _first_failure(output) or test


def _command(test: str) -> list[str]:
    if test.startswith("hunt "):
        return [sys.executable, "tests/faults/rounds.py", *shlex.split(test)[1:]]
    return [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", test]


def _first_failure(output: str) -> str:
    """Return the name of the first test that failed, or a hunt's first finding."""
    if found := re.search(r"^(?:FAILED|ERROR) \S*?([^/\s]+::\S+)", output, re.MULTILINE):
        return found.group(1)
    lines = [line.strip() for line in output.splitlines() if line.startswith("  ")]
    return f"hunt: {lines[0][:100]}" if lines else ""


def tried(mutation: Mutation) -> Outcome:
    """Make a mutation, and run its tests until a test fails."""
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="pratipad-mutant-") as folder:
        tree = copied(Path(folder))
        mutate(tree, mutation)
        seen = next(filter(None, (fails(tree, test) for test in mutation.tests)), "")
    print(f"{'seen    ' if seen else 'SURVIVED'} {mutation.name}", file=sys.stderr, flush=True)
    return Outcome(mutation, seen, time.monotonic() - began)


def sound(mutations: Sequence[Mutation], jobs: int) -> bool:
    """Whether the tests pass in a copy without a mutation, and every mutation's text is there."""
    tests = dict.fromkeys(test for mutation in mutations for test in mutation.tests)
    with tempfile.TemporaryDirectory(prefix="pratipad-mutant-") as folder:
        tree = copied(Path(folder))
        for mutation in mutations:
            path = tree / "pratipad_nb" / mutation.file
            before = path.read_text()
            mutate(tree, mutation)
            path.write_text(before)
        with ThreadPoolExecutor(jobs) as pool:
            failed = [failure for failure in pool.map(lambda test: fails(tree, test), tests) if failure]
    for failure in failed:
        print(f"fails without a mutation: {failure}")
    return not failed


def table(outcomes: Sequence[Outcome]) -> str:
    """Return the outcomes as a table of Markdown."""
    rows = ["| switched off | seen by | s |", "| --- | --- | --- |"]
    rows += [
        f"| {each.mutation.name} | {each.seen_by or '**nobody: it survives**'} | {each.seconds:.0f} |"
        for each in outcomes
    ]
    return "\n".join(rows)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", default="", help="mutations with this text in their names alone")
    parser.add_argument("--jobs", type=int, default=2, help="how many mutations are tried at a time")
    options = parser.parse_args()
    mutations = [mutation for mutation in MUTATIONS if options.only in mutation.name]
    if not mutations:
        parser.error(f"no mutation has {options.only!r} in its name")
    if not sound(mutations, options.jobs):
        sys.exit(1)
    with ThreadPoolExecutor(options.jobs) as pool:
        outcomes = list(pool.map(tried, mutations))
    print(table(outcomes))
    survived = sum(not outcome.seen_by for outcome in outcomes)
    print(f"{len(outcomes)} mutations, {survived} survived")
    sys.exit(1 if survived else 0)


if __name__ == "__main__":
    main()
