"""The real command in processes of its own, in a folder of its own."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from patience import patient, until

HOUSE = """
from pratipad_nb import Flow

def double(reading):
    return {"value": reading["value"] * 2}

house = Flow("Push <~> double <~> Output", name="house")
"""
COMMAND = [sys.executable, "-m", "pratipad_nb.cli.main"]


class Process:
    """A command that runs."""

    def __init__(
        self,
        arguments: tuple[str, ...],
        folder: Path,
        environment: dict[str, str],
        prefix: tuple[str, ...] = (),
    ) -> None:
        self.arguments = arguments
        self.process = subprocess.Popen(
            [*prefix, *COMMAND, *arguments],
            cwd=folder,
            env=environment,
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        self.out: list[str] = []
        self.err: list[str] = []
        self._threads = [
            threading.Thread(target=lines.extend, args=(pipe,), daemon=True)
            for lines, pipe in ((self.out, self.process.stdout), (self.err, self.process.stderr))
        ]
        for thread in self._threads:
            thread.start()

    def says(self, text: str, seconds: float = 30.0) -> str:
        """Wait for a line with `text` and return it."""
        found: list[str] = []

        def look() -> bool:
            found[:] = [line for line in [*self.out, *self.err] if text in line]
            return bool(found) or self.process.poll() is not None

        until(look, seconds)
        assert found, f"never said {text!r}: {self.out} {self.err}"
        return found[0]

    def end(self, number: int = signal.SIGTERM, seconds: float = 30.0) -> int:
        """Send a signal and return the exit code."""
        self.process.send_signal(number)
        return self.wait(seconds)

    def wait(self, seconds: float = 30.0) -> int:
        code = self.process.wait(patient(seconds))
        for thread in self._threads:
            thread.join()
        for pipe in (self.process.stdout, self.process.stderr):
            assert pipe is not None
            pipe.close()
        return code


class Shell:
    """Runs ``pratipad`` in a folder; `prefix` is the command that leads to its machine."""

    def __init__(self, folder: Path, prefix: tuple[str, ...] = ()) -> None:
        self.folder = folder
        self.prefix = prefix
        self.running: list[Process] = []
        self.environment = {
            name: value for name, value in os.environ.items() if not name.startswith("PRATIPAD_")
        } | {"PYTHONWARNINGS": "error", "PYTHONUNBUFFERED": "1", "COLUMNS": "100"}

    def __call__(self, *arguments: str, code: int = 0, stdin: str = "") -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            [*self.prefix, *COMMAND, *arguments],
            cwd=self.folder,
            env=self.environment,
            input=stdin,
            text=True,
            capture_output=True,
            timeout=patient(50),
            check=False,
        )
        assert done.returncode == code, (done.returncode, done.stdout, done.stderr)
        assert "Traceback" not in done.stderr
        return done

    def json(self, *arguments: str, code: int = 0) -> list[Any]:
        return [json.loads(line) for line in self(*arguments, code=code).stdout.splitlines()]

    def start(self, *arguments: str) -> Process:
        process = Process(arguments, self.folder, self.environment, self.prefix)
        self.running.append(process)
        return process

    def file(self, name: str, text: str) -> str:
        (self.folder / name).write_text(text)
        return name

    def house(self, name: str = "house", mode: str = "Push") -> str:
        """Write ``NAME.py``: a flow that doubles values."""
        return self.file(f"{name}.py", HOUSE.replace("Push", mode).replace('"house"', f'"{name}"'))

    def notebook(self, name: str, *cells: str | tuple[str, str]) -> str:
        """Write a notebook; a cell may be a pair of its text and a tag."""
        pairs = [cell if isinstance(cell, tuple) else (cell, "") for cell in cells]
        listed = [
            {"cell_type": "code", "metadata": {"tags": [tag] if tag else []}, "source": text, "outputs": []}
            for text, tag in pairs
        ]
        return self.file(
            name, json.dumps({"nbformat": 4, "nbformat_minor": 5, "metadata": {}, "cells": listed})
        )

    def server_pid(self) -> int:
        return int(json.loads((self.folder / ".pratipad/server/server.json").read_text())["pid"])

    def close(self) -> None:
        for each in reversed(self.running):
            if each.process.poll() is None:
                each.process.kill()
                each.wait()


@pytest.fixture
def make_shell() -> type[Shell]:
    """For tests with several machines; who makes one closes it."""
    return Shell


@pytest.fixture
def shell(tmp_path: Path) -> Iterator[Shell]:
    made = Shell(tmp_path)
    yield made
    made.close()
