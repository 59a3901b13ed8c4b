from __future__ import annotations

import fcntl
import json
import os
import socket
import subprocess
import sys
from typing import Any

import pytest

from pratipad_nb import Flow, PratipadError
from pratipad_nb.cli import run
from pratipad_nb.errors import ConnectionRefused, WaitTimeout

HUT = (
    "%load_ext pratipad_nb",
    ("1 / 0", "notebook-only"),
    "def same(x): return x",
    "%%dataflow hut\nPush <~> same <~> Output",
    "from pratipad_nb import Device\nd = Device('d', read=iter(range(50)), every=0.001).connect(hut)",
    ("1 / 0", "raises-exception"),
    "print(sum(m.payload for m in hut.take(50)))",
)


def test_a_notebook_runs_with_its_magics_and_without_what_is_for_browsers(shell: Any) -> None:
    shell.environment.pop("PYTHONWARNINGS")  # what the notebook's own libraries warn of
    done = shell("run", shell.notebook("hut.ipynb", *HUT), "--for", "0.1", "--json")
    assert str(sum(range(50))) in done.stderr
    *_, last = map(json.loads, done.stdout.splitlines())  # JSON and nothing else
    assert (last["state"], last["delivered"]) == ("stopped", 50)


def test_a_cell_that_fails_is_named_and_what_runs_is_drained(shell: Any) -> None:
    shell.environment.pop("PYTHONWARNINGS")
    name = shell.notebook("hut.ipynb", *HUT[:-1], "x = 1\nraise ValueError('no window')")
    done = shell("run", name, code=1)
    assert "hut.ipynb, code cell 7, line 2: ValueError: no window" in done.stderr
    assert "hut: stopped" in done.stderr


def test_a_program_that_fails_is_told_by_its_own_line(shell: Any) -> None:
    done = shell("run", shell.file("bad.py", "def f():\n    return {}['x']\n\nf()\n"), code=1)
    assert done.stderr == "pratipad: bad.py, line 2: KeyError: 'x'\n"


def test_a_wrong_notation_in_a_program_is_shown_with_carets(shell: Any) -> None:
    text = "from pratipad_nb import Flow\nFlow('Push ~> nobody ~> Output')\n"
    done = shell("run", shell.file("bad.py", text), code=1)
    assert "        ^^^^^^" in done.stderr


def test_a_file_without_flows_has_failed(shell: Any) -> None:
    done = shell("run", shell.file("empty.py", "print('done')"), code=1)
    assert done.stdout == "done\n"
    assert "empty.py defines no flow" in done.stderr


def test_a_flow_that_the_file_has_stopped_is_not_started_again(shell: Any) -> None:
    text = (
        "from pratipad_nb import Flow\ndef f(x): return x\n"
        "h = Flow('Push ~> f ~> Output')\nh.start()\nh.stop()\n"
    )
    assert "nothing to keep running" in shell("run", shell.file("once.py", text)).stderr


def test_a_signal_that_comes_while_it_says_that_it_runs_drains_the_flow(shell: Any) -> None:
    name = "f" * 9000  # longer than its pipe holds, so the command is still about to say it
    shell.file(
        "house.py",
        f"from pratipad_nb import Flow\ndef {name}(payload): return payload\n"
        f"house = Flow('Push ~> {name} ~> Output', name='house')\n",
    )
    heard, said = os.pipe()
    fcntl.fcntl(said, fcntl.F_SETPIPE_SZ, 4096)
    run = subprocess.Popen(
        [sys.executable, "-m", "pratipad_nb.cli.main", "run", "house.py"],
        cwd=shell.folder,
        env=shell.environment,
        stderr=said,
    )
    os.close(said)
    with os.fdopen(heard, "rb") as errors:
        start = errors.read(len(b"pratipad: house runs"))
        run.terminate()
        errors.read()
    assert (start, run.wait()) == (b"pratipad: house runs", 0)


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as found:
        return int(found.getsockname()[1])


def test_an_edge_elsewhere_waits_for_a_server_that_does_not_run_yet(shell: Any) -> None:
    shell.house()
    port = free_port()
    shell("certs", "init")
    shell("certs", "issue", "edge", "house", "--url", f"tls://127.0.0.1:{port}", "--out", "edge-certs")
    edge = shell.start("run", "house.py", "--certs", "edge-certs")
    edge.says("waiting for a server at")
    shell.start("server", "--listen", f"127.0.0.1:{port}").says("tls://")
    edge.says("house runs")


def test_an_edge_that_a_server_elsewhere_does_not_let_in_ends_and_says_so(shell: Any) -> None:
    shell.house()
    port = free_port()
    url = f"tls://127.0.0.1:{port}"
    shell("certs", "init", "--home", "other")
    shell("certs", "issue", "edge", "house", "--url", url, "--home", "other", "--out", "edge-certs")
    shell.start("server", "--listen", f"127.0.0.1:{port}").says("tls://")
    shell("run", "house.py", "--certs", "edge-certs", code=1)


@pytest.mark.parametrize("error", [WaitTimeout("no answer"), ConnectionRefused("nobody answers")])
def test_a_server_that_goes_away_while_an_edge_starts_there_is_waited_out_and_said_once(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], error: PratipadError
) -> None:
    starts = [error, error, None]

    def start(flow: Flow) -> Flow:
        if (failure := starts.pop(0)) is not None:
            raise failure
        return flow

    monkeypatch.setattr(Flow, "start", start)
    monkeypatch.setattr(run, "_LOOK_SECONDS", 0.001)
    house = Flow("Push ~> same ~> Output", name="house", namespace={"same": lambda payload: payload})
    run._start(house, patient=True)
    assert starts == []
    assert capsys.readouterr().err.count("house is started again") == 1
    starts.append(error)
    with pytest.raises(type(error)):
        run._start(house, patient=False)
