"""What a device costs a small computer: its distributions, its imports, its time and memory."""

from __future__ import annotations

import asyncio
import json
import statistics
import subprocess
import sys
from collections.abc import AsyncIterator
from importlib.metadata import distribution, packages_distributions
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement
from patience import eventually

from pratipad_nb.pki.store import CertificateStore
from pratipad_nb.server.embedded import EmbeddedServer
from pratipad_nb.settings import Credentials, Endpoint
from pratipad_nb.transport.connecting import connect
from pratipad_nb.transport.parties import Party

FLOW = "house"

#: Ends with what the process cost: seconds of processor time since it began to import, and its memory in MiB.
#: (Not `resource.getrusage`, whose highest memory begins with that of the process that started it.)
COST = """
import json, sys, time
began = time.process_time()
{work}
used = time.process_time() - began
modules = sorted({{name.partition(".")[0] for name in sys.modules}})
import psutil
mebibytes = psutil.Process().memory_info().rss / (1 << 20)
print(json.dumps({{"seconds": used, "mebibytes": mebibytes, "modules": modules}}))
"""

#: Makes every library unimportable that isn't installed with a device, as on a computer of its own.
ALONE = """
import sys
class Missing:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {foreign!r}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)
sys.meta_path.insert(0, Missing())
"""

PUSHING = """
from pathlib import Path
from pratipad_nb import Credentials, Device, Endpoint
where = Endpoint({url!r}, "house", Credentials.in_folder({folder!r}))
device = Device("room1", receive=print).connect(where)
for number in range(1000):
    receipt = device.push({{"n": number}})
receipt.wait(20)
device.close()
"""


def installed_with(extra: str) -> set[str]:
    """Return the distributions that ``pip install pratipad-nb[extra]`` brings here, and their needs."""
    found: set[str] = set()
    todo = [("pratipad-nb", extra)]
    while todo:
        name, wanted = todo.pop()
        for line in distribution(name).requires or []:
            needed = Requirement(line)
            if needed.marker is None or needed.marker.evaluate({"extra": wanted}):
                found.add(needed.name.lower())
                todo += [(needed.name, each) for each in ("", *needed.extras) if needed.name != "pratipad-nb"]
    return found


def foreign_modules() -> set[str]:
    """Return the importable names of all that is installed here and doesn't come with a device."""
    mine = {*installed_with("device"), "pratipad-nb"}
    return {
        name
        for name, homes in packages_distributions().items()
        if name.isidentifier() and not mine & {home.lower() for home in homes}
    }


def cost_of(work: str) -> dict[str, Any]:
    run = subprocess.run(
        [sys.executable, "-c", COST.format(work=work)], capture_output=True, text=True, check=True, timeout=50
    )
    found: dict[str, Any] = json.loads(run.stdout.splitlines()[-1])
    return found


def test_a_device_brings_five_libraries_and_no_more():
    assert installed_with("device") == {"nats-py", "msgspec", "lz4", "smbus2", "psutil"}


def test_importing_a_device_takes_under_300_milliseconds_and_40_mebibytes():
    costs = [cost_of("import pratipad_nb\nfrom pratipad_nb import Device") for _ in range(5)]
    assert statistics.median(cost["seconds"] for cost in costs) < 0.3
    assert statistics.median(cost["mebibytes"] for cost in costs) < 40
    assert not {"IPython", "cryptography", "matplotlib", "numpy", "pydantic", "sqlite3"} & set(
        costs[0]["modules"]
    )


@pytest.fixture
async def house(tmp_path: Path) -> AsyncIterator[tuple[str, Credentials, Any]]:
    """A server over mutual TLS, with the credentials of an edge and of room1."""
    store = CertificateStore.open(tmp_path)
    server = EmbeddedServer(tmp_path / "server", store.server("urn:pratipad:server"))
    await server.start([Party(FLOW, "edge"), Party(FLOW, "device", "room1")])
    mine = store.device(FLOW, "room1", Party(FLOW, "device", "room1").identity)
    yield server.url, mine, store.edge(FLOW, Party(FLOW, "edge").identity)
    await server.stop()


async def test_a_device_alone_on_its_computer_pushes_over_mutual_tls(
    house: tuple[str, Credentials, Credentials], edge: Any
) -> None:
    url, mine, edges = house
    real = type(edge)(await connect(Endpoint(url, FLOW, edges), role="edge", name=""), url, None)
    await real.start()
    alone = ALONE.format(foreign=foreign_modules())
    work = PUSHING.format(url=url, folder=str(mine.certificate.parent))
    cost = await asyncio.to_thread(cost_of, alone + work)
    await eventually(lambda: len(real.payloads) == 1000)
    assert cost["mebibytes"] < 40
    await real.stop()
