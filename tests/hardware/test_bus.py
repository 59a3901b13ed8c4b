"""A driver's end of the bus: the protocol, and what its failures say."""

from __future__ import annotations

import errno
import subprocess
import sys
import threading

import pytest
import smbus2

from pratipad_nb.errors import DeviceError, SettingsError
from pratipad_nb.hardware.bus import EREMOTEIO, READ_FLAG, I2CBus, I2CPort, _Message, bus_name, open_bus
from pratipad_nb.hardware.simulated_bus import RegisterChip, SimulatedBus


class BrokenBus:
    name = "/dev/i2c-7"

    def __init__(self, number: int) -> None:
        self.number = number

    def i2c_rdwr(self, *i2c_msgs: object) -> None:
        raise OSError(self.number, "broken")


def test_smbus2_fulfils_the_protocol_as_it_is() -> None:
    bus: I2CBus = smbus2.SMBus()
    assert isinstance(bus, I2CBus)
    assert isinstance(SimulatedBus(), I2CBus)


def test_a_bus_that_is_not_there_is_named_with_those_that_are() -> None:
    with pytest.raises(DeviceError, match=r"no I²C bus /dev/i2c-93 \(there are: .*\). Switch I²C on"):
        open_bus(93)


def test_a_closed_bus_is_said_to_be_closed() -> None:
    with pytest.raises(DeviceError, match="the bus is closed"):
        I2CPort(smbus2.SMBus(), 0x76, "sensor").read(0xD0, 1)


@pytest.mark.parametrize("address", [0, 7, 0x78, 1.0, True, "0x76"])
def test_an_impossible_address_is_refused_with_the_range(address: object) -> None:
    with pytest.raises(SettingsError, match="a number from 0x08 to 0x77"):
        I2CPort(SimulatedBus(), address, "sensor")  # type: ignore[arg-type]


def test_what_is_no_bus_is_refused_with_what_would_be() -> None:
    with pytest.raises(SettingsError, match=r"1 is no I²C bus; give it `open_bus\(1\)`"):
        I2CPort(1, 0x76, "sensor")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("number", "happened", "next_step"),
    [
        (EREMOTEIO, "nobody acknowledged", "i2cdetect -y 7"),
        (errno.ENXIO, "nobody acknowledged", "i2cdetect -y 7"),
        (errno.EIO, "nobody acknowledged", "i2cdetect -y 7"),
        (errno.ETIMEDOUT, "timed out", "Power-cycle"),
        (errno.EAGAIN, "the transfer failed", "dmesg"),
    ],
)
def test_each_failure_names_bus_address_register_and_next_step(
    number: int, happened: str, next_step: str
) -> None:
    port = I2CPort(BrokenBus(number), 0x76, "BME280")
    with pytest.raises(DeviceError) as caught:
        port.read(0xD0, 1, "chip id")
    assert str(caught.value).startswith("BME280 on bus /dev/i2c-7, address 0x76, register 0xD0 (chip id): ")
    assert happened in str(caught.value)
    assert next_step in str(caught.value)
    assert isinstance(caught.value.__cause__, OSError)


def test_a_read_is_one_transaction_so_that_threads_can_share_a_bus() -> None:
    bus = SimulatedBus()
    for address in (0x10, 0x11):
        bus.attach(address, RegisterChip(dict.fromkeys(range(256), address)))
    wrong: list[bytes] = []

    def read(address: int) -> None:
        port = I2CPort(bus, address, "chip")
        wrong.extend(data for _ in range(300) if (data := port.read(0, 2)) != bytes([address] * 2))

    threads = [threading.Thread(target=read, args=(address,)) for address in (0x10, 0x11)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_the_message_used_without_smbus2_looks_the_same_to_a_bus() -> None:
    bus = SimulatedBus()
    bus.attach(0x20, RegisterChip({5: b"\x01\x02"}))
    for kind in (_Message, smbus2.i2c_msg):
        answer = kind.read(0x20, 2)
        bus.i2c_rdwr(kind.write(0x20, [5]), answer)
        assert bytes(answer) == b"\x01\x02"
        assert answer.flags == READ_FLAG


def test_drivers_are_imported_without_smbus2_and_gpiozero() -> None:
    drivers = "bme280, led, registers, scd4x, simulated_room_bus"
    code = (
        f"import sys; from pratipad_nb.hardware import {drivers}; "
        "print([m for m in ('smbus2', 'gpiozero') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_a_bus_is_named_by_its_name_or_its_type() -> None:
    assert bus_name(SimulatedBus("kitchen")) == "kitchen"
    assert bus_name(smbus2.SMBus()) == "SMBus"


@pytest.mark.parametrize("bus", [3.5, None, True, -1, ""])
def test_a_bus_that_is_neither_a_number_nor_a_path_is_refused(bus: object) -> None:
    with pytest.raises(SettingsError, match="a bus's number, such as 1, or its path"):
        open_bus(bus)  # type: ignore[arg-type]
