"""One JupyterLab for all browser tests, with empty folders of its own, and pages of Chromium that show it."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import nbformat
import pytest
from patience import patient

ROOT = Path(__file__).parents[2]
ARTEFACTS = ROOT / "artefacts"
#: What a page may take to show something on a quiet machine, in seconds.
_SHOWS_WITHIN = 30.0
_STARTS_WITHIN = 60.0
_FAILED = pytest.StashKey[bool]()


@pytest.fixture(autouse=True)
def _within_reason(request: pytest.FixtureRequest) -> None:
    request.node.add_marker(pytest.mark.browser)


def chromium() -> str:
    found = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if found is None:
        if os.environ.get("PRATIPAD_REQUIRE_BROWSER"):
            pytest.fail(
                "PRATIPAD_REQUIRE_BROWSER is set, and there is no chromium. Install Debian's package."
            )
        pytest.skip("there is no chromium on this machine")
    return found


class Jupyter:
    """A running JupyterLab."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.token = "browser-tests"  # of a server that listens on loopback for the length of the tests
        self.port = _free_port()
        self._log = (folder / "jupyter.log").open("w")
        private = {
            f"JUPYTER_{kind}_DIR": str(folder / f"jupyter-{kind.lower()}")
            for kind in ("CONFIG", "DATA", "RUNTIME")
        } | {
            "JUPYTERLAB_SETTINGS_DIR": str(folder / "settings"),
            "JUPYTERLAB_WORKSPACES_DIR": str(folder / "workspaces"),
            "IPYTHONDIR": str(folder / "ipython"),
            "PRATIPAD_HOME": str(folder / "state"),
        }
        self.notebooks = folder / "notebooks"
        self.notebooks.mkdir()
        overrides = folder / "settings" / "@jupyterlab" / "apputils-extension"
        overrides.mkdir(parents=True)
        (overrides / "notification.jupyterlab-settings").write_text(
            '{"fetchNews": "false", "checkForUpdates": false}'
        )
        self._process = subprocess.Popen(
            [
                *(sys.executable, "-m", "jupyterlab", "--no-browser", "--allow-root"),
                *(
                    f"--port={self.port}",
                    "--ServerApp.port_retries=0",
                    f"--IdentityProvider.token={self.token}",
                ),
                "--LabApp.expose_app_in_browser=True",
                f"--ServerApp.root_dir={self.notebooks}",
            ],
            env=os.environ | private,
            stdout=self._log,
            stderr=subprocess.STDOUT,
        )
        self._wait()

    def _wait(self) -> None:
        until = time.monotonic() + patient(_STARTS_WITHIN)
        while True:
            try:
                with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/api?token={self.token}"):
                    return
            except (urllib.error.URLError, ConnectionError):
                if time.monotonic() > until or self._process.poll() is not None:
                    raise AssertionError(Path(self._log.name).read_text()) from None
                time.sleep(0.1)

    def url(self, notebook: str, application: str = "lab/tree") -> str:
        return f"http://127.0.0.1:{self.port}/{application}/{notebook}?token={self.token}" + (
            "&reset" if application.startswith("lab") else ""
        )

    def end_kernels(self) -> None:
        """Shut all kernels down, and their flows with them."""
        for session in json.loads(self._ask("GET", "sessions")):
            self._ask("DELETE", f"sessions/{session['id']}")

    def _ask(self, method: str, what: str) -> bytes:
        url = f"http://127.0.0.1:{self.port}/api/{what}?token={self.token}"
        with urllib.request.urlopen(urllib.request.Request(url, method=method)) as answer:
            return bytes(answer.read())

    def stop(self) -> None:
        self._process.terminate()
        self._process.wait(patient(30))
        self._log.close()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture(scope="session")
def jupyter(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Jupyter]:
    chromium()
    jupyter = Jupyter(tmp_path_factory.mktemp("jupyter"))
    yield jupyter
    jupyter.stop()


# A module's and not the session's: while Playwright runs, no asyncio test can.
@pytest.fixture(scope="module")
def browser(jupyter: Jupyter) -> Iterator[object]:
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium(), args=["--no-sandbox"])
        yield browser
        browser.close()


class Lab:
    """A notebook, open in a page of JupyterLab."""

    def __init__(self, page, jupyter: Jupyter, notebook: str) -> None:
        self.page = page
        self.jupyter = jupyter
        self.notebook = notebook
        self.errors: list[str] = []
        page.on("pageerror", lambda error: self.errors.append(str(error)))
        page.set_default_timeout(1000 * patient(_SHOWS_WITHIN))
        self.open()

    def open(self) -> None:
        self.page.goto(self.jupyter.url(self.notebook))
        self.until_idle()

    def until_idle(self) -> None:
        self.page.wait_for_selector(
            "#jp-main-statusbar >> text=| Idle", timeout=1000 * patient(_STARTS_WITHIN)
        )

    def command(self, name: str, **arguments: object) -> None:
        self.page.evaluate(
            # In braces, so that nobody waits for the command's end: that of a cell that sleeps is far away.
            "([name, args]) => { window.jupyterapp.commands.execute(name, args); }",
            [name, arguments],
        )

    def run_all(self) -> None:
        self.command("notebook:run-all-cells")

    def theme(self, name: str) -> None:
        self.command("apputils:change-theme", theme=name)
        light = "true" if name.endswith("Light") else "false"
        self.page.wait_for_selector(f"body[data-jp-theme-light='{light}']", state="attached")
        self.page.wait_for_selector("#jupyterlab-splash", state="detached")  # it covers the page meanwhile

    def cell(self, number: int):
        """Return the code or text cell at a place, counted from 0."""
        return self.page.locator(".jp-Notebook .jp-Cell").nth(number)

    def run(self, number: int) -> None:
        """Run one cell, as a click into it and Shift+Enter do."""
        self.cell(number).locator(".cm-content").click()
        self.page.keyboard.press("Control+Enter")

    def write(self, number: int, source: str) -> None:
        """Replace a cell's text, through the model that its editor shows."""
        self.page.evaluate(
            "([at, source]) => window.jupyterapp.shell.currentWidget.content.widgets[at].model"
            ".sharedModel.setSource(source)",
            [number, source],
        )

    def shot(self, name: str) -> None:
        ARTEFACTS.mkdir(exist_ok=True)
        self.page.screenshot(path=ARTEFACTS / f"{name}.png")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Iterator[None]:
    """Let fixtures know whether their test has failed."""
    report = yield
    item.stash[_FAILED] = item.stash.get(_FAILED, False) or report.failed
    return report


@pytest.fixture
def lab(request: pytest.FixtureRequest, jupyter: Jupyter, browser) -> Iterator[Callable[..., Lab]]:
    """Open a notebook: one of the project's by its name, or one made of the given code cells."""
    opened = []

    def open_notebook(name: str, *cells: str, width: int = 1200, height: int = 1000) -> Lab:
        target = jupyter.notebooks / f"{name}.ipynb"
        if cells:
            made = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in cells])
            made.metadata["kernelspec"] = {"name": "python3", "display_name": "Python 3"}
            nbformat.write(made, target)
        else:
            shutil.copy(ROOT / "notebooks" / target.name, target)
        context = browser.new_context(viewport={"width": width, "height": height}, reduced_motion="reduce")
        opened.append(context)
        return Lab(context.new_page(), jupyter, target.name)

    yield open_notebook
    for number, context in enumerate(opened):
        if request.node.stash.get(_FAILED, False):
            ARTEFACTS.mkdir(exist_ok=True)
            context.pages[0].screenshot(path=ARTEFACTS / f"failed-{request.node.name}-{number}.png")
        context.close()
    jupyter.end_kernels()
