"""The report: a running edge's counters, put together into one frozen snapshot.

Owns the assembly alone; the shape is in `stats`, the counting in the parts.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from pratipad_nb.runtime.edge.settling import blocked_by
from pratipad_nb.runtime.positions.inputs import DeviceCount
from pratipad_nb.runtime.values.metrics import Rate
from pratipad_nb.runtime.values.stats import DeviceStats, FlowStats, ProcessorStats, ReaderStats

if TYPE_CHECKING:
    from pratipad_nb.runtime.edge.edge import Edge

__all__ = ["DeviceRates", "Reporter"]

_RATE_SAMPLES = 3

#: Up to so many devices are counted anew for each snapshot, at some 6 µs each: 3 % of a core at five a second.
_ALWAYS_FRESH = 1000
#: Beyond, their part of it may be so old for each of them, in seconds: 10,000 devices cost 6 % of a core.
_SECONDS_A_DEVICE = 1e-4


class DeviceRates:
    """What comes in from each device, a second, over the last two seconds or so."""

    def __init__(self, edge: Edge) -> None:
        self._edge = edge
        self._rates: dict[str, Rate] = {}

    def sample(self) -> None:
        """Note where all counts stand; called once a second, which for 10,000 devices takes half a per cent of a core."""
        for name, count in self._edge.gate.counts.items():
            rate = self._rates.get(name)
            if rate is None:
                rate = self._rates[name] = Rate(count.received, samples=_RATE_SAMPLES)
            rate.sample(count.received)

    def of(self, device: str) -> float:
        """Return a device's rate."""
        rate = self._rates.get(device)
        return rate.value if rate is not None else 0.0


class Reporter:
    """Makes snapshots of one edge."""

    def __init__(self, edge: Edge) -> None:
        self._edge = edge
        self._newest: dict[str, DeviceStats] = {}
        self._counted = 0.0

    def snapshot(self) -> FlowStats:
        """Return the counters as they stand."""
        edge = self._edge
        p50, p99 = edge.writer.latency.percentiles(0.5, 0.99)
        return FlowStats(
            name=edge.settings.name,
            notation=edge.line.dataflow.notation,
            delivery=edge.settings.delivery,
            state=edge.state,
            time=time.time(),
            uptime=time.monotonic() - edge.started,
            processors=self._processors(),
            devices=self._devices(),
            readers={
                name: ReaderStats(lag.pending, lag.blocking)
                for name, lag in (edge.janitor.readers if edge.janitor else {}).items()
            },
            received=edge.gate.received,
            delivered=edge.writer.delivered,
            rate=edge.rate.value,
            p50=p50,
            p99=p99,
            in_hand=max(0, edge.pipeline.in_hand),
            waiting=edge.gate.waiting,
            dropped=0 if edge.chain is not None else edge.gate.missing,
            repeats=edge.gate.repeats,
            dead=edge.dead_letters.count,
            malformed=edge.gate.malformed,
            backward=edge.backward.stats(),
            blocked_by=blocked_by(edge),
            error=edge.error,
        )

    def _processors(self) -> dict[str, ProcessorStats]:
        edge = self._edge
        for stage in edge.line.stages:
            for member in stage.members:
                member.meter.waiting = edge.pipeline.waiting(stage.index)
        return {key: meter.snapshot() for key, meter in edge.line.meters.items()}

    def _devices(self) -> dict[str, DeviceStats]:
        now, count = time.monotonic(), len(self._newest)
        if count <= _ALWAYS_FRESH or now - self._counted > count * _SECONDS_A_DEVICE:
            self._counted = now
            self._newest = {name: self._device(name) for name in self._edge.presence.known}
        return self._newest

    def _device(self, name: str) -> DeviceStats:
        edge = self._edge
        count = edge.gate.counts.get(name, DeviceCount())
        account = edge.ledger.accounts.get(name)
        sent, run = edge.backward.counts(name)
        return DeviceStats(
            connected=account.connected if account else name in edge.presence.connected,
            received=count.received,
            rate=edge.device_rates.of(name),
            gaps=count.gaps,
            repeats=count.repeats,
            orders_sent=sent,
            orders_run=run,
            error=account.error if account else "",
            sources=len(count.sources),
        )
