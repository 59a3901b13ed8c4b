from __future__ import annotations

import json
import resource
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from pratipad_nb.cli.app import app

runner = CliRunner()
COMMANDS = ["server", "run", "device", "cloud", "top", "tenant", "check", "certs"]


@pytest.mark.parametrize("name", [*COMMANDS, "certs issue", "certs list", "certs init", "certs revoke"])
def test_every_command_has_help_with_examples(name: str) -> None:
    result = runner.invoke(app, [*name.split(), "--help"])
    assert result.exit_code == 0
    assert name == "certs" or f"pratipad {name}" in result.stdout


def test_help_is_there_in_no_time(shell: Any) -> None:
    # As for who has run it before: what is compiled is kept.
    shell.environment.pop("PYTHONDONTWRITEBYTECODE", None)
    shell.environment["PYTHONPYCACHEPREFIX"] = str(shell.folder / "compiled")

    def once() -> float:
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        text = shell("--help").stdout
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        assert all(name in text for name in COMMANDS)
        return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime

    # Time on the processor, and the least of five: what else the machine does is not what is measured.
    assert min(once() for _ in range(5)) < 0.3


def imported_by(code: str, folder: Path) -> set[str]:
    script = f"import sys, json\n{code}\nprint(json.dumps(sorted(sys.modules)))"
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=folder, capture_output=True, text=True, check=True
    )
    return set(json.loads(done.stdout.splitlines()[-1]))


def test_a_device_needs_neither_cryptography_nor_jupyter(tmp_path: Path) -> None:
    (tmp_path / "room1.py").write_text("from pratipad_nb import Device\nd = Device('room1')\n")
    for file in ("ca.pem", "cert.pem", "key.pem"):
        (tmp_path / file).write_text("")
    arguments = ["device", "room1.py", "--certs", ".", "--flow", "house", "--server", "tls://127.0.0.1:9"]
    modules = imported_by(
        f"from pratipad_nb.cli.app import app\ntry: app({arguments})\nexcept SystemExit: pass", tmp_path
    )
    assert "pratipad_nb.device.blocking" in modules
    assert not modules & {"cryptography", "IPython", "networkx", "matplotlib", "pandas", "rich"}


def test_a_missing_extra_is_one_line_that_says_how_to_get_it(tmp_path: Path) -> None:
    code = "import sys; sys.modules['typer'] = None; from pratipad_nb.cli.main import main; main()"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert (
        done.stderr == "pratipad: the command line needs typer. Install it: pip install 'pratipad-nb[cli]'\n"
    )


@pytest.mark.parametrize(
    ("arguments", "code", "text"),
    [
        (["nothing"], 2, "No such command"),
        (["cloud", "a b"], 2, "can't name a flow"),
        (["cloud", "house", "--send", "{"], 2, "is no JSON"),
        (["cloud", "house", "--to", "room1"], 2, "--send"),
        (["cloud", "house", "--from", "there"], 2, "oldest or newest"),
        (["cloud", "house", "--timeout", "0.1"], 1, "no server runs in"),
        (["cloud", "house", "--send", "1"], 1, "no server runs in"),
        (["top"], 1, "no server runs in"),
        (["cloud", "house", "--timeout", "-1"], 2, "greater than or equal to 0"),
        (["run", "house.py", "--for", "-1"], 2, "greater than or equal to 0"),
        (["run", "house.py", "--status", "-3"], 2, "greater than or equal to 0"),
        (["device", "room1.py", "--for", "-1"], 2, "greater than or equal to 0"),
        (["device", "room1.py", "--status", "-3"], 2, "greater than or equal to 0"),
        (["server", "--listen", "here"], 2, "HOST:PORT"),
        (["server", "--sync", "often"], 2, "interval or always"),
        (["certs", "issue", "device", "room1"], 2, "--flow NAME"),
        (["certs", "issue", "device", "room1", "--flow", "house"], 1, "pratipad certs init"),
        (["certs", "revoke", "device", "room1", "--flow", "house"], 2, "certs list"),
        (["certs", "init", "--ca", "ca.pem"], 2, "go together"),
        (["device", "none.py"], 1, "can't be read"),
        (["run", "none.ipynb"], 1, "can't be read"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else None,
)
def test_what_can_not_be_done_is_one_message_and_an_exit_code(
    arguments: list[str], code: int, text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    result = runner.invoke(app, arguments)
    assert result.exit_code == code
    assert text in result.stderr
    assert result.stdout == ""
    assert not (tmp_path / ".pratipad").exists()
