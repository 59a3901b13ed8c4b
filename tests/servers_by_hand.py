"""A real server whose configuration is written by hand: of accounts of ours, or with one account for all."""

from __future__ import annotations

import asyncio
import contextlib
import json
import signal
import socket
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from pratipad_nb.server.accounts import SYSTEM, rendered_accounts
from pratipad_nb.server.process import find_server
from pratipad_nb.server.register import Change, Register, Rules
from pratipad_nb.settings import Credentials
from pratipad_nb.transport.parties import Party

EDGE = Party("house", "edge").identity


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
        "system_account": SYSTEM,
        "accounts": accounts,
        **more,
    }
    return json.dumps(sections)


def accounts_of(*devices: Party, each_device: bool = False) -> dict[str, Any]:
    """Return the accounts of a flow's edge and `devices`, as the embedded server has them."""
    parties = (Party("house", "edge"), *devices)
    return rendered_accounts(
        Register().changed(Change(parties=parties, rules={"house": Rules(each_device=each_device)}))
    )


def shared_account(*devices: str, may_ask: bool = True) -> dict[str, Any]:
    """Return one account for all parties, as a server of others may have it.

    `may_ask`: whether the edge may ask who is connected.
    """
    publish = ["pratipad.house.>", *(["$SYS.REQ.ACCOUNT.PING.CONNZ"] if may_ask else [])]
    subscribe = ["pratipad.house.>", "_INBOX.house.>"]
    users = [
        {"user": EDGE, "permissions": {"publish": publish, "subscribe": subscribe}},
        *({"user": user} for user in devices),
    ]
    return {"ALL": {"users": users}, SYSTEM: {}}


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
        self._port = -1
        self._process: asyncio.subprocess.Process | None = None

    def _write(self) -> Path:
        file = self.folder / "server.conf"
        text = config(self.folder, self.credentials, self.accounts, self._port, self.mqtt, self.more)
        file.write_text(text)
        return file

    async def start(self) -> None:
        self._port = int(self.url.rpartition(":")[2] or -1)
        file = self._write()
        for old in self.folder.glob("*.ports"):
            old.unlink()
        with (self.folder / "log").open("ab") as log:
            self._process = await asyncio.create_subprocess_exec(
                find_server(), "-c", file, stdout=log, stderr=log
            )
        async with asyncio.timeout(10):
            while not (ports := self._reported()):
                assert self._process.returncode is None, (self.folder / "log").read_text()
                await asyncio.sleep(0.005)
        self.url = f"tls://127.0.0.1:{ports['nats'][0].rpartition(':')[2]}"

    def _reported(self) -> dict[str, list[str]]:
        """Return the server's report of its ports; empty until the report is there as a whole."""
        for file in self.folder.glob("*.ports"):
            with contextlib.suppress(json.JSONDecodeError):
                return dict(json.loads(file.read_text()))
        return {}

    async def reload(self, accounts: dict[str, Any]) -> None:
        """Let the server have `accounts`. What a new account imports works after the second reload alone."""
        assert self._process is not None
        self.accounts = accounts
        self._write()
        log = self.folder / "log"
        for _ in range(2):
            before = log.read_text().count("Reloaded server configuration")
            self._process.send_signal(signal.SIGHUP)
            async with asyncio.timeout(10):
                while log.read_text().count("Reloaded server configuration") == before:
                    await asyncio.sleep(0.005)

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
