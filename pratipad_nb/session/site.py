"""A site: the state folder of a project with its embedded server and its certificate authority.

Owns that there is one server for all flows of this process in one folder, from the first that needs it to the last,
and whom it lets in. Running the server is `pratipad_nb.server.embedded`, making certificates `pratipad_nb.pki`.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import functools
import logging
import socket
import threading
from collections.abc import Coroutine
from pathlib import Path
from typing import Any, ClassVar

from pratipad_nb.errors import ServerError
from pratipad_nb.pki.store import LOOPBACK_HOSTS, CertificateStore
from pratipad_nb.portal import Portal, PortalClosed
from pratipad_nb.server.config import ServerFiles
from pratipad_nb.server.embedded import EmbeddedServer
from pratipad_nb.server.joined import JoinedServer
from pratipad_nb.server.state import ServerLocked, is_wanted, read_state, url_in
from pratipad_nb.session import state_folder
from pratipad_nb.settings import Address, Credentials, Endpoint, Leaf, Sync
from pratipad_nb.tasks import first_of
from pratipad_nb.transport.permissions import Role, User, device_user, edge_user, reader_user

__all__ = ["Site"]

log = logging.getLogger(__name__)

#: What the server's own certificate calls it; nobody is let in by it.
_SERVER = "urn:pratipad:server"
#: How often a process that has joined another's server looks whether that one still runs, in seconds.
_LOOK_SECONDS = 0.5
_HANDOVER_LOOK_SECONDS = 0.02
_USERS = {"device": device_user, "reader": reader_user}


class Site:
    """One state folder, as this process uses it. Made by `acquire`."""

    _open: ClassVar[dict[Path, Site]] = {}
    _lock: ClassVar[threading.Lock] = threading.Lock()

    def __init__(self, home: Path, sync: Sync, mqtt: bool | str = False, leaf_of: Leaf | None = None) -> None:
        self.home = home
        self._sync = sync
        self._mqtt = mqtt
        self._leaf_of = leaf_of
        self.url = ""
        self._users = 0
        self._store: CertificateStore | None = None
        self._credentials: Credentials | None = None
        self._server: EmbeddedServer | JoinedServer | None = None
        self._portal = Portal("pratipad server")
        #: Its end, once the last user has given it back: who comes then waits for it and opens another.
        self._ending: concurrent.futures.Future[None] | None = None
        self._started: asyncio.Task[None] | None = None
        self._watching: asyncio.Task[None] | None = None
        #: Done with the first bug that keeps the server from being looked after.
        self._broken: concurrent.futures.Future[None] = concurrent.futures.Future()
        self._invited: dict[str, Credentials] = {}
        #: Held while the server is handed over to another process.
        self._moving = asyncio.Lock()

    # -- sharing ------------------------------------------------------------------------------------------------

    @classmethod
    async def acquire(
        cls, home: Path, sync: Sync, mqtt: bool | str = False, leaf_of: Leaf | None = None
    ) -> Site:
        """Return the site of `home`, with its server running; to be given back by `release`.

        Raises
        ------
        ServerError
            If the server can't be started, or the folder can't be written; or if `mqtt` or `leaf_of` is asked for and
            the server runs already, without it.
        """
        while True:
            with cls._lock:
                site = cls._open.get(home)
                if site is None:
                    site = cls._open[home] = Site(home, sync, mqtt, leaf_of)
                if site._ending is None:
                    site._users += 1
                    break
            await _heard_of(site._ending)
        try:
            await site._on_portal(site._ensure_started())
            if mqtt and not site.mqtt_url:
                raise ServerError(
                    f"the server of {home} runs already, and takes no MQTT devices. Start the flow with mqtt= first, or "
                    "end the others before."
                )
            if leaf_of is not None and not site.is_leaf:
                raise ServerError(
                    f"the server of {home} runs already, and is no leaf of {leaf_of.url}. Start the flow with leaf_of= "
                    "first, or end the others before."
                )
        except BaseException:
            await site.release()
            raise
        return site

    async def release(self) -> None:
        """Give it back; the server stops with the last flow.

        Whoever is cancelled while he waits for that leaves it to go on, in the site's own thread: a server that nobody
        stops any more would keep the folder.
        """
        with self._lock:
            self._users -= 1
            if self._users:
                return
            ending = self._ending = self._portal.submit(self._stop())
        ending.add_done_callback(self._has_ended)
        await _heard_of(ending)
        # It has nothing left to do, so joining its thread takes no time worth a thread to wait in.
        self._portal.close()
        ending.result()

    def _has_ended(self, _ending: concurrent.futures.Future[None]) -> None:
        with self._lock:
            self._open.pop(self.home, None)
        self._portal.close()

    async def _on_portal(self, work: Any) -> Any:
        try:
            done = self._portal.submit(work)
            return await asyncio.wrap_future(done)
        except (asyncio.CancelledError, PortalClosed):
            task = asyncio.current_task()
            if task is not None and task.cancelling():
                raise
            raise ServerError(
                f"the server in {self.home} was stopped before the request was done. Try again."
            ) from None

    async def _ensure_started(self) -> None:
        """Start once, however many flows ask at the same time."""
        if self._started is None:
            self._started = asyncio.create_task(self._start())
        await asyncio.shield(self._started)

    async def _start(self) -> None:
        store = self._store = await asyncio.to_thread(self._open_store)
        self._credentials = await asyncio.to_thread(store.server, _SERVER, _hosts(self._mqtt))
        self.url = await self._own_or_join()

    @property
    def is_leaf(self) -> bool:
        """Whether the server joins another as a leaf."""
        return self._server is not None and self._server.is_leaf

    @property
    def mqtt_url(self) -> str:
        """Where the server takes devices that speak MQTT; empty if it takes none."""
        return self._server.mqtt_url if self._server is not None else ""

    async def _own_or_join(self) -> str:
        """Start the server, or join the one that another process has started on this folder."""
        folder = self.home / "server"
        assert self._credentials is not None
        own = EmbeddedServer(
            folder, self._credentials, sync=self._sync, mqtt=self._mqtt, leaf_of=self._leaf_of
        )
        self._server = own
        try:
            url = await own.start()
        except ServerLocked as locked:
            joined = JoinedServer(folder)
            self._server = joined
            url = await joined.start()
            if locked.state.standalone:
                return url
            self._watch(self._take_over_after(joined), "watch a joined server")
            return url
        self._watch(self._hand_over_when_wanted(own), "watch for a server's owner")
        return url

    def _watch(self, work: Coroutine[Any, Any, None], name: str) -> None:
        self._watching = asyncio.create_task(work, name=name)
        self._watching.add_done_callback(self._note_end)

    def _note_end(self, task: asyncio.Task[None]) -> None:
        error = None if task.cancelled() else task.exception()
        if error is not None and not self._broken.done():
            self._broken.set_exception(error)

    async def failure(self) -> None:
        """Wait until the server can't be looked after any more, by a bug of ours, and raise its exception."""
        await _heard_of(self._broken)
        self._broken.result()

    async def _hand_over_when_wanted(self, own: EmbeddedServer) -> None:
        """Wait until a process wants the folder that is there for the server's sake, and join that one's server."""
        files = ServerFiles(self.home / "server")
        await first_of(_wanted(files), own.failure())
        async with self._moving:
            await own.stop()
            while is_wanted(files) and read_state(files) is None:  # noqa: ASYNC110 - as above
                await asyncio.sleep(_HANDOVER_LOOK_SECONDS)
            await self._own_or_join_again()

    async def _take_over_after(self, joined: JoinedServer) -> None:
        """Wait for the end of the process that owns the server, then start it here: same port, same store."""
        while joined.running:  # noqa: ASYNC110 - another process's end is no event of ours
            await asyncio.sleep(_LOOK_SECONDS)
        await joined.stop()
        await self._own_or_join_again()

    async def _own_or_join_again(self) -> None:
        while True:
            try:
                self.url = await self._own_or_join()
            except ServerError as error:
                log.warning("the server could not be taken over: %s", error)
                await asyncio.sleep(_LOOK_SECONDS)
            else:
                return

    def _open_store(self) -> CertificateStore:
        state_folder.prepare(self.home)
        return CertificateStore.open(self.home)

    async def _stop(self) -> None:
        if self._started is not None:
            await asyncio.wait({self._started})
            if self._watching is not None:
                self._watching.cancel()
                await asyncio.wait({self._watching})
            if self._started.exception() is None and self._server is not None:
                await self._server.stop()

    # -- letting in ---------------------------------------------------------------------------------------------

    async def endpoint_for(self, flow: str, role: Role, name: str) -> Endpoint:
        """Let a party in, making its certificate if need be, and return what it connects to."""
        user = edge_user(flow) if role == "edge" else _USERS[role](flow, name)
        credentials = await self._on_portal(self._let_in(flow, role, name, user))
        return Endpoint(self.url, flow, credentials, functools.partial(url_in, self.home / "server"))

    async def _let_in(self, flow: str, role: Role, name: str, user: User) -> Credentials:
        known = self._invited.get(user.identity)
        if known is not None:
            return known
        credentials = await asyncio.to_thread(self._certificate, flow, role, name, user.identity)
        async with self._moving:
            assert self._server is not None
            await self._server.allow([user])
        self._invited[user.identity] = credentials
        return credentials

    def _certificate(self, flow: str, role: Role, name: str, identity: str) -> Credentials:
        assert self._store is not None
        if role == "edge":
            return self._store.edge(flow, identity)
        if role == "reader":
            return self._store.reader(flow, name, identity)
        return self._store.device(flow, name, identity)


async def _wanted(files: ServerFiles) -> None:
    while not is_wanted(files):  # noqa: ASYNC110 - another process can't set an event
        await asyncio.sleep(_LOOK_SECONDS)


async def _heard_of(ending: concurrent.futures.Future[None]) -> None:
    """Wait until `ending` is done, well or not; to be cancelled at any time, which ends the wait alone."""
    loop, heard = asyncio.get_running_loop(), asyncio.Event()

    def tell(_ending: concurrent.futures.Future[None]) -> None:
        with contextlib.suppress(RuntimeError):  # nobody waits any more, and the loop is closed
            loop.call_soon_threadsafe(heard.set)

    ending.add_done_callback(tell)
    await heard.wait()


def _hosts(mqtt: bool | str) -> tuple[str, ...]:
    """Return under which names the server is reached: MQTT devices may come from other machines."""
    host = Address.parse(mqtt).host if isinstance(mqtt, str) else ""
    if host in ("0.0.0.0", "::"):  # noqa: S104 - compared, not bound to
        host = socket.gethostname()
    return LOOPBACK_HOSTS if host in ("", *LOOPBACK_HOSTS) else (*LOOPBACK_HOSTS, host)
