"""The budget of a device: used up, and back after its time; other devices have their own."""

from __future__ import annotations

from pratipad_nb.hardware.clock import ManualClock
from pratipad_nb.runtime.devices import budget


def test_a_device_uses_its_own_budget_up_and_has_it_again_after_a_while(monkeypatch):
    clock = ManualClock()
    monkeypatch.setattr(budget, "time", clock)
    shared = budget.Budget(2, 10.0)
    assert [shared.take("a") for _ in range(4)] == [True, True, False, False]
    assert shared.take("b")
    clock.advance(9.9)
    assert not shared.take("a")
    clock.advance(0.2)
    assert [shared.take("a") for _ in range(3)] == [True, True, False]
