"""Where a flow runs when its maker doesn't say."""

import subprocess
import sys
from pathlib import Path

import pytest

from pratipad_nb import Flow
from pratipad_nb.errors import SettingsError
from pratipad_nb.session.defaults import Defaults, defaults, home_folder, set_defaults


@pytest.fixture(autouse=True)
def untouched():
    before = defaults()
    set_defaults(Defaults())
    yield
    set_defaults(before)


def test_the_folder_is_what_is_said_nearest(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("PRATIPAD_HOME", raising=False)
    assert home_folder() == tmp_path / ".pratipad"
    monkeypatch.setenv("PRATIPAD_HOME", "elsewhere")
    assert home_folder() == tmp_path / "elsewhere"
    set_defaults(Defaults(home=Path("/srv/state")))
    assert home_folder() == Path("/srv/state")
    assert home_folder(tmp_path) == tmp_path


def test_an_empty_variable_says_nothing(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PRATIPAD_HOME", "")
    assert home_folder() == tmp_path / ".pratipad"


def test_a_plain_script_keeps_its_state_where_the_variable_says(tmp_path):
    script = (
        "from pratipad_nb import Flow\n"
        "def same(x): return x\n"
        "if __name__ == '__main__':\n"
        "    with Flow('Push ~> same ~> Output'): pass\n"
    )
    (tmp_path / "script.py").write_text(script)
    subprocess.run(
        [sys.executable, "script.py"],
        cwd=tmp_path,
        env={"PRATIPAD_HOME": str(tmp_path / "moved"), "PATH": "/usr/bin:/bin"},
        timeout=50,
        check=True,
    )
    assert (tmp_path / "moved" / "server").is_dir()
    assert not (tmp_path / ".pratipad").exists()


@pytest.mark.parametrize("home", ["", 3, b"state"])
def test_a_folder_that_can_be_none_is_refused_when_the_flow_is_made(home):
    with pytest.raises(SettingsError, match=r"home is .*; it must be a path"):
        Flow("Push ~> same ~> Output", namespace={"same": len}, home=home)
