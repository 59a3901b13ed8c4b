"""`HostSensor`: readings of this computer, by `psutil`, for users who have no other sensor yet.

Owns the list of quantities and their units. A quantity that the computer doesn't measure is not in the
reading: no value is ever made up. `psutil` is imported when a `HostSensor` is made, since a device with other
sensors doesn't need it.
"""

from __future__ import annotations

from collections.abc import Iterable
from time import monotonic, sleep
from typing import Any, Final

from pratipad_nb.errors import DeviceError

__all__ = ["HostSensor"]

#: Shortest time, in seconds, over which a percentage or a rate is taken. The kernel counts CPU time in steps
#: of 10 ms, and psutil advises against less than 0.1 s.
SHORTEST: Final = 0.1

#: Which of the thermal sensors is the processor's own, best first, by the name of its Linux driver: Intel,
#: AMD, Raspberry Pi and other ARM boards, then ACPI.
_CHIPS: Final = ("coretemp", "k10temp", "zenpower", "cpu_thermal", "cpu-thermal", "soc_thermal", "acpitz")

_ALWAYS: Final = (
    "cpu_percent",
    "load_1m",
    "memory_percent",
    "memory_available_bytes",
    "disk_percent",
)
_NETWORK: Final = (
    "net_sent_bytes",
    "net_received_bytes",
    "net_sent_bytes_per_s",
    "net_received_bytes_per_s",
)
_THERMAL: Final = ("temperature_c", "temperature_f", "temperature_source")


class HostSensor:
    """Reads this computer: a call returns a dictionary of the present values.

    ============================ =====================================================================
    ``cpu_percent``              how much of all cores was in use since the reading before, 0 to 100
    ``load_1m``                  processes that ran or waited, mean over a minute
    ``memory_percent``           how much of the memory is in use, 0 to 100
    ``memory_available_bytes``   memory that programs can still have
    ``disk_percent``             how much of the disk that holds the root folder is in use, 0 to 100
    ``net_sent_bytes``           bytes sent over all network interfaces since the computer started
    ``net_received_bytes``       bytes received over all network interfaces since then
    ``net_sent_bytes_per_s``     the rate of the bytes sent, since the reading before
    ``net_received_bytes_per_s`` the rate of the bytes received, since the reading before
    ``temperature_c``            temperature of the processor, in degrees Celsius
    ``temperature_f``            temperature of the processor, in degrees Fahrenheit
    ``temperature_source``       the driver and sensor that measured the temperature
    ============================ =====================================================================

    Temperatures are in the reading only where the operating system shows a thermal sensor: Linux on real
    hardware mostly does; virtual machines, macOS and Windows mostly don't. Network values are missing where
    there is no interface. `available` lists the keys.

    Percentages of the processor and rates are taken over the time since the reading before. A reading less
    than 0.1 s later repeats their values. The first reading goes back to when the sensor was made, and waits
    until that is 0.1 s ago.

    Parameters
    ----------
    fields
        The keys to read; by default all of `available`.

    Raises
    ------
    DeviceError
        If psutil is not installed, or this computer doesn't have one of `fields`.

    Examples
    --------
    >>> sensor = HostSensor(fields=["memory_percent"])
    >>> 0 < sensor()["memory_percent"] < 100
    True
    """

    def __init__(self, fields: Iterable[str] | None = None) -> None:
        self._psutil = _imported()
        self._temperature = self._find_temperature()
        self.available = self._find_available()
        """The keys that this computer has, in the order of the reading."""
        self._fields = self.available if fields is None else self._checked(fields)
        self._rates: dict[str, float] = {}
        self._taken = monotonic()
        self._cpu = self._cpu_times()
        self._net = self._net_bytes()

    def __call__(self) -> dict[str, Any]:
        """Return a reading: the value of each of `fields`."""
        if not self._rates:
            sleep(max(0.0, self._taken + SHORTEST - monotonic()))
        self._take_rates()
        everything = self._rates | self._levels() | self._temperatures()
        return {field: everything[field] for field in self._fields if field in everything}

    def __repr__(self) -> str:
        return f"HostSensor(fields={list(self._fields)!r})"

    def _levels(self) -> dict[str, Any]:
        memory = self._psutil.virtual_memory()
        levels = {
            "load_1m": self._psutil.getloadavg()[0],
            "memory_percent": memory.percent,
            "memory_available_bytes": memory.available,
            "disk_percent": self._psutil.disk_usage("/").percent,
        }
        if (net := self._net_bytes()) is not None:
            levels["net_sent_bytes"], levels["net_received_bytes"] = net
        return levels

    def _take_rates(self) -> None:
        elapsed = monotonic() - self._taken
        if self._rates and elapsed < SHORTEST:
            return
        cpu, net = self._cpu_times(), self._net_bytes()
        # Differences of our own: callers of psutil.cpu_percent() in a thread have its last values in common.
        idle, total = cpu[0] - self._cpu[0], cpu[1] - self._cpu[1]
        busy = 100.0 * (1.0 - idle / total) if total > 0 else self._rates.get("cpu_percent", 0.0)
        self._rates = {"cpu_percent": round(min(100.0, max(0.0, busy)), 1)}
        if net is not None and self._net is not None:
            # An interface that disappears takes its counts along: no negative rates.
            for name, now, before in zip(_NETWORK[2:], net, self._net, strict=True):
                self._rates[name] = round(max(0, now - before) / elapsed, 1)
        self._taken += elapsed
        self._cpu, self._net = cpu, net

    def _cpu_times(self) -> tuple[float, float]:
        """Return the seconds that the cores were idle, and their total, since the computer started."""
        times = self._psutil.cpu_times()._asdict()
        # Linux counts guests in the user's time already.
        total = sum(seconds for kind, seconds in times.items() if not kind.startswith("guest"))
        return times["idle"] + times.get("iowait", 0.0), total

    def _net_bytes(self) -> tuple[int, int] | None:
        counters = self._psutil.net_io_counters()
        return None if counters is None else (counters.bytes_sent, counters.bytes_recv)

    def _temperatures(self) -> dict[str, Any]:
        if self._temperature is None:
            return {}
        chip, index = self._temperature
        try:
            sensor = self._psutil.sensors_temperatures()[chip][index]
        except (KeyError, IndexError, OSError):  # its driver went: no value rather than an old one
            return {}
        celsius = sensor.current
        if celsius is None:
            return {}
        return {
            "temperature_c": round(celsius, 2),
            "temperature_f": round(celsius * 1.8 + 32, 2),
            "temperature_source": f"{chip} {sensor.label}".strip(),
        }

    def _find_temperature(self) -> tuple[str, int] | None:
        """Return driver and number of the thermal sensor to read: the processor's, else the first."""
        read = getattr(self._psutil, "sensors_temperatures", None)  # missing on macOS and Windows
        if read is None:
            return None
        try:
            chips = read()
        except OSError:
            return None
        for chip in (*_CHIPS, *chips):
            for index, sensor in enumerate(chips.get(chip, ())):
                # Boards without a probe report 0 or less, or the register's end.
                if sensor.current is not None and 0 < sensor.current < 125:
                    return chip, index
        return None

    def _find_available(self) -> tuple[str, ...]:
        network = _NETWORK if self._net_bytes() is not None else ()
        return (*_ALWAYS, *network, *(_THERMAL if self._temperatures() else ()))

    def _checked(self, fields: Iterable[str]) -> tuple[str, ...]:
        wanted = (fields,) if isinstance(fields, str) else tuple(fields)
        for field in wanted:
            if field not in self.available:
                why = (
                    "its operating system shows no such sensor (virtual machines have none)"
                    if field in _THERMAL or field in _NETWORK
                    else "there is no such field"
                )
                raise DeviceError(
                    f"This computer gives no {field!r}: {why}. It gives {', '.join(self.available)}."
                )
        return wanted


def _imported() -> Any:
    try:
        import psutil
    except ImportError as error:
        raise DeviceError(
            "HostSensor reads this computer by psutil, which is not installed. "
            "Install it with: pip install pratipad-nb[device]"
        ) from error
    return psutil
