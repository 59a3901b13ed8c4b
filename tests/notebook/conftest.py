"""A real IPython shell in this process, with the magics loaded and a state folder of its own."""

import contextlib
from dataclasses import dataclass
from typing import Any

import pytest
from IPython.core.interactiveshell import InteractiveShell
from IPython.utils.capture import capture_output
from traitlets.config import Config

from pratipad_nb import flows
from pratipad_nb.errors import PratipadError
from pratipad_nb.session.defaults import defaults, set_defaults
from pratipad_nb.testing import memory_server, real_server


@dataclass
class Ran:
    """A cell's result: its output, its error, its value. Outside a kernel, displayed things are printed."""

    out: str
    err: str
    error: BaseException | None
    value: Any


class Shell:
    """An IPython shell as a notebook's kernel has it, without a kernel."""

    def __init__(self, shell):
        self.ip = shell
        self.names = shell.user_ns

    def run(self, source):
        """Run a cell; a mistake is returned, as a notebook goes on after one."""
        with capture_output() as captured:
            result = self.ip.run_cell(source)
        error = result.error_before_exec or result.error_in_exec
        return Ran(captured.stdout, captured.stderr, error, result.result)

    def ok(self, source):
        """Run a cell that has to succeed."""
        ran = self.run(source)
        assert ran.error is None, ran.out + ran.err
        return ran


@contextlib.contextmanager
def a_shell(tmp_path, monkeypatch):
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "ipython"))
    before = defaults()
    settings = Config()
    settings.HistoryManager.enabled = False
    settings.InteractiveShell.colors = "nocolor"
    shell = InteractiveShell(config=settings)
    loaded = shell.run_cell("%load_ext pratipad_nb")
    assert loaded.success
    try:
        yield Shell(shell)
    finally:
        for flow in flows().values():
            with contextlib.suppress(PratipadError):
                flow.stop()
        shell.run_cell("%unload_ext pratipad_nb")
        set_defaults(before)


@pytest.fixture(scope="session")
def home():
    """One state folder for all tests that use the real server."""
    with real_server() as folder:
        yield folder


@pytest.fixture
def shell(tmp_path, monkeypatch, home):
    """A shell whose flows run on the real server."""
    monkeypatch.setenv("PRATIPAD_HOME", str(home))
    with a_shell(tmp_path, monkeypatch) as found:
        yield found


@pytest.fixture
def quick_shell(tmp_path, monkeypatch):
    """A shell whose flows run on the in-memory transport, for what has nothing to do with a server."""
    with memory_server() as url:
        monkeypatch.setenv("PRATIPAD_SERVER", url)
        with a_shell(tmp_path, monkeypatch) as found:
            yield found
