"""Real readings of the computer that runs the tests; the thermal sensor alone, which few have, is made."""

from __future__ import annotations

import sys
from time import monotonic
from types import SimpleNamespace

import psutil
import pytest

from pratipad_nb.errors import DeviceError
from pratipad_nb.hardware.host import SHORTEST, HostSensor


def chip(*temperatures, label=""):
    return [SimpleNamespace(label=label, current=t, high=None, critical=None) for t in temperatures]


@pytest.fixture
def thermal(monkeypatch):
    """Give this computer thermal sensors."""
    chips = {}
    monkeypatch.setattr(psutil, "sensors_temperatures", lambda: chips, raising=False)
    return chips


def test_readings_are_of_this_computer():
    reading = HostSensor()()
    assert 0 <= reading["cpu_percent"] <= 100
    assert 0 < reading["memory_percent"] < 100
    assert 0 < reading["memory_available_bytes"] < psutil.virtual_memory().total
    assert reading["load_1m"] >= 0
    assert 0 < reading["disk_percent"] <= 100
    assert all(type(value) in (int, float, str) for value in reading.values())


def test_the_first_reading_is_measured_and_not_a_made_up_zero():
    sensor = HostSensor(fields=["cpu_percent"])
    until = monotonic() + SHORTEST + 0.05
    while monotonic() < until:
        pass
    assert sensor()["cpu_percent"] > 0


def test_the_first_reading_is_taken_over_long_enough_to_mean_something():
    before = monotonic()
    HostSensor()()
    assert monotonic() - before >= SHORTEST


def test_a_hasty_reading_keeps_the_last_share_and_does_not_wait(monkeypatch):
    clock = SimpleNamespace(now=100.0)
    monkeypatch.setattr("pratipad_nb.hardware.host.monotonic", lambda: clock.now)
    sensor = HostSensor()
    clock.now += SHORTEST
    first = sensor()
    clock.now += 0.9 * SHORTEST
    monkeypatch.setattr("pratipad_nb.hardware.host.sleep", pytest.fail)
    assert sensor()["cpu_percent"] == first["cpu_percent"]


def test_rates_are_what_went_by_between_two_readings(monkeypatch):
    clock = SimpleNamespace(now=100.0)
    counts = [SimpleNamespace(bytes_sent=1000, bytes_recv=50)]
    monkeypatch.setattr("pratipad_nb.hardware.host.monotonic", lambda: clock.now)
    monkeypatch.setattr(psutil, "net_io_counters", lambda: counts[0])
    sensor = HostSensor()
    clock.now, counts[0] = 102.0, SimpleNamespace(bytes_sent=5000, bytes_recv=40)
    reading = sensor()
    assert reading["net_sent_bytes_per_s"] == 2000
    assert reading["net_received_bytes_per_s"] == 0
    assert (reading["net_sent_bytes"], reading["net_received_bytes"]) == (5000, 40)


def test_without_an_interface_there_are_no_network_values(monkeypatch):
    monkeypatch.setattr(psutil, "net_io_counters", lambda: None)
    assert not [key for key in HostSensor()() if key.startswith("net")]


def test_without_a_thermal_sensor_there_is_no_temperature(thermal):
    sensor = HostSensor()
    assert not [key for key in sensor() if key.startswith("temperature")]
    with pytest.raises(DeviceError, match=r"gives no 'temperature_f'.*It gives cpu_percent"):
        HostSensor(fields=["temperature_f"])


def test_the_processors_own_temperature_is_read_in_both_units(thermal):
    thermal["nvme"] = chip(38.0)
    thermal["coretemp"] = chip(50.0, 49.0, label="Package id 0")
    sensor = HostSensor()
    thermal["coretemp"] = chip(55.0, 49.0, label="Package id 0")
    reading = sensor()
    assert (reading["temperature_c"], reading["temperature_f"]) == (55.0, 131.0)
    assert reading["temperature_source"] == "coretemp Package id 0"


def test_probes_that_are_not_connected_are_passed_over(thermal):
    thermal["acpitz"] = chip(-273.2, 0.0, 127.5, None)
    thermal["other"] = chip(41.0)
    assert HostSensor()()["temperature_c"] == 41.0


def test_a_thermal_sensor_that_goes_leaves_no_old_value(thermal):
    thermal["coretemp"] = chip(50.0)
    sensor = HostSensor()
    thermal.clear()
    assert "temperature_c" not in sensor()


def test_where_psutil_knows_no_thermal_sensors_the_rest_is_read(monkeypatch):
    monkeypatch.delattr(psutil, "sensors_temperatures", raising=False)
    assert "temperature_c" not in HostSensor().available


def test_fields_choose_and_a_wrong_one_is_named_with_those_there_are():
    assert list(HostSensor(fields=["load_1m", "memory_percent"])()) == ["load_1m", "memory_percent"]
    assert list(HostSensor(fields="load_1m")()) == ["load_1m"]
    with pytest.raises(DeviceError, match=r"'humidity'.*no such field.*load_1m"):
        HostSensor(fields=["humidity"])


def test_without_psutil_the_way_to_install_it_is_told(monkeypatch):
    monkeypatch.setitem(sys.modules, "psutil", None)
    with pytest.raises(DeviceError, match=r"pip install pratipad-nb\[device\]"):
        HostSensor()
