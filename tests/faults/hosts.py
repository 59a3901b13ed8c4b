"""The machines of a hunt: one, or a machine for each party elsewhere, with links and disks that can fail.

The machines are namespaces: the hunt begins anew in a mount, network and process namespace of its own, so
that whatever happens to it, nothing of it stays. A link is a pair of virtual interfaces on a bridge at the
server. A disk is a small file system in memory: full when its size is set to what is used.
"""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
from pathlib import Path

__all__ = ["Hosts", "Namespaces", "enter_namespaces"]

#: Set in the hunt that was begun anew.
_INSIDE = "HUNT_INSIDE"
#: How often a disk is made as small as what is on it, while its party writes on.
_TRIES = 50
#: Sizes of the disks.
_DISKS = {"server": "4g", "above": "64m"}
_SERVER = "10.77.0.1"
_PORT = 4222
#: A queue that no packet fits into.
_NOTHING = ("root", "tbf", "rate", "8bit", "burst", "1b", "limit", "1b")


def enter_namespaces() -> str:
    """Begin this program anew in namespaces of its own; return why that can't be, empty once inside."""
    if os.environ.get(_INSIDE):
        return ""
    if missing := [tool for tool in ("unshare", "nsenter", "ip", "tc", "mount") if not shutil.which(tool)]:
        return f"{', '.join(missing)} missing (Debian: util-linux, iproute2, mount)"
    command = ["unshare", "--mount", "--net", "--pid", "--fork", "--kill-child", "--mount-proc"]
    if os.geteuid():
        command += ["--user", "--map-root-user"]
    tried = subprocess.run([*command, "true"], capture_output=True, text=True, check=False)
    if tried.returncode:
        return tried.stderr.strip()
    os.environ[_INSIDE] = "1"
    os.execvp(command[0], [*command, sys.executable, *sys.argv])
    raise AssertionError("exec returned")


class Hosts:
    """One machine for all: no link and no disk can fail."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        with socket.create_server(("127.0.0.1", 0)) as found:
            port = found.getsockname()[1]
        self.listening: tuple[str, ...] = ("--listen", f"127.0.0.1:{port}")
        self.url = f"tls://127.0.0.1:{port}"

    def at(self, name: str) -> tuple[str, ...]:
        """Return what stands before a command that is to run at the machine of a party."""
        return ()

    def fill(self, name: str) -> None:
        """Leave no room on the disk of a party."""
        raise NotImplementedError(name)

    def empty(self, name: str) -> None:
        """Give the disk of a party its room back."""
        raise NotImplementedError(name)

    def cut(self, name: str, direction: float | None) -> None:
        """Cut the link of a party; or lose the packets to the party (0) or from it (1)."""
        raise NotImplementedError(name, direction)

    def mend(self, name: str) -> None:
        """Let the link of a party be whole again."""
        raise NotImplementedError(name)

    def close(self) -> None:
        """Give everything back."""


class Namespaces(Hosts):
    """A machine for each party elsewhere; for a hunt that is in namespaces of its own."""

    def __init__(self, folder: Path, elsewhere: tuple[str, ...]) -> None:
        super().__init__(folder)
        self.listening = ("--listen", f"0.0.0.0:{_PORT}", "--host", _SERVER)
        self.url = f"tls://{_SERVER}:{_PORT}"
        self._disks = {"server": folder / ".pratipad/server/store", "above": folder / "outbox"}
        for name, path in self._disks.items():
            path.mkdir(parents=True, mode=0o700)
            for each in (folder / ".pratipad", folder / ".pratipad/server"):
                each.chmod(0o700)
            run("mount", "-t", "tmpfs", "-o", f"size={_DISKS[name]},mode=0700", "tmpfs", str(path))
        self._holders: dict[str, subprocess.Popen[bytes]] = {}
        run("ip", "link", "set", "lo", "up")
        run("ip", "link", "add", "name", "hub", "type", "bridge")
        run("ip", "address", "add", f"{_SERVER}/24", "dev", "hub")
        run("ip", "link", "set", "hub", "up")
        for number, name in enumerate(elsewhere, 2):
            self._lay(name, number)

    def _lay(self, name: str, number: int) -> None:
        """Make the machine of a party, and a link from it to the server's."""
        holder = self._holders[name] = subprocess.Popen(
            ["unshare", "--net", "sh", "-c", "echo; exec sleep infinity"], stdout=subprocess.PIPE
        )
        assert holder.stdout is not None
        holder.stdout.readline()
        run("ip", "link", "add", "name", f"to-{name}", "type", "veth", "peer", "name", "uplink", "netns",
            str(holder.pid))  # fmt: skip
        run("ip", "link", "set", f"to-{name}", "master", "hub", "up")
        run(*self.at(name), "ip", "link", "set", "lo", "up")
        run(*self.at(name), "ip", "address", "add", f"10.77.0.{number}/24", "dev", "uplink")
        run(*self.at(name), "ip", "link", "set", "uplink", "up")

    def at(self, name: str) -> tuple[str, ...]:
        holder = self._holders.get(name)
        return () if holder is None else ("nsenter", "--target", str(holder.pid), "--net", "--")

    def fill(self, name: str) -> None:
        path = self._disks[name]
        for last in range(_TRIES):
            used = os.statvfs(path)
            kilobytes = (used.f_blocks - used.f_bfree) * used.f_frsize // 1024
            try:
                run("mount", "-o", f"remount,size={max(4, kilobytes)}k", str(path))
            except RuntimeError:  # the party has written more in between
                if last == _TRIES - 1:
                    raise
            else:
                return

    def empty(self, name: str) -> None:
        run("mount", "-o", f"remount,size={_DISKS[name]}", str(self._disks[name]))

    def cut(self, name: str, direction: float | None) -> None:
        if direction is None:
            run("ip", "link", "set", f"to-{name}", "down")
        elif direction:
            run(*self.at(name), "tc", "qdisc", "replace", "dev", "uplink", *_NOTHING)
        else:
            run("tc", "qdisc", "replace", "dev", f"to-{name}", *_NOTHING)

    def mend(self, name: str) -> None:
        run("ip", "link", "set", f"to-{name}", "up")
        for at, device in (((), f"to-{name}"), (self.at(name), "uplink")):
            subprocess.run([*at, "tc", "qdisc", "del", "dev", device, "root"], capture_output=True)

    def close(self) -> None:
        for holder in self._holders.values():
            holder.kill()
            holder.wait()
            if holder.stdout is not None:
                holder.stdout.close()
        for path in self._disks.values():
            run("umount", "--lazy", str(path))


def run(*command: str) -> None:
    """Run a command that has to succeed."""
    ran = subprocess.run(command, capture_output=True, text=True)
    if ran.returncode:
        raise RuntimeError(f"{' '.join(command)} ended with {ran.returncode}: {ran.stderr.strip()}")
