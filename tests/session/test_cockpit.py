"""Controls that act at once, newer code, the history, and views that others draw."""

import asyncio
import subprocess
import sys

import pytest

from pratipad_nb import AsyncFlow, Device, Flow
from pratipad_nb.errors import FlowError, SettingsError
from pratipad_nb.runtime.values import history
from pratipad_nb.runtime.values.history import History
from pratipad_nb.runtime.values.stats import FlowStats, ProcessorStats
from pratipad_nb.session import views


def double(payload):
    return payload * 2


@pytest.fixture
def flow(url):
    with Flow("Demand <~> double <~> Output", server=url, name="house") as flow:
        yield flow


# -- controls ------------------------------------------------------------------------------------------------


def test_demand_and_rate_hold_at_once_and_over_a_new_start(flow):
    flow.rate, flow.max_demand, flow.min_demand = 50, 20, 7
    ledger = flow._flow._edge.parts.ledger
    assert (ledger.limit.allowed, ledger.max_demand, ledger.min_demand) == (50.0, 20, 7)
    flow.stop()
    flow.start()
    ledger = flow._flow._edge.parts.ledger
    assert (ledger.limit.allowed, ledger.max_demand, ledger.min_demand) == (50.0, 20, 7)
    assert (flow.rate, flow.max_demand, flow.min_demand) == (50.0, 20, 7)


def test_they_can_be_set_before_the_start(url):
    flow = Flow("Demand <~> double <~> Output", server=url)
    flow.max_demand = 10
    flow.rate = 5
    assert (flow.max_demand, flow.min_demand, flow.rate) == (10, 5, 5.0)


def test_both_bounds_change_at_once_whatever_they_were(flow):
    for most, least in ((10, None), (2000, 1500), (20, 3), (1, 0)):
        flow.demand(most, least)
        ledger = flow._flow._edge.parts.ledger
        expected = (most, most // 2 if least is None else least)
        assert (flow.max_demand, flow.min_demand) == (ledger.max_demand, ledger.min_demand) == expected


def test_bounds_that_do_not_fit_each_other_change_neither(flow):
    flow.demand(20, 3)
    with pytest.raises(
        SettingsError, match="max_demand=10, min_demand=10: whole numbers with 0 <= min_demand"
    ):
        flow.demand(10, 10)
    ledger = flow._flow._edge.parts.ledger
    assert (flow.max_demand, flow.min_demand) == (ledger.max_demand, ledger.min_demand) == (20, 3)


def test_a_lower_bound_of_none_is_half_of_the_other_and_a_new_start_finds_it(flow):
    flow.demand(20, 3)
    flow.min_demand = None
    flow.stop()
    flow.start()
    ledger = flow._flow._edge.parts.ledger
    assert (flow.min_demand, ledger.min_demand) == (10, 10)


def test_a_smaller_demand_takes_the_lower_bound_along(flow):
    flow.max_demand = 10
    assert flow.min_demand == 5
    flow.max_demand = 1000
    assert flow.min_demand == 5


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("rate", 0, "rate is 0; it is messages a second"),
        ("rate", "fast", "rate is 'fast'"),
        ("max_demand", 0, "max_demand=0"),
        ("max_demand", 1.5, "max_demand=1.5"),
        ("min_demand", 1000, "min_demand=1000"),
        ("min_demand", -1, "0 <= min_demand < max_demand"),
    ],
)
def test_a_value_that_is_none_is_refused_and_changes_nothing(flow, name, value, said):
    before = getattr(flow, name)
    with pytest.raises(SettingsError, match=said):
        setattr(flow, name, value)
    assert getattr(flow, name) == before


def test_what_the_demand_allows_is_asked_for(flow, until):
    flow.max_demand = 4
    flow.pause("double")
    with Device("room1").connect(flow) as device:
        for number in range(50):
            device.push(number)
        until(lambda: flow.stats().received == 4)
        flow.max_demand = 10
        flow.min_demand = 8
        until(lambda: flow.stats().received == 10)
        flow.resume("double")
        assert len(flow.take(50)) == 50


def test_a_paused_flow_stays_paused_when_what_runs_is_changed(flow, until):
    flow.pause()
    flow.update(flow.notation, {"double": lambda payload: payload * 3})
    assert flow.state == "paused"
    with Device("room1").connect(flow) as device:
        device.push(1)
        until(lambda: flow.stats().devices["room1"].connected)
        assert flow.stats().received == 0
        flow.resume()
        assert flow.take(1)[0].payload == 3


def test_a_paused_processor_stays_paused_when_it_or_another_is_changed(url, until):
    def same(payload):
        return payload

    names = {"double": double, "same": same}
    with (
        Flow("Push ~> [double, same] ~> Output", namespace=names, server=url) as flow,
        Device("room1").connect(flow) as device,
    ):
        flow.pause("same")
        for changed in ("double", "same"):
            flow.update(flow.notation, names | {changed: lambda payload: payload * 3})
            assert {key: p.state for key, p in flow.stats().processors.items()} == {
                "double": "running",
                "same": "paused",
            }
        device.push(1).wait(10)
        until(lambda: flow.stats().processors["double"].emitted == 1)
        assert flow.stats().processors["same"].received == 0
        flow.resume("same")
        assert flow.take(1)[0].payload == 6
        flow.pause("same")
        flow.update("Push ~> double ~> Output", names)
        device.push(1).wait(10)
        assert flow.take(1)[0].payload == 2


# -- newer code ----------------------------------------------------------------------------------------------


def test_code_that_is_newer_than_what_runs_shows_until_it_is_swapped_in(flow):
    assert flow.newer() == ()
    new = {"double": lambda payload: payload * 3}
    (step,) = flow.newer(new)
    assert step.target is new["double"]
    assert flow.stats().processors["double"].newer
    assert "its code is newer than what runs" in repr(flow["double"])
    flow.update(flow.notation, new)
    assert not flow.stats().processors["double"].newer
    assert flow.newer(new) == ()


def test_a_name_that_is_gone_is_nothing_newer(flow):
    assert flow.newer({}) == ()


# -- history -------------------------------------------------------------------------------------------------


def test_a_row_a_second_says_how_the_flow_stood(flow, until):
    with Device("room1", read=iter(range(10**9))).connect(flow):
        until(lambda: len(flow.history) >= 3)
    found = flow.history
    assert 0.9 < found.times[-1] - found.times[-2] < 2.0
    assert found.flow["rate"][-1] > 0
    assert found.processors["double"]["rate"][-1] > 0
    assert {len(numbers) for numbers in found.flow.values()} == {len(found)}


def test_an_hour_is_kept_and_what_was_not_there_is_no_number(monkeypatch):
    kept = History()
    for second in range(history.SECONDS + 10):
        key = "old" if second < history.SECONDS else "new"
        kept.add(FlowStats("house", time=float(second), processors={key: ProcessorStats(rate=float(second))}))
    found = kept.read()
    assert len(found) == history.SECONDS
    assert found.times[0] == 10.0
    assert found.processors["old"]["rate"][0] == 10.0
    assert found.processors["new"]["rate"][-1] == history.SECONDS + 9
    assert str(found.processors["new"]["rate"][0]) == str(found.processors["old"]["rate"][-1]) == "nan"


def test_a_history_goes_on_after_a_stop(flow):
    flow.stop()
    before = len(flow.history)
    flow.start()
    flow.stop()
    assert len(flow.history) == before + 1


# -- views ---------------------------------------------------------------------------------------------------


def test_without_the_notebooks_libraries_a_view_says_what_to_install():
    script = (
        "import sys\n"
        "for name in ('matplotlib', 'IPython', 'ipywidgets', 'anywidget'): sys.modules[name] = None\n"
        "from pratipad_nb import Flow\n"
        "def same(x): return x\n"
        "flow = Flow('Push ~> same ~> Output')\n"
        "for name in ('plot', 'picture', 'panel'):\n"
        "    try: getattr(flow, name)()\n"
        "    except Exception as error: print(type(error).__name__, error)\n"
    )
    run = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=30, check=True
    )
    lines = run.stdout.splitlines()
    assert [line.split("()")[0] for line in lines] == [
        f"SettingsError flow.{name}" for name in ("plot", "picture", "panel")
    ]
    assert all("isn't installed here. Install it: pip install 'pratipad-nb[lab]'." in line for line in lines)


def test_a_view_that_nobody_offers_says_what_to_install(monkeypatch):
    monkeypatch.setattr(views, "GROUP", "nobody.offers.this")
    with pytest.raises(
        SettingsError, match=r"flow\.plot\(\) is drawn by nothing.*pip install 'pratipad-nb\[lab\]'"
    ):
        Flow("Push ~> double ~> Output").plot()


# -- the asynchronous twin -----------------------------------------------------------------------------------


async def test_the_asynchronous_twin_records_replays_and_compares(url):
    flow = AsyncFlow("Demand <~> double <~> Output", server=url)
    with pytest.raises(FlowError, match="not running"):
        await flow.record(n=1)
    async with flow:
        assert (await flow.record(seconds=0.05)).cut == ""
        tape = await flow.record(seconds=0.01)
        assert await flow.replay(tape) == 0
        assert (await flow.shadow(tape)).compared == 0
        flow.rate = 3
        assert flow.rate == 3.0
        flow.demand(40)
        assert (flow.max_demand, flow.min_demand) == (40, 20)
        assert flow.newer({"double": len})[0].key == "double"


async def test_the_asynchronous_twin_draws_the_same_views(url, tmp_path):
    async with AsyncFlow("Demand <~> double <~> Output", server=url) as flow:
        assert flow.picture(tmp_path / "a.svg").read_text().lstrip().startswith("<?xml")
        with pytest.raises(SettingsError, match="picture: path is 3; it must be a path"):
            flow.picture(3)
        while not flow.history:
            await asyncio.sleep(0.005)
        assert "plot" in type(flow.plot()).__name__.lower()
        panel = flow.panel()
        assert list(panel.rows) == ["double", "Output"]
    await asyncio.to_thread(panel._thread.join, 10)
    assert not panel._thread.is_alive()
    assert "stopped" in panel.rows["Output"].children[1].value
    panel.close()
