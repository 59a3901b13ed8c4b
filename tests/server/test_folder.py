"""The server's folder, and that of its certificates, may have any name that the file system takes."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pratipad_nb.pki.authority import Authority
from pratipad_nb.server.embedded import EmbeddedServer
from pratipad_nb.settings import Credentials, Leaf
from pratipad_nb.transport.nats import NatsConnection
from pratipad_nb.transport.parties import Party
from pratipad_nb.transport.protocol import LogSpec
from pratipad_nb.transport.subjects import Subjects

NAMES = [
    "Müller", "デスク", "😀", "a b", " a", 'a"b', "it's", "a\\b", "a\\", "\\u00fc", "\\x41", "$HOME", "a$b",
    "#x", "{", "}", "(", "[", "%n", "100%", ",;:=", "~", "x\ny", "a\rb", "a\tb", "a\x01b", "a\x7fb", "-c",
    "include", "a\udcffb",
]  # fmt: skip
SUBJECTS = Subjects("house")
EDGE = Party("house", "edge")

# Everything but what no file name holds; surrogates stand for bytes that are no UTF-8.
names = st.text(
    st.characters(exclude_characters="/\0", exclude_categories=["Cs"]), min_size=1, max_size=20
).filter(lambda name: name not in (".", ".."))


@contextlib.asynccontextmanager
async def served(
    folder: Path, *, leaves: bool | str = False, leaf_of: Leaf | None = None
) -> AsyncIterator[str]:
    """Run a server whose files and certificates lie in `folder`; yields where it takes leaves."""
    authority = Authority.open(folder / "authority")
    own = authority.issue("urn:pratipad:server", folder / "certificates", hosts=("127.0.0.1",), server=True)
    edge = authority.issue(EDGE.identity, folder / "edge")
    server = EmbeddedServer(folder / "server", own, leaves=leaves, leaf_of=leaf_of)
    try:
        url = await server.start([EDGE, Party("house", "leaf", "barn")])
        await stored(url, edge)
        assert (folder / "server/store/jetstream").is_dir()
        assert sorted(each.name for each in folder.parent.iterdir()) == [folder.name]
        yield server.leaves_url
    finally:
        await server.stop()


async def stored(url: str, credentials: Credentials) -> None:
    inbox = f"{Party('house', 'edge').inbox}.test"
    connection = await NatsConnection.connect(url, credentials, name="edge", inbox_prefix=inbox)
    try:
        spec = LogSpec(SUBJECTS.order_stream, SUBJECTS.streams[SUBJECTS.order_stream], 1 << 20, "log", 0.0)
        log = await connection.open_log(spec)
        await connection.append(SUBJECTS.edge_order, b"kept")
        record = await log.latest(SUBJECTS.edge_order)
        assert record is not None
        assert record.data == b"kept"
    finally:
        await connection.close()


@pytest.mark.timeout(60)
@pytest.mark.parametrize("name", NAMES, ids=ascii)
async def test_a_server_runs_in_a_folder_of_any_name(name: str, tmp_path: Path) -> None:
    async with served(tmp_path / "in" / name):
        pass


@pytest.mark.timeout(120)
@settings(max_examples=10, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(name=names)
def test_a_server_runs_in_a_folder_of_any_other_name(
    name: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    async def run() -> None:
        async with served(tmp_path_factory.mktemp("any") / "in" / name):
            pass

    asyncio.run(run())


@pytest.mark.timeout(60)
@pytest.mark.parametrize("name", ['Müller "$x" デスク', "\\u00fc#{\n"], ids=ascii)
async def test_a_leaf_joins_with_certificates_in_a_folder_of_any_name(name: str, tmp_path: Path) -> None:
    cloud = tmp_path / "cloud" / name
    with contextlib.closing(socket.create_server(("127.0.0.1", 0))) as free:
        port = free.getsockname()[1]
    async with served(cloud, leaves=f"127.0.0.1:{port}") as leaves:
        authority, identity = Authority.open(cloud / "authority"), Party("house", "leaf", "barn").identity
        barn = authority.issue(identity, cloud / "barn")
        site = tmp_path / "site" / name
        async with served(site, leaf_of=Leaf(leaves, barn)):
            log = site / "server/log"
            async with asyncio.timeout(20):
                while "JetStream using domains" not in log.read_text():  # it is said when the link stands
                    await asyncio.sleep(0.02)
