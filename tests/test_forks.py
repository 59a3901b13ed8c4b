"""Forked children: they end, their handles say why they are of no use, and the parent notices nothing.

The cases are in `forked`, each of which runs in a process of its own: a process with pytest's threads is not
to be forked.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

from patience import patient, until

from pratipad_nb import Flow
from pratipad_nb.cloud.sqlite import SQLiteSink
from pratipad_nb.device.outbox_file import Store

FORKED = Path(__file__).with_name("forked.py")


def run(case: str, home: Path) -> Any:
    done = subprocess.run(
        [sys.executable, FORKED, case, home],
        env=dict(os.environ, PYTHONPATH=os.pathsep.join(filter(None, sys.path))),
        capture_output=True,
        text=True,
        timeout=patient(20),
    )
    assert done.returncode == 0, done.stderr
    assert not done.stderr
    *printed, found = done.stdout.splitlines()
    return json.loads(found) | {"printed": printed}


def test_children_of_all_kinds_end_and_the_parent_goes_on(tmp_path: Path) -> None:
    found = run("handles", tmp_path)
    assert found["child"]["wrong"] == {}
    assert found["child"]["flows"] == []
    assert found["child"]["shown"][:2] == [
        f"<{handle} of process {found['pid']}, from which this process was forked>"
        for handle in ("Flow 'house'", "Device 'room1'")
    ]
    assert (found["sys.exit"], found["falls off"], found["os._exit"]) == (3, 3, 4)
    assert found["pool"] == [1, 2]
    assert found["preexec_fn"] == 0
    # The child's own device has sent a message, and the parent's file, database and reader are whole.
    assert found["parent"] == [0, "child", *range(1, 20)]
    assert found["rows"] == 1
    assert found["error"].startswith(
        f"Flow 'house' was opened in process {found['pid']}, and this is process"
    )
    assert (
        'Open a new one in this process; or start processes afresh, by multiprocessing.get_context("spawn")'
        in (found["error"])
    )


def test_a_child_that_ends_touches_no_file_that_its_parent_writes(tmp_path: Path) -> None:
    assert run("kept", tmp_path) == {"code": 3, "printed": []}
    store = Store(tmp_path / "keep" / "house.room1.sqlite3", 1 << 20)
    assert store.count == 10
    store.close()
    with SQLiteSink(tmp_path / "house.db") as sink:
        assert len(sink) == 1


def test_a_child_that_leaves_the_blocks_of_its_parent_closes_nothing(tmp_path: Path) -> None:
    assert run("inside", tmp_path) == {"code": 5, "payload": 1, "printed": []}


def test_handles_on_an_event_loop_raise_as_well(tmp_path: Path) -> None:
    assert run("asynchronous", tmp_path) == {"wrong": {}, "payload": 1, "printed": []}


def test_a_handle_that_was_not_open_is_opened_by_a_child(tmp_path: Path) -> None:
    assert run("unopened", tmp_path) == {"child": 1, "parent": 1, "printed": []}


def test_a_child_of_a_processor_prints_where_the_program_prints(tmp_path: Path) -> None:
    assert run("in_a_processor", tmp_path) == {"code": 0, "printed": ["said by a child"]}


def test_a_child_of_a_command_ends_on_a_signal_that_its_parent_does_not_hear(tmp_path: Path) -> None:
    assert run("signalled", tmp_path) == {"codes": [-signal.SIGTERM] * 2, "heard": None, "printed": []}


def test_a_device_is_gone_when_it_is_killed_though_its_child_lives(tmp_path: Path) -> None:
    """Else the server would see the connection stand until it has pinged for 15 s in vain."""
    with Flow("Push ~> same ~> Output", name="house", namespace={"same": lambda x: x}, home=tmp_path) as flow:
        url = flow.invite("room1", tmp_path / "room1").url
        (tmp_path / "where").write_text(json.dumps(url))
        parent = subprocess.Popen(
            [sys.executable, FORKED, "orphan", tmp_path],
            env=dict(os.environ, PYTHONPATH=os.pathsep.join(filter(None, sys.path))),
            stdout=subprocess.PIPE,
            text=True,
        )
        assert parent.stdout is not None
        child = json.loads(parent.stdout.readline())["child"]
        try:
            assert "room1" in flow.devices
            parent.kill()
            until(lambda: "room1" not in flow.devices, 1)
            os.kill(child, 0)
        finally:
            parent.kill()
            parent.wait()
            parent.stdout.close()
            with contextlib.suppress(ProcessLookupError):
                os.kill(child, signal.SIGKILL)


def test_the_magics_name_the_fork(tmp_path: Path) -> None:
    script = """
import os, sys
from IPython.core.interactiveshell import InteractiveShell
shell = InteractiveShell.instance()
shell.run_cell("%load_ext pratipad_nb")
shell.run_cell("same = lambda x: x")
shell.run_cell('''%%dataflow house --server memory://house
Push ~> same ~> Output
''')
if (pid := os.fork()) == 0:
    for cell in ("%dataflow", "%%dataflow other\\nPush ~> same ~> Output"):
        error = shell.run_cell(cell).error_in_exec
        if type(error).__name__ != "Forked" or "%dataflow" not in str(error):
            os._exit(1)
    os._exit(0)
print("code", os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
"""
    done = subprocess.run(
        [sys.executable, "-c", script],
        env=dict(os.environ, PYTHONPATH=os.pathsep.join(filter(None, sys.path)), IPYTHONDIR=str(tmp_path)),
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=patient(20),
    )
    assert "code 0" in done.stdout, done.stdout + done.stderr
