"""An edge's server as a leaf of the cloud's: their link is cut, and its traffic is held to its table.

The link goes through a proxy that can be cut in two ways: closed, as when a router restarts, and silent, as
when a cable is pulled: nobody is told, and packets are gone.
"""

from __future__ import annotations

import contextlib
import os
import queue
import select
import signal
import socket
import threading
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path

import psutil
import pytest
from patience import patient, until

from pratipad_nb import Cloud, Device, Flow
from pratipad_nb.errors import ServerError, SettingsError, TransportError, WaitTimeout
from pratipad_nb.message import Message
from pratipad_nb.pki.authority import Authority
from pratipad_nb.pki.store import CertificateStore
from pratipad_nb.portal import Portal
from pratipad_nb.server.embedded import EmbeddedServer
from pratipad_nb.settings import Credentials, Endpoint, FlowOptions, Leaf
from pratipad_nb.testing import real_server
from pratipad_nb.transport.connecting import connect
from pratipad_nb.transport.parties import Party
from pratipad_nb.transport.subjects import Subjects

HOUSE = Subjects("house")
BARN = Party("house", "leaf", "barn")
pytestmark = pytest.mark.timeout(120)


def tag(payload: dict) -> dict:
    return payload | {"tagged": True}


class Proxy:
    """Passes TCP on to `target` until it is cut."""

    def __init__(self, target: tuple[str, int]) -> None:
        self._target = target
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._pairs: dict[socket.socket, socket.socket] = {}
        self._flowing = threading.Event()
        self._flowing.set()
        self._accepting = True
        self._ended = False
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        while not self._ended:
            self._flowing.wait(0.05)
            if not self._flowing.is_set():
                continue
            ready, _, _ = select.select([self._listener, *self._pairs], [], [], 0.02)
            for each in ready:
                if each is self._listener:
                    self._accept()
                elif each in self._pairs:
                    self._pass_on(each)

    def _accept(self) -> None:
        inner, _ = self._listener.accept()
        if not self._accepting:
            inner.close()
            return
        try:
            outer = socket.create_connection(self._target)
        except OSError:  # the server behind it has been killed and isn't back yet
            inner.close()
            return
        self._pairs[inner], self._pairs[outer] = outer, inner

    def _pass_on(self, each: socket.socket) -> None:
        other = self._pairs[each]
        try:
            data = each.recv(1 << 16)
            if self._flowing.is_set():
                other.sendall(data)
        except OSError:
            data = b""
        if not data:
            self._drop(each, other)

    def _drop(self, *ends: socket.socket) -> None:
        for end in ends:
            self._pairs.pop(end, None)
            end.close()

    def cut(self, how: str) -> None:
        if how == "silent":
            self._flowing.clear()
        else:
            self._accepting = False
            for end in tuple(self._pairs):
                with contextlib.suppress(OSError):
                    end.shutdown(socket.SHUT_RDWR)

    def restore(self) -> None:
        self._accepting = True
        self._flowing.set()

    def close(self) -> None:
        self._ended = True
        self._thread.join()
        self._drop(*self._pairs, self._listener)


class CloudSide:
    """The server at the cloud, with its own authority, and who is let in there."""

    def __init__(self, home: Path) -> None:
        self.portal = Portal("cloud")
        self.home = home
        self.store = CertificateStore.open(home)
        self.server = self._server("127.0.0.1:" + str(free_port()))
        self.url = self.portal.run(
            self._start(
                [Party("house", "leaf", "barn"), Party("house", "reader", "cloud"), Party("house", "edge")]
            )
        )
        self.proxy = Proxy(("127.0.0.1", int(self.server.leaves_url.rpartition(":")[2])))

    def _server(self, leaves: str) -> EmbeddedServer:
        return EmbeddedServer(self.home / "server", self.store.server("urn:pratipad:server"), leaves=leaves)

    async def _start(self, parties: list[Party]) -> str:
        return await self.server.start(parties)

    def leaf(self, credentials: Credentials | None = None) -> Leaf:
        """Return what the site "barn" joins with."""
        if credentials is None:
            credentials = self.store.authority.issue(BARN.identity, self.home / "barn")
        return Leaf(f"tls://127.0.0.1:{self.proxy.port}", credentials)

    def edge(self) -> Endpoint:
        """Return the endpoint of an edge, which may do anything in the account of its flow."""
        return Endpoint(self.url, "house", self.store.edge("house", Party("house", "edge").identity))

    def reader(self, identity: str = Party("house", "reader", "cloud").identity) -> Endpoint:
        name = identity.rpartition(":")[2]
        return Endpoint(self.url, "house", self.store.reader("house", name, identity))

    def close(self) -> None:
        self.proxy.close()
        self.portal.run(self.server.stop())
        self.portal.close()


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


def kill_server(home: Path) -> None:
    """Kill the NATS server of a state folder; its owner brings it back."""
    for process in psutil.process_iter(["cmdline", "name"]):
        if process.info["name"] == "nats-server" and str(home) in " ".join(process.info["cmdline"] or ()):
            os.kill(process.pid, signal.SIGKILL)


def house(home: Path, leaf: Leaf | None, **options: object) -> Flow:
    return Flow(
        "Push <~> tag <~> Output",
        name="house",
        namespace={"tag": tag},
        home=home,
        options=FlowOptions(leaf_of=leaf, **options),  # type: ignore[arg-type]
    )


@pytest.fixture
def cloud_side(tmp_path: Path) -> Iterator[CloudSide]:
    side = CloudSide(tmp_path / "cloud")
    yield side
    side.close()


class Pushers:
    """Devices that push numbers all the time."""

    def __init__(self, flow: Flow, names: tuple[str, ...], pause: float) -> None:
        self._pause = pause
        self._ended = threading.Event()
        self.counts: dict[str, int] = {}
        self._threads = [threading.Thread(target=self._push, args=(flow, name)) for name in names]
        for thread in self._threads:
            thread.start()

    def _push(self, flow: Flow, name: str) -> None:
        with Device(name).connect(flow) as device:
            count = 0
            while not self._ended.is_set():
                device.push({"n": count})
                count += 1
                time.sleep(self._pause)
            device.flush()
            self.counts[name] = count

    def end(self) -> dict[str, int]:
        self._ended.set()
        for thread in self._threads:
            thread.join(patient(60))
        return self.counts


def taken_by_device(
    cloud: Cloud, counts: dict[str, int], before: Sequence[Message] = ()
) -> dict[str, list[int]]:
    """Take all that is left and nothing more, and return what each device counted."""
    found: dict[str, list[int]] = defaultdict(list)
    messages = [*before, *cloud.take(sum(counts.values()) - len(before), timeout=patient(60))]
    for message in messages:
        found[message.device].append(message.payload["n"])
    assert len({message.id for message in messages}) == len(messages)
    with pytest.raises(WaitTimeout):
        cloud.take(1, timeout=0.5)
    return dict(found)


def expected(counts: dict[str, int]) -> dict[str, list[int]]:
    return {name: list(range(count)) for name, count in counts.items()}


# -- cuts ----------------------------------------------------------------------------------------------------


def held_over_a_cut(cloud_side: CloudSide, edge_home: Path, how: str, seconds: float) -> float:
    """Cut the link in the middle of a stream, and return how long it took to catch up."""
    with house(edge_home, cloud_side.leaf()) as flow, Cloud("house", endpoint=cloud_side.reader()) as cloud:
        pushers = Pushers(flow, ("room1", "room2"), 0.002)
        first = cloud.take(50, timeout=patient(20))  # it flows
        delivered = flow.stats().delivered
        cloud_side.proxy.cut(how)
        time.sleep(seconds)  # the length of the cut is what is asked for
        assert flow.stats().delivered > delivered + 50, "the edge went on"
        assert flow.state == "running"
        cloud_side.proxy.restore()
        began = time.monotonic()
        counts = pushers.end()
        flow.settled(patient(30))
        assert taken_by_device(cloud, counts, first) == expected(counts)
        return time.monotonic() - began


@pytest.mark.parametrize("how", ["closed", "silent"])
def test_nothing_is_lost_doubled_or_reordered_over_a_cut_of_three_seconds(cloud_side, tmp_path, how):
    assert held_over_a_cut(cloud_side, tmp_path / "edge", how, 3.0) < patient(15.0)


# The servers notice a silent cut after five to fifteen seconds, and a closed link at once.
@pytest.mark.slow
def test_nothing_is_lost_doubled_or_reordered_over_a_silent_cut_of_fifteen_seconds(cloud_side, tmp_path):
    assert held_over_a_cut(cloud_side, tmp_path / "edge", "silent", 15.0) < patient(40.0)


def test_a_flow_starts_and_works_while_the_link_is_down(cloud_side, tmp_path):
    cloud_side.proxy.cut("closed")
    with house(tmp_path / "edge", cloud_side.leaf()) as flow, Device("room1").connect(flow) as device:
        for n in range(100):
            device.push({"n": n})
        device.flush()
        flow.settled()
        assert [m.payload["n"] for m in flow.take(100)] == list(range(100))
    # The edge stops, with all still to be sent, and comes back.
    with house(tmp_path / "edge", cloud_side.leaf()), Cloud("house", endpoint=cloud_side.reader()) as cloud:
        cloud_side.proxy.restore()
        assert taken_by_device(cloud, {"room1": 100}) == expected({"room1": 100})


def test_nothing_is_lost_or_doubled_when_servers_are_killed_and_the_edge_starts_anew(cloud_side, tmp_path):
    edge_home, counts = tmp_path / "edge", {}
    with Cloud("house", endpoint=cloud_side.reader()) as cloud:
        for number, damage in enumerate((edge_home, cloud_side.home, None, edge_home)):
            with house(edge_home, cloud_side.leaf()) as flow:
                pushers = Pushers(flow, (f"room{number}",), 0.0005)
                until(lambda flow=flow: flow.stats().delivered > 500)
                if damage is not None:
                    kill_server(damage)
                counts |= pushers.end()
                flow.settled()
        with house(edge_home, cloud_side.leaf()):
            assert taken_by_device(cloud, counts) == expected(counts)


# -- the other direction -------------------------------------------------------------------------------------


def test_orders_pass_the_link_and_one_that_can_not_is_refused(cloud_side, tmp_path):
    orders: queue.Queue[object] = queue.Queue()
    with (
        house(tmp_path / "edge", cloud_side.leaf()) as flow,
        Cloud("house", endpoint=cloud_side.reader()) as cloud,
        Device("room1", receive=orders.put).connect(flow) as device,
    ):
        device.push({"n": 0}).wait(10)
        cloud.take(1)
        cloud.send({"led": "on"}, to="room1")
        assert orders.get(timeout=patient(10)) == {"led": "on"}
        assert cloud.describe().notation == "Push <~> tag <~> Output"
        cloud_side.proxy.cut("closed")
        refused: list[str] = []

        def sent(payload: object) -> bool:
            try:
                return bool(cloud.send(payload, to="room1"))
            except (WaitTimeout, TransportError) as error:
                refused.append(str(error))
                return False

        until(lambda: not sent("too far") and "does not answer" in refused[-1])
        cloud_side.proxy.restore()
        until(lambda: sent("again"))
        arrived = [orders.get(timeout=patient(10))]
        while arrived[-1] != "again":
            arrived.append(orders.get(timeout=patient(10)))


def test_forgetting_a_flow_or_a_reader_reaches_the_cloud(cloud_side, tmp_path):
    flow = house(tmp_path / "edge", cloud_side.leaf())
    with flow, Device("room1").connect(flow) as device:
        device.push({"n": 0}).wait(10)
        with Cloud("house", endpoint=cloud_side.reader()) as cloud:
            cloud.take(1)
        until(lambda: "_uplink" in flow.stats().readers)
        flow.forget_reader("cloud")
        with Cloud("house", endpoint=cloud_side.reader()) as cloud:
            assert cloud.take(1)[0].payload["n"] == 0  # it begins anew
    flow.forget()
    with flow, Device("room1").connect(flow) as device, Cloud("house", endpoint=cloud_side.reader()) as cloud:
        device.push({"n": 7}).wait(10)
        assert cloud.take(1)[0].payload["n"] == 7


# -- only what is on the table -------------------------------------------------------------------------------


def heard_across(cloud_side: CloudSide, flow: Flow, publishing: list[str], at_edge: bool) -> set[str]:
    """Return which of the subjects pass the link when published on one side by one who may do anything."""
    edge = flow._flow._connection
    heard: set[str] = set()

    async def tried() -> None:
        cloud = await connect(cloud_side.edge(), role="edge", name="house")
        try:
            source, target = (edge, cloud) if at_edge else (cloud, edge)
            for pattern in (HOUSE.everything, "_INBOX.house.edge.>") if at_edge else (HOUSE.everything,):
                await target.subscribe(pattern, lambda signal: heard.add(signal.subject))
            end = time.monotonic() + 10
            while publishing[-1] not in heard and time.monotonic() < end:
                for subject in publishing:
                    await source.publish(subject, b"x")
                await source.flush()
        finally:
            await cloud.close()

    flow._portal.run(tried())
    return heard & set(publishing)


def test_up_the_link_passes_what_the_cloud_is_for_and_nothing_else(cloud_side, tmp_path):
    with house(tmp_path / "edge", cloud_side.leaf()) as flow:
        kept = [HOUSE.up("room1"), HOUSE.down("room1"), HOUSE.plain("room1"), HOUSE.hello("room1"),
                HOUSE.mark("x"), HOUSE.credit("room1"), HOUSE.read("cloud"), HOUSE.dead("tag"),
                HOUSE.control("cloud")]  # fmt: skip
        assert heard_across(cloud_side, flow, [*kept, HOUSE.stats], at_edge=True) == {HOUSE.stats}


def test_down_the_link_pass_orders_and_requests_and_nothing_else(cloud_side, tmp_path):
    with house(tmp_path / "edge", cloud_side.leaf()) as flow:
        kept = [HOUSE.up("room1"), HOUSE.down("room1"), HOUSE.plain("room1"), HOUSE.hello("room1"),
                HOUSE.mark("x"), HOUSE.credit("room1"), HOUSE.read("cloud"), HOUSE.out(0), HOUSE.sent,
                HOUSE.stats]  # fmt: skip
        # The frames that the flow itself forwards are heard at the edge, too.
        until(lambda: (lag := flow.stats().readers.get("_uplink")) is not None and not lag.pending)
        assert heard_across(cloud_side, flow, [*kept, HOUSE.control("cloud")], at_edge=False) == {
            HOUSE.control("cloud")
        }


def test_nobody_at_the_cloud_reaches_jetstream_at_the_edge(cloud_side, tmp_path):
    async def asked(subject: str) -> bytes:
        connection = await connect(cloud_side.edge(), role="edge", name="house")
        try:
            return await connection.request(subject, b"", 1.0)
        finally:
            await connection.close()

    with (
        house(tmp_path / "edge", cloud_side.leaf()) as flow,
        Cloud("house", endpoint=cloud_side.reader()) as cloud,
    ):
        with Device("room1").connect(flow) as device:
            device.push({"n": 0}).wait(10)
            cloud.take(1)
        for request in ("STREAM.INFO.UP_house", "STREAM.DELETE.OUT_house", "INFO"):
            with pytest.raises((NotInvited, WaitTimeout)):
                cloud_side.portal.run(asked(f"$JS.edge.API.{request}"))
        # At its own server it may, and that is another's JetStream.
        assert b"stream not found" in cloud_side.portal.run(asked("$JS.API.STREAM.INFO.UP_house"))
        assert flow.state == "running"


@pytest.mark.parametrize("whose", ["another authority", "nobody"])
def test_a_leaf_that_is_not_invited_gets_nothing_and_the_edge_goes_on(cloud_side, tmp_path, whose):
    authority, identity = cloud_side.store.authority, Party("house", "leaf", "barn").identity
    if whose == "another authority":
        authority = Authority.open(tmp_path / "another")
    else:
        identity = Party("house", "leaf", "stable").identity
    credentials = authority.issue(identity, tmp_path / "leaf")
    # What the leaf trusts is right in each case; what it shows isn't.
    shown = Credentials(cloud_side.store.authority.certificate, credentials.certificate, credentials.key)
    with house(tmp_path / "edge", cloud_side.leaf(shown)) as flow, Device("room1").connect(flow) as device:
        device.push({"n": 0}).wait(10)
        assert flow.take(1)[0].payload["n"] == 0
        until(lambda: flow._flow._forwarder.error)
        with Cloud("house", endpoint=cloud_side.reader()) as cloud, pytest.raises(WaitTimeout):
            cloud.take(1, timeout=1.5)
        assert "_uplink" in flow.stats().readers or flow.state == "running"


# -- how it is asked for -------------------------------------------------------------------------------------


def test_the_certificate_of_another_party_is_told_at_the_start(cloud_side, tmp_path):
    reader = cloud_side.reader().credentials
    with pytest.raises(CertificateError, match=r"'urn:pratipad:house:reader:cloud.*and no leaf's.*issue leaf"):
        house(tmp_path / "edge", cloud_side.leaf(reader)).start()


def test_a_link_that_is_none_or_comes_too_late_is_named(cloud_side, tmp_path):
    credentials = cloud_side.leaf().credentials
    for url in ("nats://cloud:7422", "tls://cloud", "cloud:7422"):
        with pytest.raises(SettingsError, match="no server to be a leaf of: it is tls://HOST:PORT"):
            Leaf(url, credentials)
    with pytest.raises(SettingsError, match="not both"):
        EmbeddedServer(tmp_path, credentials, leaves=True, leaf_of=cloud_side.leaf())
    assert EmbeddedServer(tmp_path, credentials, leaves=True).leaves_url == "tls://127.0.0.1:7422"
    with (
        real_server() as home,
        Flow("Push ~> tag ~> Output", name="a", namespace={"tag": tag}, home=home),
        pytest.raises(ServerError, match="is no leaf of"),
    ):
        house(home, cloud_side.leaf()).start()
