"""The SCD4x's driver: checksums, modes and faults, against the simulated chip and Sensirion's own library."""

from __future__ import annotations

import itertools
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sensirion_driver_adapters.i2c_adapter.i2c_channel import I2cChannel
from sensirion_i2c_driver import CrcCalculator, I2cConnection
from sensirion_i2c_driver.errors import I2cChecksumError
from sensirion_i2c_driver.transceiver_v1 import I2cTransceiverV1
from sensirion_i2c_scd4x import Scd4xDevice
from sensirion_i2c_scd4x.result_types import SignalRelativeHumidity, SignalTemperature

from pratipad_nb.errors import DeviceError, SettingsError
from pratipad_nb.hardware.climate import Climate, SimulatedRoom
from pratipad_nb.hardware.clock import ManualClock
from pratipad_nb.hardware.scd4x import SCD4X, ChecksumError, crc8, pack_words, unpack_words
from pratipad_nb.hardware.simulated_bus import SimulatedBus
from pratipad_nb.hardware.simulated_room_bus import room_bus
from pratipad_nb.hardware.simulated_scd4x import SimulatedSCD4X, measurement_words

reference_crc = CrcCalculator(8, 0x31, 0xFF, 0x00)
# 1 ppm, and one step of the 16-bit words for temperature and humidity, rounded to hundredths.
RESOLUTION = {"co2_ppm": 0, "temperature_c": 0.01, "humidity_percent": 0.01}


class Rig:
    """A chip on a bus, with a climate and a clock that the test moves."""

    def __init__(self, variant: str = "SCD41", **options: object) -> None:
        self.clock = ManualClock()
        self.climate = Climate(22.0, 51.0, 1013.0, 777.0)
        self.bus = SimulatedBus(clock=self.clock)
        chip = SimulatedSCD4X(lambda: self.climate, variant=variant, clock=self.clock)  # type: ignore[arg-type]
        self.chip = self.bus.attach(0x62, chip)
        self.sensor = SCD4X(self.bus, **options)  # type: ignore[arg-type]


class SimulatedTransceiver(I2cTransceiverV1):
    """Lets Sensirion's library talk to our bus; its waits move the simulated clock."""

    def __init__(self, bus: SimulatedBus, clock: ManualClock) -> None:
        self.bus, self.clock = bus, clock

    def transceive(
        self,
        slave_address: int,
        tx_data: bytes | None,
        rx_length: int | None,
        read_delay: float,
        timeout: float,
    ) -> tuple[int, Exception | None, bytes]:
        received = b""
        try:
            if tx_data is not None:
                self.bus._write(slave_address, tx_data)
            self.clock.sleep(read_delay)
            if rx_length:
                received = self.bus._read(slave_address, rx_length)
        except OSError as error:
            return self.STATUS_NACK, error, b""
        return self.STATUS_OK, None, received


def test_the_data_sheets_checksum_example_is_reproduced() -> None:
    assert crc8(b"\xbe\xef") == 0x92
    # Those of its command examples.
    assert pack_words(0x01E0) == b"\x01\xe0\xb4"
    assert pack_words(0x0001) == b"\x00\x01\xb0"
    assert pack_words(0x7FCE) == b"\x7f\xce\x7b"


@given(st.binary(max_size=40))
def test_the_checksum_agrees_with_sensirions_own(data: bytes) -> None:
    assert crc8(data) == reference_crc(data)


@given(st.lists(st.integers(0, 0xFFFF), max_size=6))
def test_words_survive_their_packing(words: list[int]) -> None:
    assert unpack_words(pack_words(*words)) == words


@given(
    words=st.lists(st.integers(0, 0xFFFF), min_size=1, max_size=3),
    flips=st.integers(1, 3),
    rng=st.randoms(use_true_random=False),
)
def test_up_to_three_flipped_bits_in_a_word_are_always_found(
    words: list[int], flips: int, rng: random.Random
) -> None:
    data = int.from_bytes(pack_words(*words), "big")
    word = rng.randrange(len(words))
    for bit in rng.sample(range(24), flips):
        data ^= 1 << (24 * word + bit)
    with pytest.raises(ChecksumError, match=f"word {len(words) - 1 - word} is .. .. with checksum 0x"):
        unpack_words(data.to_bytes(3 * len(words), "big"))


def test_every_one_two_or_three_flipped_bits_and_every_burst_up_to_eight_are_found() -> None:
    # The checksum is linear, so that what holds for one word holds for all.
    good = int.from_bytes(pack_words(0xBEEF), "big")
    flipped = [
        sum(1 << bit for bit in bits) for n in (1, 2, 3) for bits in itertools.combinations(range(24), n)
    ]
    flipped += [burst << shift for burst in range(1, 256) for shift in range(24 - burst.bit_length() + 1)]
    for mask in flipped:
        with pytest.raises(ChecksumError):
            unpack_words((good ^ mask).to_bytes(3, "big"))


def test_the_driver_agrees_with_sensirions_library_over_ten_thousand_random_contents() -> None:
    rng = random.Random(41)
    rig = Rig()
    for _ in range(10_000):
        co2, temperature, humidity = (rng.randrange(1 << 16) for _ in range(3))
        theirs = (co2, SignalTemperature(temperature).value, SignalRelativeHumidity(humidity).value)
        rig.climate = Climate(co2_ppm=co2, temperature_c=theirs[1], humidity_percent=theirs[2])
        assert measurement_words(rig.climate) == (co2, temperature, humidity)
        rig.clock.advance(5)
        for (name, value), other in zip(rig.sensor().items(), theirs, strict=True):
            assert abs(value - other) <= RESOLUTION[name], (name, value, other)


def test_both_accept_and_refuse_the_same_bytes() -> None:
    rng = random.Random(42)
    for _ in range(2_000):
        data = bytearray(pack_words(*(rng.randrange(1 << 16) for _ in range(3))))
        if rng.random() < 0.5:
            data[rng.randrange(9)] ^= rng.randrange(256)
        try:
            theirs = I2cChannel.strip_and_check_crc(data, reference_crc)
        except I2cChecksumError:
            with pytest.raises(ChecksumError):
                unpack_words(bytes(data))
        else:
            assert b"".join(w.to_bytes(2, "big") for w in unpack_words(bytes(data))) == theirs


def test_sensirions_library_reads_the_simulated_chip() -> None:
    rig = Rig()
    rig.clock.advance(1)
    channel = I2cChannel(I2cConnection(SimulatedTransceiver(rig.bus, rig.clock)), 0x62, reference_crc)
    device = Scd4xDevice(channel)
    assert device.get_serial_number() == rig.sensor.serial_number()
    device.start_periodic_measurement()
    rig.clock.advance(1)
    assert not device.get_data_ready_status()
    rig.clock.advance(5)
    assert device.get_data_ready_status()
    co2, temperature, humidity = device.read_measurement()
    assert co2.value == 777
    assert temperature.value == pytest.approx(22.0, abs=0.01)
    assert humidity.value == pytest.approx(51.0, abs=0.01)
    device.set_ambient_pressure(98_700)
    assert rig.chip.ambient_pressure_hpa == 987


@pytest.mark.parametrize(("mode", "interval"), [("periodic", 5), ("low_power", 30), ("single_shot", 5)])
def test_a_reading_arrives_at_the_pace_of_its_mode(mode: str, interval: float) -> None:
    rig = Rig(mode=mode)
    assert rig.sensor() == {"co2_ppm": 777, "temperature_c": 22.0, "humidity_percent": 51.0}
    before = rig.clock.monotonic()
    rig.climate = Climate(23.0, 40.0, 1013.0, 1234.0)
    assert rig.sensor()["co2_ppm"] == 1234
    assert rig.clock.monotonic() - before == pytest.approx(interval, abs=0.3)


def test_the_same_measurement_is_not_returned_twice() -> None:
    rig = Rig()
    rig.sensor()
    before = rig.clock.monotonic()
    rig.sensor()
    assert rig.clock.monotonic() - before > 4


def test_a_chip_that_is_still_measuring_from_before_is_taken_over() -> None:
    rig = Rig(mode="low_power")
    rig.sensor()
    again = SCD4X(rig.bus)
    assert again()["co2_ppm"] == 777


def test_a_sleeping_chip_is_woken() -> None:
    rig = Rig()
    rig.clock.advance(1)
    rig.bus.write_i2c_block_data(0x62, 0x36, [0xE0])
    rig.clock.advance(1)
    assert rig.sensor()["co2_ppm"] == 777


def test_an_scd40_is_said_to_have_no_single_shot() -> None:
    with pytest.raises(DeviceError, match=r"an SCD40, which has no single shot. Use mode=\"low_power\""):
        Rig("SCD40", mode="single_shot").sensor()


@pytest.mark.parametrize("bit", [0, 23, 24, 40, 71])
def test_a_flipped_bit_is_an_error_and_the_next_measurement_arrives(bit: int) -> None:
    rig = Rig()
    rig.sensor()
    rig.clock.advance(6)
    original = rig.chip.read

    def flip_in_the_measurement(count: int) -> bytes:
        if count == 9:
            rig.bus.inject(0x62, "flip", bit=bit)
            rig.chip.read = original  # type: ignore[method-assign]
        return original(count)

    rig.chip.read = flip_in_the_measurement  # type: ignore[method-assign]
    with pytest.raises(ChecksumError) as caught:
        rig.sensor()
    assert "SCD4x on bus simulated, address 0x62, command 0xEC05 (read_measurement): word" in str(
        caught.value
    )
    assert "Read again" in str(caught.value)
    before = rig.clock.monotonic()
    assert rig.sensor()["co2_ppm"] == 777
    assert rig.clock.monotonic() - before < 5.5


@pytest.mark.parametrize(("fault", "said"), [("nak", "nobody acknowledged"), ("timeout", "timed out")])
def test_after_a_failed_transfer_the_next_call_works(fault: str, said: str) -> None:
    rig = Rig()
    rig.sensor()
    rig.bus.inject(0x62, fault)  # type: ignore[arg-type]
    with pytest.raises(DeviceError, match=said):
        rig.sensor()
    assert rig.sensor()["co2_ppm"] == 777


def test_a_chip_that_vanishes_and_comes_back_is_started_again() -> None:
    rig = Rig()
    rig.sensor()
    rig.bus.unplug(0x62)
    for _ in range(3):
        with pytest.raises(DeviceError, match=r"address 0x62, command 0x.*nobody acknowledged"):
            rig.sensor()
    rig.bus.plug(0x62)
    assert rig.sensor()["co2_ppm"] == 777


def test_a_chip_that_lost_its_power_unseen_is_found_out_and_started_again() -> None:
    rig = Rig()
    rig.sensor()
    rig.chip.power_up()
    rig.clock.advance(1)
    with pytest.raises(DeviceError, match=r"command 0xE4B8 .* no measurement was ready within 7 s"):
        rig.sensor()
    assert rig.sensor()["co2_ppm"] == 777


def test_a_chip_that_never_has_anything_ready_is_given_up_in_bounded_time() -> None:
    rig = Rig()
    rig.chip.stuck = True
    with pytest.raises(DeviceError, match="no measurement was ready within 7 s"):
        rig.sensor()
    assert rig.clock.monotonic() < 9


def test_stop_leaves_the_chip_idle_and_a_call_starts_it_again() -> None:
    rig = Rig()
    rig.sensor()
    rig.sensor.stop()
    assert rig.sensor.serial_number() == 0xF896_9F07_3BBE
    assert rig.sensor()["co2_ppm"] == 777


def test_the_air_pressure_is_told_to_the_chip_while_it_measures() -> None:
    rig = Rig()
    rig.sensor()
    rig.sensor.set_ambient_pressure(954.4)
    assert rig.chip.ambient_pressure_hpa == 954
    with pytest.raises(SettingsError, match="from 700 to 1200"):
        rig.sensor.set_ambient_pressure(95_440)


def test_a_chip_that_is_set_up_anew_is_told_the_air_pressure_again() -> None:
    rig = Rig()
    rig.sensor.set_ambient_pressure(954)
    rig.bus.unplug(0x62)
    with pytest.raises(DeviceError):
        rig.sensor()
    rig.bus.plug(0x62)
    assert rig.chip.ambient_pressure_hpa == 1013
    rig.sensor()
    assert rig.chip.ambient_pressure_hpa == 954


@pytest.mark.parametrize("pressure", ["high", None, True, float("nan")])
def test_an_air_pressure_that_is_none_is_refused(pressure: object) -> None:
    with pytest.raises(SettingsError, match="it must be a number of hPa"):
        Rig().sensor.set_ambient_pressure(pressure)  # type: ignore[arg-type]


def test_a_measuring_chip_is_asked_for_its_serial_number_in_vain_and_the_error_says_how() -> None:
    rig = Rig()
    rig.sensor()
    with pytest.raises(DeviceError, match=r"it is measuring.*Call `stop\(\)` first"):
        rig.sensor.serial_number()
    assert rig.sensor()["co2_ppm"] == 777


def test_a_wrong_mode_is_refused_with_those_there_are() -> None:
    with pytest.raises(SettingsError, match="it can be 'periodic', 'low_power', 'single_shot'"):
        SCD4X(SimulatedBus(), mode="fast")  # type: ignore[arg-type]


def test_both_sensors_of_a_room_see_the_window_open() -> None:
    from pratipad_nb.hardware.bme280 import BME280

    clock = ManualClock()
    room = SimulatedRoom(clock=clock, people=3)
    bus = room_bus(room)
    co2, air = SCD4X(bus), BME280(bus)
    clock.advance(1800)
    stuffy = co2()["co2_ppm"]
    warm = air()["temperature_c"]
    room.window_open = True
    clock.advance(1800)
    assert co2()["co2_ppm"] < stuffy / 1.5
    assert air()["temperature_c"] < warm - 1
