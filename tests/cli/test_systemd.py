from __future__ import annotations

import configparser
import re
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest
from typer.main import get_command

from pratipad_nb.cli.app import app

UNITS = sorted((Path(__file__).parents[2] / "docs/systemd").glob("*.service"))


def read(unit: Path) -> configparser.ConfigParser:
    # A key may come more than once, which a dictionary can't hold; the last one is enough here.
    found = configparser.ConfigParser(strict=False, interpolation=None)
    found.optionxform = str  # type: ignore[assignment, method-assign]
    found.read(unit)
    return found


def test_there_is_a_unit_for_each_part() -> None:
    assert [unit.stem for unit in UNITS] == ["pratipad-device", "pratipad-edge", "pratipad-server"]


@pytest.mark.parametrize("unit", UNITS, ids=lambda unit: unit.stem)
def test_a_unit_runs_a_command_that_there_is_with_options_that_it_has(unit: Path) -> None:
    program, name, *arguments = shlex.split(read(unit)["Service"]["ExecStart"])
    assert program.endswith("/pratipad")
    command = get_command(app).commands[name]  # type: ignore[attr-defined]
    options = {option for parameter in command.params for option in parameter.opts}
    assert {word for word in arguments if word.startswith("--")} <= options


@pytest.mark.parametrize("unit", UNITS, ids=lambda unit: unit.stem)
def test_a_unit_is_hardened_and_not_root(unit: Path) -> None:
    service = read(unit)["Service"]
    assert service["User"] == "pratipad"
    for key in ("NoNewPrivileges", "ProtectHome", "RestrictSUIDSGID", "LockPersonality"):
        assert service[key] == "yes"
    assert service["ProtectSystem"] == "strict"


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd-analyze is not installed")
@pytest.mark.parametrize("unit", UNITS, ids=lambda unit: unit.stem)
def test_systemd_accepts_a_unit(unit: Path, tmp_path: Path) -> None:
    # Where the program lies differs; that it does is no question of the unit.
    for other in UNITS:
        text = re.sub(r"^ExecStart=\S+", "ExecStart=/bin/true", other.read_text(), flags=re.MULTILINE)
        (tmp_path / other.name).write_text(text)
    done = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", str(tmp_path / unit.name)],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    ours = [line for line in done.stderr.splitlines() if "pratipad" in line]
    assert (done.returncode, ours) == (0, [])
