"""The embedded NATS server: started, watched, restarted and ended.

Owns the server's life in one folder, which a lock keeps to one owner. The process belongs to `process`, the
configuration to `config`, the parties to `admission`, and the folder's owner to `state`.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import sys
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NoReturn, TypeVar

from pratipad_nb.backoff import Backoff
from pratipad_nb.bugs import Bugs
from pratipad_nb.errors import CertificateError, ServerError, SettingsError
from pratipad_nb.files import FileLock, guarded_folder, private_folder, write_whole
from pratipad_nb.pki.certificates import read_pair
from pratipad_nb.server.admission import Admission
from pratipad_nb.server.carrying import carry_streams, former_parties
from pratipad_nb.server.config import (
    LEAF_PORT,
    LOOPBACK,
    MQTT_PORT,
    ServerFiles,
    leaf_party,
    rendered_config,
)
from pratipad_nb.server.crowds import Crowds
from pratipad_nb.server.disk import DiskWatch, storage_in
from pratipad_nb.server.leaves import end_leaves
from pratipad_nb.server.log_file import ServerLog
from pratipad_nb.server.process import ServerProcess, find_server
from pratipad_nb.server.register import Change, Register, Rules
from pratipad_nb.server.state import ServerState, locked_folder, unwant, write_state
from pratipad_nb.settings import Address, Credentials, Leaf, Sync
from pratipad_nb.transport.parties import Party

__all__ = ["EmbeddedServer", "ServerExit"]

_POLL_SECONDS = 0.003
#: Bound of a start. An empty store takes 30 ms; a large store is read in and may take long.
_READY_SECONDS = 60.0
#: How long the server's key and certificate may not belong together: another process writes both at once.
_PAIR_SECONDS = 1.0
#: First and longest pause before a restart, in seconds; the first is short: crashes are rare, clients wait.
_FIRST_PAUSE, _LONGEST_PAUSE = 0.05, 10.0
#: A server that has run for so many seconds is taken to be well: its next crash counts as the first.
_WELL_SECONDS = 60.0
_PORT_TAKEN = "address already in use"

_log = logging.getLogger(__name__)
News = TypeVar("News")


@dataclass(frozen=True, slots=True)
class ServerExit:
    """The server ended by itself, was ended for a full disk's sake, or could not be restarted.

    Its owner tries again.

    Attributes
    ----------
    reason
        How the server ended, and its last words.
    restarts
        How often the server has been restarted so far.
    pause
        Seconds until the next attempt.
    """

    reason: str
    restarts: int
    pause: float


class EmbeddedServer:
    """A NATS server as a child of this process, with mutual TLS and JetStream; by default on 127.0.0.1.

    The server ends with this process, in whatever way that ends. If the server ends by itself, it is
    restarted on the same port and store; so is a server whose disk was full, once there is room again.

    Parameters
    ----------
    folder
        The folder of the server's configuration, parties, log and store; made with mode 0700. A folder has
        one owner at a time.
    credentials
        The server's certificate, whose hosts include 127.0.0.1 (and `host`), and the authority whose clients
        the server takes.
    sync
        ``"interval"``: a power failure may lose the last two minutes. ``"always"``: a power failure loses
        nothing, and the server is about 6 × slower.
    host
        The address to listen on: ``"0.0.0.0"`` is all of this machine's. The listener is the same on every
        address.
    port
        None: the port of the last start if it is free, so that clients find the server again, else any free
        port. A number: that port, or `start` fails.
    mqtt
        Where devices that speak MQTT 3.1.1 connect: an address (``"host:port"``), or True for port 8883 of
        `host`. The listener is the server's own, with the same certificates. False: nowhere.
    leaves
        Where other sites' servers join this one as leaves: an address, or True for port 7422 of `host`.
        `allow` lets them in. False: nowhere.
    leaf_of
        The server that this one joins as a leaf. Flows' results go on to there
        (`pratipad_nb.runtime.positions.forwarding`).
    standalone
        Whether this process exists for the server's sake. Then a process that has joined the server doesn't
        take it over when this process ends: this process is started again, and would find the folder taken. A
        flow's process that has started a server of its own before is asked to hand the folder over.
    owner
        The certificate of the server's owner (`pratipad_nb.server.accounts.OWNER`), by which the links of
        leaves are ended that are let in no more, and the connections that a party has too many of. None: such
        links stay until they break, and no party has too many connections.
    on_exit
        Called, on the event loop, when the server has ended by itself, or is restarted for its disk.
    on_full
        Called, on the event loop, with the words, when the disk of the server's logs is found to be full.
    """

    def __init__(
        self,
        folder: Path,
        credentials: Credentials,
        *,
        sync: Sync = "interval",
        host: str = LOOPBACK,
        port: int | None = None,
        mqtt: bool | str = False,
        leaves: bool | str = False,
        leaf_of: Leaf | None = None,
        standalone: bool = False,
        owner: Credentials | None = None,
        on_exit: Callable[[ServerExit], None] | None = None,
        on_full: Callable[[str], None] | None = None,
    ) -> None:
        self._files = ServerFiles(folder.absolute())
        self._credentials = credentials
        #: The files that the server reads.
        self._shown = credentials
        self._sync = sync
        self._host = host
        self._wanted_port = port
        if leaves and leaf_of is not None:
            raise SettingsError("a server either takes leaves or is one: give leaves= or leaf_of=, not both.")
        self._mqtt = _address(mqtt, host, MQTT_PORT)
        self._leaves = _address(leaves, host, LEAF_PORT)
        self._leaf_of = leaf_of
        self._standalone = standalone
        self._on_exit = on_exit
        self._on_full = on_full
        self._disk = DiskWatch(self._files, self._report_full)
        self._log = ServerLog(self._files.log)
        self._owner = owner
        self._admission = Admission(self._files, self._running_pid, end_leaves=self._end_leaves)
        self._lock: FileLock | None = None
        self._process: ServerProcess | None = None
        self._keeper: asyncio.Task[None] | None = None
        self._crowds: asyncio.Task[NoReturn] | None = None
        self._bugs = Bugs()
        self._ready = False
        self._url = ""
        self._restarts = 0

    @property
    def url(self) -> str:
        """The server's URL, as a rule ``tls://127.0.0.1:PORT``; empty before the first start."""
        return self._url

    @property
    def mqtt_url(self) -> str:
        """The URL for MQTT devices, as ``mqtts://127.0.0.1:8883``; empty if the server takes none."""
        return f"mqtts://{self._mqtt}" if self._mqtt is not None else ""

    @property
    def leaves_url(self) -> str:
        """The URL for leaves, as ``tls://127.0.0.1:7422``; empty if the server takes none."""
        return f"tls://{self._leaves}" if self._leaves is not None else ""

    @property
    def is_leaf(self) -> bool:
        """Whether the server joins another as a leaf."""
        return self._leaf_of is not None

    @property
    def pid(self) -> int | None:
        """The server's process id, None while the server is down or not ready yet."""
        return (
            self._process.pid if self._ready and self._process is not None and self._process.running else None
        )

    @property
    def restarts(self) -> int:
        """How often the server ended by itself and was restarted."""
        return self._restarts

    @property
    def log(self) -> tuple[str, ...]:
        """The last lines of the server's log."""
        return self._log.last()

    @property
    def register(self) -> Register:
        """The parties that may connect, and what is known of their flows."""
        return self._admission.register()

    async def start(self, parties: Iterable[Party] = ()) -> str:
        """Start the server and return its URL once it takes connections.

        Parameters
        ----------
        parties
            The parties that may connect, beside those that were let in at earlier starts and not revoked
            since.

        Raises
        ------
        ServerLocked
            If another process has a server on this folder (or another `EmbeddedServer` of this one).
        ServerError
            If there is no server program, its port is taken, or its folder or store can't be used. No process
            is left running.
        """
        if self._lock is not None:
            raise ServerError(f"the server at {self._url} has been started already; stop it first.")
        if sys.platform == "win32":
            raise ServerError(
                "the embedded server needs Linux or macOS: it reads its users again on a signal. Use WSL, "
                'or a server of your own (server="tls://HOST:PORT").'
            )
        binary = find_server()
        try:
            guarded_folder(self._files.folder)
            self._lock = await locked_folder(self._files, self._takes_over)
            private_folder(self._files.run)
            await self._admission.write(self._first_change(tuple(parties)))
            # Now that the register has them: else a register that is made anew would let in who was revoked.
            self._files.former_users.unlink(missing_ok=True)
            carry_streams(self._files)
            self._url = ""
            await self._launch(binary)
        except BaseException as error:
            await asyncio.shield(self.stop())
            trouble = storage_in(self._files.folder).trouble
            if trouble and isinstance(error, (OSError, ServerError)):
                raise ServerError(
                    f"{trouble}. Make room there, or choose another folder (PRATIPAD_HOME moves it)."
                ) from error
            if isinstance(error, OSError):
                raise ServerError(
                    f"the server's folder {self._files.folder} can't be used: {error.strerror} "
                    f"({error.filename}). Choose one that can be written to (PRATIPAD_HOME moves it)."
                ) from error
            raise
        finally:
            unwant(self._files)
        self._keeper = asyncio.create_task(self._keep(binary), name="keeper of the NATS server")
        self._keeper.add_done_callback(self._bugs.note_end)
        if self._owner is not None:
            crowds = Crowds(lambda: self._url, self._owner)
            self._crowds = asyncio.create_task(crowds.run(), name="connections of the NATS server")
            self._crowds.add_done_callback(self._bugs.note_end)
        return self._url

    async def failure(self) -> NoReturn:
        """Wait until the server can't be kept up any more, by a bug of ours, and raise its exception."""
        await self._bugs.raised()

    def _takes_over(self, state: ServerState) -> bool:
        """Return whether this server replaces a flow's own: it must serve all that the other serves."""
        serves_all = not (state.mqtt and self._mqtt is None) and not (state.leaf and self._leaf_of is None)
        return self._standalone and not state.standalone and serves_all

    async def change(self, change: Change) -> None:
        """Let parties in or out, or change the rules of flows; return once the server knows.

        Raises
        ------
        SettingsError
            If the change exceeds a tenant's quota.
        ServerError
            If the register can't be written, or the server doesn't take it.
        """
        await self._admission.change(change)

    async def allow(self, parties: Iterable[Party]) -> None:
        """Let `parties` in; return once the server knows. See `change`."""
        await self._admission.allow(parties)

    async def revoke(self, party: Party) -> None:
        """Let `party` in no more and end its connections; return once both are done. See `change`.

        A party without a serial number stands for all certificates of its identity.
        """
        await self._admission.revoke(party)

    async def reload(self) -> None:
        """Have the server read its accounts and its renewed certificate again; connections stay."""
        try:
            await self._take_pair()
        except CertificateError as error:
            raise ServerError(f"the server has no new certificate to show: {error}") from error
        await self._admission.reload()

    async def stop(self) -> None:
        """End the server so that it closes its streams, and give the folder up. Idempotent."""
        await self._admission.close()
        for task in (self._crowds, self._keeper):
            if task is not None:
                task.cancel()
                await asyncio.gather(task, return_exceptions=True)
        self._crowds = self._keeper = None
        if self._lock is None:
            return
        with contextlib.suppress(OSError):
            write_state(self._files, None)
        self._ready = False
        if self._process is not None:
            await self._process.stop()
            self._process = None
        self._lock.release()
        self._lock = None

    # -- starting --------------------------------------------------------------------------------------------

    def _first_change(self, parties: tuple[Party, ...]) -> Change:
        """Return the first change of the register: version 0.1's parties, and the flows of a leaf."""
        joined = {leaf_party(each).key for each in self._leaf_of.credentials} if self._leaf_of else set()
        known = self._admission.register()
        if not self._files.parties.exists():
            parties = (*former_parties(self._files), *parties)
        return Change(parties, rules={key: Rules() for key in joined - known.rules.keys()})

    async def _launch(self, binary: Path) -> None:
        """Start the server on the port asked for, or its last port if that is free, and write its state."""
        port = self._wanted_port or _port_of(self._url) or self._last_port()
        try:
            try:
                await self._launch_at(binary, port)
            except _PortTakenError as error:
                await self._ended()
                # Once the URL has been given out, clients know its port and no other port will do.
                if self._wanted_port or self._url:
                    raise ServerError(
                        f"port {port} of {self._host} is taken by another program. End that one, or choose "
                        "another port."
                    ) from error
                await self._launch_at(binary, None)
            assert self._process is not None
            write_whole(self._files.port, self._url.rpartition(":")[2].encode())
            write_state(self._files, self._state(self._process.pid))
        except BaseException:
            await asyncio.shield(self._ended())
            raise

    def _state(self, pid: int) -> ServerState:
        return ServerState(self._url, pid, os.getpid(), self._standalone, self.mqtt_url, self.is_leaf)

    async def _ended(self) -> None:
        """End the server process if it still runs."""
        self._ready = False
        if self._process is not None:
            await self._process.kill()

    async def _launch_at(self, binary: Path, port: int | None) -> None:
        files, position = self._files, self._log.position()
        # The server itself says what is wrong with files that aren't a pair.
        with contextlib.suppress(CertificateError):
            await self._take_pair()
        config = rendered_config(
            files,
            self._shown,
            host=self._host,
            port=port,
            sync=self._sync,
            mqtt=self._mqtt,
            leaves=self._leaves,
            leaf_of=self._leaf_of,
        )
        write_whole(files.config, config.encode())
        for old in files.run.iterdir():
            old.unlink()
        assert self._lock is not None
        self._process = await ServerProcess.start(binary, files.config, files.log, self._lock.descriptor)
        self._url = await self._reported(self._process, position)
        self._ready = True

    async def _take_pair(self) -> None:
        """Put the key and the certificate of the server into the one file that the server reads.

        Another process may be renewing the certificate: then the two don't belong together for a moment.
        """
        deadline = time.monotonic() + _PAIR_SECONDS
        while True:
            try:
                pair = read_pair(self._credentials.certificate, self._credentials.key)
                break
            except CertificateError:
                if time.monotonic() > deadline:
                    raise
            await asyncio.sleep(_POLL_SECONDS)
        write_whole(self._files.pair, pair.key_pem() + pair.certificate_pem())
        self._shown = replace(self._credentials, certificate=self._files.pair, key=self._files.pair)

    async def _reported(self, process: ServerProcess, position: int) -> str:
        """Return the URL that the server listens at, once it listens."""
        told = self._files.run / f"nats-server_{process.pid}.ports"
        deadline = time.monotonic() + _READY_SECONDS
        while process.running and time.monotonic() < deadline:
            with contextlib.suppress(OSError, ValueError, KeyError, IndexError):
                return str(json.loads(told.read_bytes())["nats"][0])
            await asyncio.sleep(_POLL_SECONDS)
        said = "; ".join(self._log.complaints(position)) or "nothing"
        if _PORT_TAKEN in said and "MQTT" in said:
            raise ServerError(
                f"{self._mqtt}, where MQTT devices were to connect, is taken by another program. End that "
                "one, or choose another address: mqtt='HOST:PORT'."
            )
        if _PORT_TAKEN in said and "eaf" in said:
            raise ServerError(
                f"{self._leaves}, where leaf nodes were to connect, is taken by another program. End that "
                "one, or choose another address: leaves='HOST:PORT'."
            )
        if _PORT_TAKEN in said:
            raise _PortTakenError(said)
        how = (
            f"was not ready after {_READY_SECONDS:g} s"
            if process.running
            else f"ended with code {process.exit_code}"
        )
        raise ServerError(
            f"the NATS server {how}. It said: {said}. Its store is {self._files.store}, its log "
            f"{self._files.log}."
        )

    def _last_port(self) -> int | None:
        try:
            port = int(self._files.port.read_text())
        except (OSError, ValueError):
            return None
        return port if 0 < port < 1 << 16 else None

    # -- keeping it up ---------------------------------------------------------------------------------------

    async def _keep(self, binary: Path) -> None:
        """Restart the server whenever it has ended, or was ended for its disk, until cancelled."""
        backoff = Backoff(_FIRST_PAUSE, _LONGEST_PAUSE)
        while True:
            assert self._process is not None
            since = time.monotonic()
            reason = await self._end_of(self._process)
            if self._disk.was_full or time.monotonic() - since > _WELL_SECONDS:
                backoff.reset()
            await self._ended()
            write_state(self._files, None)
            while True:
                pause = backoff.next()
                self._report(ServerExit(reason, self._restarts, pause))
                await asyncio.sleep(pause)
                try:
                    await self._disk.room()
                    await self._launch(binary)
                except (ServerError, OSError) as error:
                    reason = str(error)
                else:
                    self._restarts += 1
                    break

    async def _end_of(self, process: ServerProcess) -> str:
        """Wait until the server has ended, or end it once its disk has room again; return why, in words."""
        ended = asyncio.ensure_future(process.ended())
        recovered = asyncio.ensure_future(self._disk.recovered())
        try:
            await asyncio.wait({ended, recovered}, return_when=asyncio.FIRST_COMPLETED)
            if not ended.done():
                reason = recovered.result()
                await process.stop()
                return reason
        finally:
            for task in (ended, recovered):
                task.cancel()
            await asyncio.gather(ended, recovered, return_exceptions=True)
        return f"the NATS server ended with code {process.exit_code}"

    def _report(self, event: ServerExit) -> None:
        _log.warning("%s; restarting it in %.2g s", event.reason, event.pause)
        self._tell(self._on_exit, event)

    def _report_full(self, words: str) -> None:
        _log.warning("%s. Flows wait until there is room, and then go on by themselves.", words)
        self._tell(self._on_full, words)

    def _tell(self, listener: Callable[[News], None] | None, news: News) -> None:
        if listener is None:
            return
        try:
            listener(news)
        except Exception:  # noqa: BLE001 - logged; a listener's fault must not cost the server
            _log.exception("the callback for news of the server failed")

    async def _end_leaves(self, accounts: set[str]) -> None:
        if self._owner is not None:
            await end_leaves(self._url, self._owner, accounts)

    def _running_pid(self) -> int | None:
        if self._lock is None:
            raise ServerError("the server isn't running; start it first.")
        return self.pid


class _PortTakenError(ServerError):
    """The server could not listen on the port that it was given."""


def _address(given: bool | str, host: str, port: int) -> Address | None:
    if isinstance(given, str):
        return Address.parse(given)
    return Address(host, port) if given else None


def _port_of(url: str) -> int | None:
    return int(url.rpartition(":")[2]) if url else None
