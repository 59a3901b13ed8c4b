"""Devices that keep what they measure, on a card that is full or may only be read.

The cases are in `cards`, which is run as a process of its own: in namespaces where it may mount, or with a
limit on the size of files.
"""

from __future__ import annotations

import functools
import os
import subprocess
import sys
from pathlib import Path

import pytest

CARDS = Path(__file__).with_name("cards.py")
#: A process in namespaces of its own, where it may mount.
ALONE = ["unshare", "--map-root-user", "--mount"]
CASES = [
    "a_full_card_with_the_link_up_stops_no_delivery",
    "what_waits_while_the_card_is_full_is_not_called_kept_and_is_kept_once_there_is_room",
    "a_device_that_closes_on_a_full_card_says_how_many_are_lost",
    "a_device_starts_on_a_full_card_and_sends_what_was_left_and_what_is_new",
    "a_device_starts_for_the_first_time_on_a_full_card",
    "beyond_the_bound_in_memory_push_waits_for_room_or_the_link",
]
MOUNTED_CASES = [
    "a_card_that_the_file_itself_has_filled_has_room_again_once_all_is_safe",
    "a_card_that_may_only_be_read_is_done_without_until_it_may_be_written",
    "what_was_left_on_a_card_that_could_not_be_read_is_sent_late_and_once",
]


@functools.cache
def may_mount() -> bool:
    try:
        tried = subprocess.run([*ALONE, "mount", "-t", "tmpfs", "tmpfs", "/mnt"], capture_output=True)
    except FileNotFoundError:
        return False
    return tried.returncode == 0


def run(kind: str, folder: Path, cases: list[str]) -> None:
    paths = os.pathsep.join([str(CARDS.parents[1]), *filter(None, sys.path)])
    done = subprocess.run(
        [*(ALONE if kind == "mounted" else ()), sys.executable, "-W", "error", CARDS, kind, folder, *cases],
        env=dict(os.environ, PYTHONPATH=paths),
        capture_output=True,
        text=True,
        timeout=50,
    )
    assert done.returncode == 0, done.stderr[-6000:]


def test_a_device_delivers_without_its_card_and_goes_back_to_it(tmp_path: Path) -> None:
    if not may_mount():
        pytest.skip("no filesystem may be mounted here")
    run("mounted", tmp_path, CASES + MOUNTED_CASES)


def test_a_device_delivers_without_a_disk_that_fails_in_another_way_than_being_full(tmp_path: Path) -> None:
    """A limit of the process is told to SQLite as an I/O error."""
    run("limited", tmp_path, CASES)
