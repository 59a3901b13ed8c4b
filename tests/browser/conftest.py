"""One JupyterLab for all browser tests, with empty folders of its own, and a page of Chromium that shows it.

Loading JupyterLab takes the page several seconds of computing, so the page stays from test to test, and only
its notebook is another one. A test that fails takes its page with it.
"""

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
CLOSE_ALL = """() => {
  const shell = window.jupyterapp.shell;
  shell.activateById("filebrowser");
  for (const widget of [...shell.widgets("main")]) widget.dispose();
}"""
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
                # A kernel whose device pushes on when its flow has stopped is terminated after half of that.
                "--KernelManager.shutdown_wait_time=2",
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


# The package's and not the session's: while Playwright runs, no asyncio test can.
@pytest.fixture(scope="package")
def pages(jupyter: Jupyter) -> Iterator[Pages]:
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium(), args=["--no-sandbox"])
        yield Pages(browser)
        browser.close()


class Pages:
    """The page that the tests share, made anew when it has been given up."""

    def __init__(self, browser) -> None:
        self._browser = browser
        self._page = None

    def get(self, width: int, height: int):
        size = {"width": width, "height": height}
        if self._page is None:
            context = self._browser.new_context(viewport=size, reduced_motion="reduce")
            self._page = context.new_page()
            self._page.set_default_timeout(1000 * patient(_SHOWS_WITHIN))
        self._page.set_viewport_size(size)
        return self._page

    def give_up(self) -> None:
        """Close the page, for what it shows is no beginning for another test."""
        page, self._page = self._page, None
        page.context.close()


class Lab:
    """A notebook, open in a page of JupyterLab."""

    def __init__(self, page, jupyter: Jupyter, notebook: str) -> None:
        self.page = page
        self.jupyter = jupyter
        self.notebook = notebook
        self.errors: list[str] = []
        #: The sizes of the frames that the page's new web sockets have received.
        self.frames: list[int] = []
        page.on("pageerror", self._note_error)
        page.on("websocket", self._count_frames)

    def _note_error(self, error) -> None:
        self.errors.append(str(error))

    def _count_frames(self, socket) -> None:
        socket.on("framereceived", lambda frame: self.frames.append(len(frame)))

    @property
    def is_loaded(self) -> bool:
        """Whether the page shows JupyterLab, and not Notebook 7 or a file."""
        return bool(
            self.page.evaluate("Boolean(window.jupyterapp && document.querySelector('#jp-main-statusbar'))")
        )

    def open(self) -> None:
        """Load the page anew."""
        self.page.goto(self.jupyter.url(self.notebook))
        self.until_idle()

    def show(self) -> None:
        """Open the notebook in the page that JupyterLab has been loaded into, if there is such a page."""
        if not self.is_loaded:
            self.open()
            return
        self.page.evaluate(
            "path => window.jupyterapp.commands.execute('docmanager:open', { path }).then(() => {})",
            self.notebook,
        )
        self.until_idle()

    def leave(self) -> None:
        """Close the notebook, unsaved, and leave JupyterLab as it is after its start."""
        self.page.remove_listener("pageerror", self._note_error)
        self.page.remove_listener("websocket", self._count_frames)
        if self.is_loaded:
            self.page.evaluate(CLOSE_ALL)
            self.page.locator(".jp-Launcher").wait_for()

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
def lab(unopened: Callable[..., Lab]) -> Callable[..., Lab]:
    """Open a notebook in JupyterLab: a notebook of the project, by its name, or one made of code cells."""

    def open_notebook(name: str, *cells: str, **size: int) -> Lab:
        opened = unopened(name, *cells, **size)
        opened.show()
        return opened

    return open_notebook


@pytest.fixture
def unopened(request: pytest.FixtureRequest, jupyter: Jupyter, pages: Pages) -> Iterator[Callable[..., Lab]]:
    """Write a notebook, for a page that does not show the notebook yet."""
    written = []

    def write_notebook(name: str, *cells: str, width: int = 1200, height: int = 1000) -> Lab:
        target = jupyter.notebooks / f"{name}.ipynb"
        if cells:
            made = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in cells])
            made.metadata["kernelspec"] = {"name": "python3", "display_name": "Python 3"}
            nbformat.write(made, target)
        else:
            shutil.copy(ROOT / "notebooks" / target.name, target)
        written.append(Lab(pages.get(width, height), jupyter, target.name))
        return written[-1]

    yield write_notebook
    if written and request.node.stash.get(_FAILED, False):
        written[-1].shot(f"failed-{request.node.name}")
        pages.give_up()
    else:
        for opened in written:
            opened.leave()
    jupyter.end_kernels()
