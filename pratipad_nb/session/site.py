"""A site: the state folder of a project with its embedded server and its certificate authority.

Owns that all flows of this process in one folder share one server, from the first flow that needs the server
to the last, and the parties that the server lets in. Running the server is for `pratipad_nb.server.embedded`,
making certificates for `pratipad_nb.pki`.

Of several processes on one folder, one runs the server (`EmbeddedServer`) and the others join it
(`JoinedServer`). The invariant: the server's lock on the folder is held by the process whose server runs, so
that there are never two servers on one store. A process that finds the lock held joins; a process that joined
takes over once the owner has ended, by trying for the lock again; and an owner that runs the server for its
flows alone hands the folder over to a `pratipad server` that waits for it.
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
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

from pratipad_nb.errors import CertificateError, ServerError, TransportError, WaitTimeout
from pratipad_nb.forks import forget_in_child
from pratipad_nb.pki.certificates import identity_in, identity_of, read_pem
from pratipad_nb.pki.store import LOOPBACK_HOSTS, CertificateStore, forget_party
from pratipad_nb.portal import Portal, PortalClosed
from pratipad_nb.server.accounts import OWNER
from pratipad_nb.server.config import ServerFiles
from pratipad_nb.server.disk import storage_in
from pratipad_nb.server.embedded import EmbeddedServer
from pratipad_nb.server.joined import JoinedServer
from pratipad_nb.server.readers import forget, prepare
from pratipad_nb.server.register import Change, Register, Rules
from pratipad_nb.server.renewal import Renewal
from pratipad_nb.server.state import ServerLocked, is_wanted, read_state, url_in
from pratipad_nb.session import state_folder
from pratipad_nb.settings import Address, Credentials, Endpoint, Leaf, Sync
from pratipad_nb.tasks import first_of
from pratipad_nb.transport.frames import RenewedFrame
from pratipad_nb.transport.parties import Party
from pratipad_nb.transport.rights import Verb, who_can
from pratipad_nb.validity import valid_until

__all__ = ["Site"]

log = logging.getLogger(__name__)

#: Identity in the server's own certificate; the identity lets nobody in.
_SERVER = "urn:pratipad:server"
#: How often a process that has joined another process's server looks whether that process still runs, in
#: seconds.
_LOOK_SECONDS = 0.5
_HANDOVER_LOOK_SECONDS = 0.02


class Site:
    """One state folder with its server, as the flows of this process share them. Made by `acquire`."""

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
        self._owner: Credentials | None = None
        self._server: EmbeddedServer | JoinedServer | None = None
        self._portal = Portal("pratipad server")
        #: The site's end, once the last user has released it: a later user waits for the end and opens a new
        #: site.
        self._ending: concurrent.futures.Future[None] | None = None
        self._started: asyncio.Task[None] | None = None
        self._watching: asyncio.Task[None] | None = None
        self._renewal: Renewal | None = None
        self._renewing: asyncio.Task[None] | None = None
        #: Done with the exception of the first bug that ends the watch over the server.
        self._broken: concurrent.futures.Future[None] = concurrent.futures.Future()
        #: The certificates of parties that were let in here, by identity.
        self._invited: dict[str, Credentials] = {}
        #: Held while the server is handed over to another process.
        self._moving = asyncio.Lock()

    # -- sharing ---------------------------------------------------------------------------------------------

    @classmethod
    async def acquire(
        cls, home: Path, sync: Sync, mqtt: bool | str = False, leaf_of: Leaf | None = None
    ) -> Site:
        """Return the site of `home`, with its server running; the caller gives the site back by `release`.

        Raises
        ------
        ServerError
            If the server can't be started, if the folder can't be written, or if the server runs already
            without the `mqtt` or `leaf_of` that is asked for.
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
                    f"the server of {home} runs already, and takes no MQTT devices. Start the flow with "
                    "mqtt= first, or end the others before."
                )
            if leaf_of is not None and not site.is_leaf:
                raise ServerError(
                    f"the server of {home} runs already, and is no leaf of {leaf_of.url}. Start the flow "
                    "with leaf_of= first, or end the others before."
                )
        except BaseException:
            await site.release()
            raise
        return site

    async def release(self) -> None:
        """Give the site back; the server stops with the last flow.

        If the caller is cancelled, stopping goes on in the site's own thread: a server that nobody stops any
        more would keep the folder.
        """
        with self._lock:
            self._users -= 1
            if self._users:
                return
            ending = self._ending = self._portal.submit(self._stop())
        ending.add_done_callback(self._has_ended)
        await _heard_of(ending)
        # The portal's thread has nothing left to do, so joining it here takes no time.
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
        """Start the server once, however many flows ask at the same time."""
        if self._started is None:
            self._started = asyncio.create_task(self._start())
        await asyncio.shield(self._started)

    async def _start(self) -> None:
        store = self._store = await asyncio.to_thread(self._open_store)
        self._credentials = await asyncio.to_thread(store.server, _SERVER, _hosts(self._mqtt))
        self._owner = await asyncio.to_thread(store.owner, OWNER)
        self._renewal = Renewal(store)
        self._renewal.keep_owner(self._owner)
        self.url = await self._own_or_join()
        await self._prepare_readers()
        self._renewing = asyncio.create_task(self._renewal.run(), name="renewal of certificates")
        self._renewing.add_done_callback(self._note_end)

    async def _prepare_readers(self) -> None:
        """Make what readers need that were let in while no server ran."""
        try:
            await prepare(self.url, self._register.parties.values(), self._let_in)
        except (TransportError, WaitTimeout) as error:
            log.warning("readers that were let in while no server ran have to wait for their flow: %s", error)

    @property
    def is_leaf(self) -> bool:
        """Whether the server is a leaf of another server."""
        return self._server is not None and self._server.is_leaf

    @property
    def mqtt_url(self) -> str:
        """URL for devices that speak MQTT; empty if the server takes none."""
        return self._server.mqtt_url if self._server is not None else ""

    async def _own_or_join(self) -> str:
        """Start the server, or join the server that another process has started on this folder."""
        folder = self.home / "server"
        assert self._credentials is not None
        assert self._store is not None
        assert self._renewal is not None
        own = EmbeddedServer(
            folder,
            self._credentials,
            sync=self._sync,
            mqtt=self._mqtt,
            leaf_of=self._leaf_of,
            owner=self._owner,
        )
        self._server = own
        try:
            url = await own.start()
        except ServerLocked as locked:
            joined = JoinedServer(folder, self._owner)
            self._server = joined
            self._renewal.drop(_SERVER)  # the owner's
            url = await joined.start()
            if locked.state.standalone:
                return url
            self._watch(self._take_over_after(joined), "watch a joined server")
            return url
        self._renewal.keep(
            _SERVER,
            "the server",
            self._credentials,
            ensure=functools.partial(self._store.server, _SERVER, _hosts(self._mqtt)),
            renewed=lambda _credentials: own.reload(),
        )
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
        """Wait until a bug of ours ends the watch over the server, and raise its exception."""
        await _heard_of(self._broken)
        self._broken.result()

    async def _hand_over_when_wanted(self, own: EmbeddedServer) -> None:
        """Wait until a `pratipad server` wants the folder, hand the folder over, and join its server."""
        files = ServerFiles(self.home / "server")
        await first_of(_wanted(files), own.failure())
        async with self._moving:
            await own.stop()
            while is_wanted(files) and read_state(files) is None:  # noqa: ASYNC110 - as above
                await asyncio.sleep(_HANDOVER_LOOK_SECONDS)
            await self._own_or_join_again()

    async def _take_over_after(self, joined: JoinedServer) -> None:
        """Wait for the end of the server's owner, then start the server here: same port, same store."""
        while joined.running:  # noqa: ASYNC110 - another process's end sets no event
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
            for task in (self._watching, self._renewing):
                if task is not None:
                    task.cancel()
                    await asyncio.wait({task})
            if self._started.exception() is None and self._server is not None:
                await self._server.stop()

    # -- letting parties in ----------------------------------------------------------------------------------

    async def endpoint_for(self, party: Party, mqtt: bool | None = None) -> Endpoint:
        """Let `party` in, making its certificate if there is none, and return its endpoint.

        Parameters
        ----------
        party
            The party, without a serial number.
        mqtt
            Whether the device speaks MQTT from now on; None: as it was invited.

        Raises
        ------
        SettingsError
            If a tenant's quota is exhausted.
        """
        credentials = await self._on_portal(self._let_in(party, mqtt))
        folder = self.home / "server"
        assert self._renewal is not None
        return Endpoint(
            self.url,
            party.flow,
            credentials,
            functools.partial(url_in, folder),
            functools.partial(storage_in, folder),
            functools.partial(self._renewal.warnings, party.key)
            if party.role == "edge"
            else functools.partial(self._renewal.warnings_of, party.identity),
            party.tenant,
        )

    async def renew(self, device: Party, request: bytes) -> RenewedFrame:
        """Return a certificate for the key of a device's request, let in from now on.

        Raises
        ------
        CertificateError
            If `request` is none, or the device got a certificate within the hour.
        """
        answer: RenewedFrame = await self._on_portal(self._renew_device(device, request))
        return answer

    async def _renew_device(self, device: Party, request: bytes) -> RenewedFrame:
        assert self._store is not None
        store = self._store
        answer, former = await asyncio.to_thread(
            store.answered, device.role, device.key, device.name, device.identity, request
        )
        named = Party.parse(identity_of(read_pem(answer.certificate)))
        assert named is not None
        mqtt = any(each.mqtt for each in self._entries(device))
        gone = tuple(device.with_serial(serial) for serial in former)
        await self._change(Change((replace(named, mqtt=mqtt),), gone))
        return RenewedFrame(answer.certificate, answer.authority, answer.voucher)

    async def declare(self, key: str, rules: Rules | None) -> None:
        """Have the server go by `rules` for the flow `key` from now on; None: it has nothing stored any more.

        The bound never gets smaller: the flow's logs reserve their old bounds until its edge has changed
        them.
        """
        before = self._register.rules.get(key)
        if rules is not None and before is not None:
            rules = replace(rules, bytes=max(rules.bytes, before.bytes))
        if rules != before:
            await self._on_portal(self._change(Change(rules={key: rules})))

    async def share(self, guest: Party) -> None:
        """Let the flow of `guest` be shared with that reader, and make what the reader needs at the server.

        A certificate is what lets the reader in.
        """
        await self._on_portal(self._share(guest))

    async def _share(self, guest: Party) -> None:
        if guest not in self._register.shares:
            await self._change(Change(shared=(guest,)))
        await prepare(self.url, (guest,), self._let_in)

    async def unshare(self, key: str, tenant: str) -> bool:
        """Cut the guests of `tenant` off the flow `key`, and forget their positions and certificates here.

        Returns whether the flow was shared with the tenant.
        """
        return bool(await self._on_portal(self._unshare(key, tenant)))

    async def _unshare(self, key: str, tenant: str) -> bool:
        guests = tuple(
            party for party in self._register.shares if party.key == key and party.guest_of == tenant
        )
        if guests:
            await self._change(Change(unshared=guests))
            await forget(self.url, guests, self._let_in)
        for guest in guests:
            await self._drop(guest)
        return bool(guests)

    async def revoke(self, party: Party) -> bool:
        """Let `party` in no more, and delete its certificate here; return whether it was let in."""
        return bool(await self._on_portal(self._revoke(party)))

    async def _revoke(self, party: Party) -> bool:
        listed = bool(self._entries(party))
        if listed:
            await self._change(Change(gone=(party,)))
        await self._drop(party)
        return listed

    async def _drop(self, party: Party) -> None:
        """Renew the certificate of `party` no longer, and delete it."""
        assert self._renewal is not None
        self._renewal.drop(party.identity)
        self._invited.pop(party.identity, None)
        await asyncio.to_thread(forget_party, self.home / "pki", party.role, party.key, party.name)

    async def note_carried(self, party: Party, folder: Path) -> None:
        """Know of a party's certificate in `folder`, to be carried away, so that its end is warned of."""
        await self._on_portal(self._note_carried(party, folder))

    async def _note_carried(self, party: Party, folder: Path) -> None:
        assert self._store is not None
        assert self._renewal is not None
        await asyncio.to_thread(self._store.note_carried, party.role, party.key, party.name, folder)
        self._renewal.note_carried(valid_until(folder / "cert.pem"))

    def who_can(self, verb: Verb, subject: str, key: str) -> tuple[str, ...]:
        """Return the identities of the parties of the flow `key` that may publish, or hear, `subject`."""
        register = self._register
        arrows = register.rules_of(key).arrows
        return who_can(
            verb, subject, ((party, arrows) for party in register.parties.values() if party.key == key)
        )

    @property
    def _register(self) -> Register:
        assert self._server is not None
        return self._server.register

    async def _let_in(self, party: Party, mqtt: bool | None = None) -> Credentials:
        credentials = self._invited.get(party.identity)
        # Another process may have revoked the certificate.
        is_new = credentials is None or await self._listed(party, credentials) is None
        if credentials is None or is_new:
            credentials = await asyncio.to_thread(self._certificate, party)
        await self._list(party, credentials, mqtt)
        if is_new:
            await prepare(self.url, (party,), self._let_in)
            assert self._renewal is not None
            self._renewal.keep(
                party.identity,
                party.in_words,
                credentials,
                flow=party.key,
                ensure=functools.partial(self._certificate_of_listed, party),
                renewed=functools.partial(self._list, party),
            )
        self._invited[party.identity] = credentials
        return credentials

    async def _list(self, party: Party, credentials: Credentials, mqtt: bool | None = None) -> None:
        """Have the server let `party` in with the certificate in `credentials`."""
        listed = await self._listed(party, credentials)
        speaks = any(each.mqtt for each in self._entries(party)) if mqtt is None else mqtt
        wanted = replace(party, serial=await _serial_in(credentials), mqtt=speaks)
        if listed != wanted:
            former = await self._former(wanted) if party.role == "edge" else ()
            await self._change(Change((wanted,), former))

    async def _former(self, edge: Party) -> tuple[Party, ...]:
        """Return the entries of the edge's former certificates of this computer, which nobody shows any more.

        A connection that was made with one ends, and comes back at once with the new certificate: an edge is
        renewed 24 times a year.
        """
        assert self._store is not None
        carried = await asyncio.to_thread(self._store.carried_names, edge.role, edge.key)
        entries = [each for each in self._entries(edge) if each.serial and each != edge]
        # Without the identity, by which certificates of version 0.1 are listed, a carried one would be out.
        return () if edge.identity in carried else tuple(e for e in entries if e.user not in carried)

    async def _listed(self, party: Party, credentials: Credentials) -> Party | None:
        """Return the entry of the register for the party's certificate in `credentials`, if any."""
        try:
            serial = await _serial_in(credentials)
        except CertificateError:  # who revokes a party deletes its files
            return None
        return self._register.parties.get(party.with_serial(serial).user)

    def _certificate_of_listed(self, party: Party) -> Credentials | None:
        """Return the party's certificate, renewed if need be; None if another process revoked it."""
        shown = ""
        with contextlib.suppress(CertificateError):
            shown = identity_in(self._invited[party.identity].certificate)
        if shown in self._register.parties or self._entries(party):
            return self._certificate(party)
        return None

    def _entries(self, party: Party) -> list[Party]:
        return [each for each in self._register.parties.values() if each.identity == party.identity]

    async def _change(self, change: Change) -> None:
        async with self._moving:
            assert self._server is not None
            await self._server.change(change)

    def _certificate(self, party: Party) -> Credentials:
        assert self._store is not None
        if party.role == "edge":
            return self._store.edge(party.key, party.identity)
        if party.role == "reader":
            return self._store.reader(party.key, party.name, party.identity)
        return self._store.device(party.key, party.name, party.identity)


async def _serial_in(credentials: Credentials) -> str:
    """Return the serial number by which the certificate names its holder; empty if it names none."""
    named = Party.parse(await asyncio.to_thread(identity_in, credentials.certificate))
    return named.serial if named is not None else ""


def _forget_sites() -> None:
    """Forget the sites, whose servers belong to the process from which this process was forked."""
    Site._lock = threading.Lock()  # noqa: SLF001 - of this module
    Site._open.clear()  # noqa: SLF001


forget_in_child(_forget_sites)


async def _wanted(files: ServerFiles) -> None:
    while not is_wanted(files):  # noqa: ASYNC110 - another process can't set an event
        await asyncio.sleep(_LOOK_SECONDS)


async def _heard_of(ending: concurrent.futures.Future[None]) -> None:
    """Wait until `ending` is done, whatever its result. A cancellation ends the wait, and not `ending`."""
    loop, heard = asyncio.get_running_loop(), asyncio.Event()

    def tell(_ending: concurrent.futures.Future[None]) -> None:
        with contextlib.suppress(RuntimeError):  # the waiting task is gone, and its loop is closed
            loop.call_soon_threadsafe(heard.set)

    ending.add_done_callback(tell)
    await heard.wait()


def _hosts(mqtt: bool | str) -> tuple[str, ...]:
    """Return the names of the server for its certificate: MQTT devices may come from other machines."""
    host = Address.parse(mqtt).host if isinstance(mqtt, str) else ""
    if host in ("0.0.0.0", "::"):  # noqa: S104 - compared, not bound to
        host = socket.gethostname()
    return LOOPBACK_HOSTS if host in ("", *LOOPBACK_HOSTS) else (*LOOPBACK_HOSTS, host)
