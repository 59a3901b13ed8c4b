"""The roster: a device is known by its hello, by its messages, or by the server's word."""

from __future__ import annotations

from pratipad_nb.runtime.devices.account import Account
from pratipad_nb.runtime.devices.roster import Roster
from pratipad_nb.runtime.positions.gatekeeper import DeviceCount


def roster() -> Roster:
    accounts = {
        "said": Account("said", connected=True, error="I2C NAK"),
        "left": Account("left", connected=False),
    }
    found = Roster(accounts, {"sent": DeviceCount(received=3)}, lambda device: not device.startswith("other"))
    found.connections = {"said": 1, "foreign": 1, "other1": 1}
    return found


def test_all_devices_of_the_partition_are_known_and_none_of_another() -> None:
    assert roster().known == ["foreign", "left", "said", "sent"]


def test_a_device_is_connected_by_its_hello_or_by_the_servers_word() -> None:
    connected = {name: roster().is_connected(name) for name in ("said", "left", "sent", "foreign")}
    assert connected == {"said": True, "left": False, "sent": False, "foreign": True}
    assert [name for name in connected if roster().says_hello(name)] == ["said"]


def test_a_farewell_outweighs_the_servers_earlier_word_and_not_the_later_one() -> None:
    found = roster()
    found.connections["left"] = 1
    assert found.is_connected("left")
    found.parted("left")
    assert not found.is_connected("left")


def test_a_device_says_its_error_itself() -> None:
    assert [roster().error(name) for name in ("said", "left", "foreign")] == ["I2C NAK", "", ""]
