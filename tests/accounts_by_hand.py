"""A real server with accounts, written by hand: the system's, a flow's, its devices', its MQTT devices'."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
from collections.abc import AsyncIterator, Iterable
from pathlib import Path
from typing import Any

from pratipad_nb.server.process import find_server
from pratipad_nb.settings import Credentials

EDGE = "urn:pratipad:house:edge"


def identity(device: str) -> str:
    return f"urn:pratipad:house:device:{device}"


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port: int = found.getsockname()[1]
        return port


def config(
    folder: Path, server: Credentials, accounts: dict[str, Any], port: int, mqtt: int, more: Any
) -> str:
    tls = {
        "cert_file": str(server.certificate),
        "key_file": str(server.key),
        "ca_file": str(server.authority),
        "verify_and_map": True,
        "timeout": 5,
    }
    sections = {
        "server_name": folder.name,
        "listen": f"127.0.0.1:{port}",
        "ports_file_dir": str(folder),
        "tls": {**tls, "handshake_first": True},
        "jetstream": {"store_dir": str(folder / "store")},
        "mqtt": {"listen": f"127.0.0.1:{mqtt}", "tls": tls},
        "system_account": "SYS",
        "accounts": accounts,
        **more,
    }
    return json.dumps(sections)


def accounts_of(kinds: dict[str, Iterable[str]], *, edge: tuple[str, ...] = ("pratipad.house.>",)) -> Any:
    """Return the accounts: by kind (``devices``, ``mqtt``, or a device's name), its users.

    `edge`: what the edge may publish, beside the question for its account.
    """
    down = [{"stream": {"account": "F_house", "subject": "pratipad.house.plain.*"}}]
    up = [{"service": {"account": "F_house", "subject": "pratipad.house.hello.*"}}]
    exports: list[dict[str, Any]] = []
    imports: list[dict[str, Any]] = []
    accounts: dict[str, Any] = {
        "SYS": {"users": [{"user": "owner"}], "exports": exports},
        "F_house": {
            "users": [
                {
                    "user": EDGE,
                    "permissions": {
                        "publish": [*edge, "$SYS.REQ.USER.INFO"],
                        "subscribe": ["pratipad.house.>", "_INBOX.house.edge.>"],
                    },
                }
            ],
            "exports": [{"stream": "pratipad.house.plain.*"}, {"service": "pratipad.house.hello.*"}],
            "imports": imports,
        },
    }
    for kind, users in kinds.items():
        name = {"devices": "D_house", "mqtt": "M_house"}.get(kind, f"D_house:{kind}")
        accounts[name] = {
            "users": [{"user": user} for user in users],
            "imports": [*down, *up],
            "mappings": {"pratipad.house.plain.*": "_void.plain.$1"},
        }
        if kind == "mqtt":
            accounts[name]["jetstream"] = {"max_mem": 0, "max_file": 1 << 26}
        asked = f"$SYS.REQ.ACCOUNT.{name}.CONNZ"
        exports.append({"service": asked, "response_type": "stream"})
        imports.append(
            {"service": {"account": "SYS", "subject": asked}, "to": f"pratipad.house.presence.{kind}"}
        )
        for event in ("CONNECT", "DISCONNECT"):
            told = f"$SYS.ACCOUNT.{name}.{event}"
            exports.append({"stream": told})
            imports.append(
                {
                    "stream": {"account": "SYS", "subject": told},
                    "to": f"pratipad.house.{event.lower()}ed.{kind}",
                }
            )
    return accounts


class Server:
    """The process, with its addresses; `restart` kills it and starts it at the same address.

    `more` are further sections of the configuration.
    """

    def __init__(
        self, folder: Path, credentials: Credentials, accounts: dict[str, Any], more: dict[str, Any]
    ) -> None:
        self.folder = folder
        self.credentials = credentials
        self.accounts = accounts
        self.more = more
        self.url = ""
        self.mqtt = free_port()  # the server's report of its ports leaves MQTT's out
        self._process: asyncio.subprocess.Process | None = None

    async def start(self) -> None:
        port = int(self.url.rpartition(":")[2] or -1)
        file = self.folder / "server.conf"
        file.write_text(config(self.folder, self.credentials, self.accounts, port, self.mqtt, self.more))
        for old in self.folder.glob("*.ports"):
            old.unlink()
        with (self.folder / "log").open("ab") as log:
            self._process = await asyncio.create_subprocess_exec(
                find_server(), "-c", file, stdout=log, stderr=log
            )
        async with asyncio.timeout(10):
            while not (found := list(self.folder.glob("*.ports"))):
                assert self._process.returncode is None, (self.folder / "log").read_text()
                await asyncio.sleep(0.005)
        ports = json.loads(found[0].read_text())
        self.url = f"tls://127.0.0.1:{ports['nats'][0].rpartition(':')[2]}"

    async def stop(self) -> None:
        if self._process is not None and self._process.returncode is None:
            self._process.kill()
            await self._process.wait()

    async def restart(self) -> None:
        await self.stop()
        await self.start()


@contextlib.asynccontextmanager
async def running(
    folder: Path, credentials: Credentials, accounts: dict[str, Any], **more: Any
) -> AsyncIterator[Server]:
    folder.mkdir(parents=True, exist_ok=True)
    server = Server(folder, credentials, accounts, more)
    try:
        await server.start()
        yield server
    finally:
        await server.stop()
