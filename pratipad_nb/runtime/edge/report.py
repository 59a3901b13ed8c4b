"""The report: a running edge's counters, put together into one frozen snapshot.

Owns the assembly, and rates by device. The snapshot's attributes are described in `stats`, and each part of a
run counts for itself.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from datetime import UTC, datetime

from pratipad_nb.runtime.edge.parts import Parts
from pratipad_nb.runtime.positions.gatekeeper import DeviceCount
from pratipad_nb.runtime.values.metrics import Rate
from pratipad_nb.runtime.values.stats import DeviceStats, FlowStats, ProcessorStats, ReaderStats
from pratipad_nb.validity import WARNING_DAYS, party_ending

__all__ = ["DeviceRates", "Reporter"]

_RATE_SAMPLES = 3

#: Up to so many devices are counted anew for each snapshot, at some 6 µs each: 3 % of a core at five
#: snapshots a second.
_ALWAYS_FRESH = 1000
#: With more devices, their counts in a snapshot may be as old as this many seconds for each device: so 10,000
#: devices cost 6 % of a core.
_SECONDS_A_DEVICE = 1e-4
#: The ends of devices' certificates are looked at so often, in seconds: the devices are gone through.
_LOOK_SECONDS = 1.0


class DeviceRates:
    """Messages a second from each device, over the last two seconds or so."""

    def __init__(self, counts: Mapping[str, DeviceCount]) -> None:
        self._counts = counts
        self._rates: dict[str, Rate] = {}

    def sample(self) -> None:
        """Note where all counts stand.

        Called once a second, which for 10,000 devices takes half a per cent of a core.
        """
        for name, count in self._counts.items():
            rate = self._rates.get(name)
            if rate is None:
                rate = self._rates[name] = Rate(count.received, samples=_RATE_SAMPLES)
            rate.sample(count.received)

    def of(self, device: str) -> float:
        """Return a device's rate; 0.0 for an unknown device."""
        rate = self._rates.get(device)
        return rate.value if rate is not None else 0.0


class Reporter:
    """Makes snapshots of one run, and keeps the snapshots' rates."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self._rate = Rate()
        self._device_rates = DeviceRates(parts.gate.counts)
        self._newest: dict[str, DeviceStats] = {}
        self._counted = 0.0
        self._ending: tuple[str, ...] = ()
        self._looked = -_LOOK_SECONDS

    def sample(self) -> None:
        """Note where the counts of messages stand; called about five times a second."""
        self._rate.sample(self._parts.writer.delivered)
        self._parts.shape.line.sample()

    def sample_devices(self) -> None:
        """Note where the counts of devices stand; called once a second."""
        self._device_rates.sample()

    def snapshot(self) -> FlowStats:
        """Return the counters as they stand."""
        parts = self._parts
        p50, p99 = parts.writer.latency.percentiles(0.5, 0.99)
        return FlowStats(
            name=parts.settings.name,
            notation=parts.shape.line.dataflow.notation,
            delivery=parts.settings.delivery,
            state=parts.status.state,
            time=time.time(),
            uptime=time.monotonic() - parts.status.started,
            processors=self._processors(),
            devices=self._devices(),
            readers=self._readers(),
            received=parts.gate.received,
            delivered=parts.writer.delivered,
            rate=self._rate.value,
            p50=p50,
            p99=p99,
            in_flight=parts.in_flight.count,
            waiting=parts.gate.waiting,
            dropped=0 if parts.gate.durable else parts.gate.missing,
            repeats=parts.gate.repeats,
            dead=parts.dead_letters.count,
            malformed=parts.gate.malformed,
            dropped_letters=parts.dead_letters.shares.dropped.total(),
            unreadable=parts.unreadable.count,
            backward=parts.backward.stats(),
            blocked_by=parts.blockage.reasons,
            warnings=self._warnings(),
            error=parts.status.error,
        )

    def _warnings(self) -> tuple[str, ...]:
        """Return what the connection warns of, and the certificates of devices that end."""
        now = time.monotonic()
        if now - self._looked > _LOOK_SECONDS:
            self._looked, present = now, datetime.now(UTC)
            soon = present.timestamp() + WARNING_DAYS * 86400
            flow = self._parts.settings.name
            self._ending = tuple(
                party_ending(flow, "device", name, datetime.fromtimestamp(until, UTC), present)
                for name, until in self._parts.roster.ending(soon)
            )
        return tuple(dict.fromkeys((*self._parts.connection.warnings, *self._ending)))

    def _readers(self) -> dict[str, ReaderStats]:
        readers = self._parts.janitor.readers if self._parts.janitor else {}
        return {name: ReaderStats(lag.pending, lag.blocking) for name, lag in readers.items()}

    def _processors(self) -> dict[str, ProcessorStats]:
        line, pipeline = self._parts.shape.line, self._parts.shape.pipeline
        for stage in line.stages:
            for member in stage.members:
                member.meter.waiting = pipeline.waiting(stage.index)
        return {key: meter.snapshot() for key, meter in line.meters.items()}

    def _devices(self) -> dict[str, DeviceStats]:
        now, count = time.monotonic(), len(self._newest)
        if count <= _ALWAYS_FRESH or now - self._counted > count * _SECONDS_A_DEVICE:
            self._counted = now
            self._newest = {name: self._device(name) for name in self._parts.roster.known}
        return self._newest

    def _device(self, name: str) -> DeviceStats:
        count = self._parts.gate.counts.get(name, DeviceCount())
        sent, run = self._parts.backward.counts(name)
        return DeviceStats(
            connected=self._parts.roster.is_connected(name),
            received=count.received,
            rate=self._device_rates.of(name),
            gaps=count.gaps,
            repeats=count.repeats,
            malformed=count.malformed,
            dropped_letters=self._parts.dead_letters.shares.dropped[name],
            orders_sent=sent,
            orders_run=run,
            error=self._parts.roster.error(name),
            sources=len(count.sources),
            connections=self._parts.roster.connections.get(name, 0),
            hellos_dropped=self._parts.hellos.dropped.get(name, 0),
        )
