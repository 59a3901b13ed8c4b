"""Ctrl-C in a blocking take or loop, at whatever moment it comes, loses and doubles nothing."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

PROGRAM = Path(__file__).parent / "interrupted.py"


@pytest.mark.parametrize("seed", ["1", "2"])
@pytest.mark.parametrize("handle", ["flow", "cloud"])
def test_a_program_that_is_interrupted_at_random_gets_every_message_once_and_in_order(
    handle: str, seed: str
) -> None:
    run = subprocess.run(
        [sys.executable, "-W", "error", str(PROGRAM), handle, seed],
        capture_output=True,
        text=True,
        timeout=50,
    )
    assert run.returncode == 0, run.stderr
    result = json.loads(run.stdout.splitlines()[-1])
    assert result["interrupts"] >= 30
    assert result["got"] == list(range(len(result["got"])))
    assert len(result["got"]) == 30_000
