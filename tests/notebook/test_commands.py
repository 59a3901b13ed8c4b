"""The commands of %dataflow, in a shell over flows that run."""

import pytest

from pratipad_nb import Device, NotationError, flows
from pratipad_nb.errors import FlowError, OneWayError, ProcessorError, SettingsError
from pratipad_nb.notebook.commands import COMMANDS, line_suggestions


@pytest.fixture
def house(quick_shell):
    """A shell in which a Demand flow `house` runs, with a device `room1`."""
    quick_shell.ok("def double(x): return x * 2\ndef fails(x): raise ValueError(x)")
    quick_shell.ok("%%dataflow house --rate 100\nDemand <~> double <~> Output")
    orders = []
    with Device("room1", receive=orders.append).connect(quick_shell.names["house"]) as device:
        quick_shell.device, quick_shell.orders = device, orders
        yield quick_shell


def answer(shell, line):
    return shell.ok(f"%dataflow {line}").out


def mistake(shell, line, kind):
    ran = shell.run(f"%dataflow {line}")
    assert isinstance(ran.error, kind), ran.error
    assert "Traceback" not in ran.out
    return str(ran.error)


def test_status_draws_the_flow_in_text(house):
    assert "house: Demand <~> double <~> Output" in answer(house, "status house")


def test_a_processor_is_paused_and_goes_on(house):
    assert "double of house is paused" in answer(house, "pause house double")
    assert house.names["house"].stats().processors["double"].state == "paused"
    house.device.push(1)
    assert house.names["house"]["double"].samples() == []
    assert "double of house goes on" in answer(house, "resume house double")
    assert house.names["house"].take(1)[0].payload == 2


def test_the_flow_is_paused_and_goes_on(house):
    assert "new messages wait" in answer(house, "pause house")
    assert house.names["house"].state == "paused"
    answer(house, "resume house")
    assert house.names["house"].state == "running"


@pytest.mark.parametrize(("written", "rate"), [("5", 5.0), ("0.5", 0.5), ("none", None), ("off", None)])
def test_the_rate_acts_at_once(house, written, rate):
    answer(house, f"rate house {written}")
    assert house.names["house"].rate == rate
    assert house.names["house"]._flow._edge.parts.limit.allowed == rate


def test_the_demand_acts_at_once_in_whichever_order_its_bounds_move(house):
    flow = house.names["house"]
    for written, most, least in (("10", 10, 5), ("2000 1500", 2000, 1500), ("20 3", 20, 3), ("2", 2, 1)):
        assert f"up to {most} messages" in answer(house, f"demand house {written}")
        assert (flow.max_demand, flow.min_demand) == (most, least)
        ledger = flow._flow._edge.parts.ledger
        assert (ledger.max_demand, ledger.min_demand) == (most, least)


def test_an_order_is_sent_to_a_device_and_to_all(house, until):
    assert "goes to room1" in answer(house, 'send house room1 {"led": "on", "colour": "a b"}')
    assert "all devices" in answer(house, "send house all 3")
    until(lambda: len(house.orders) == 2)
    assert house.orders == [{"led": "on", "colour": "a b"}, 3]


def test_dead_letters_are_retried(house, until):
    house.ok("%%dataflow house\nDemand <~> fails <~> Output")
    house.device.push(1)
    flow = house.names["house"]
    until(lambda: flow.stats().dead == 1)
    house.ok("def fails(x): return x")
    assert "1 dead letter put through" in answer(house, "retry house")
    assert flow.take(1)[0].payload == 1


@pytest.mark.parametrize(
    ("line", "kind", "said"),
    [
        ("pause house dubble", ProcessorError, "Did you mean 'double'?"),
        (
            "pause hous",
            FlowError,
            "no flow is named 'hous', and 'house' has no processor of that key. Did you mean 'house'",
        ),
        ("stop huose", FlowError, "Did you mean 'house'?"),
        ("rate house quick", SettingsError, "'quick' is no rate; it is a number above 0, or none"),
        ("rate house 0", SettingsError, "rate is 0.0"),
        ("rate house", SettingsError, "it is written `%dataflow rate NAME N|none`"),
        ("demand house many", SettingsError, "'many' is given; it must be a whole number"),
        ("demand house 0", SettingsError, "0 <= min_demand < max_demand"),
        ("demand house 5 9", SettingsError, "0 <= min_demand < max_demand"),
        ("send house room1 {led: on}", SettingsError, "'{led: on}' is no JSON"),
        ("send house room1", SettingsError, "it is written `%dataflow send NAME DEVICE|all JSON`"),
        ("send house rom1 3", FlowError, "knows no device 'rom1': did you mean room1?"),
        ("stop house now", SettingsError, "it is written `%dataflow stop NAME`"),
    ],
)
def test_a_mistake_names_what_was_written_and_what_may_be(house, line, kind, said):
    assert said in mistake(house, line, kind)
    assert house.names["house"].state == "running"


def test_an_unknown_command_is_one_line_with_the_nearest(house):
    assert house.run("%dataflow pasue house").err == (
        "UsageError: 'pasue' is no command of %dataflow. Did you mean 'pause'? "
        "`%dataflow --help` lists them.\n"
    )


def test_a_flows_name_in_the_place_of_a_command_is_told_what_shows_it(house):
    assert "`%dataflow status house`" in house.run("%dataflow house").err


def test_the_list_takes_no_name_and_says_what_does(house):
    assert house.run("%dataflow list house").err == (
        "UsageError: `%dataflow list` lists all flows and takes no 'house'. "
        "`%dataflow status NAME` shows one.\n"
    )


def test_a_flow_goes_by_its_own_name_and_not_by_its_variables(house):
    house.ok("y = house")
    assert "no flow is named 'y'" in mistake(house, "stop y", FlowError)
    house.ok("del house\ny.stop()")
    assert "no flow is named 'y'" in mistake(house, "status y", FlowError)
    assert "stopped" in answer(house, "status house")


def test_bounds_of_demand_that_do_not_fit_change_neither(house):
    flow = house.names["house"]
    flow.demand(20, 3)
    mistake(house, "demand house 10 10", SettingsError)
    mistake(house, "demand house 10 many", SettingsError)
    assert (flow.max_demand, flow.min_demand) == (20, 3)


def test_a_rate_without_end_is_refused(house):
    for written in ("inf", "nan", "1e999"):
        assert "None for no limit" in mistake(house, f"rate house {written}", SettingsError)
    assert house.names["house"].rate == 100


def test_forgetting_what_never_was_says_so_and_what_was_forgotten_already(house):
    text = mistake(house, "forget huose", FlowError)
    assert text == "no flow is named 'huose', and nothing is stored under that name. Did you mean 'house'?"
    assert "is deleted" in answer(house, "forget house")
    assert "nothing was stored under its name any more" in answer(house, "forget house")


def test_a_stopped_flow_begins_without_the_state_that_is_forgotten(house):
    house.ok("from pratipad_nb import Deadband")
    house.ok("%%dataflow count\nPush ~> Deadband(delta=1) ~> Output")
    count = house.names["count"]
    with Device("room1").connect(count) as device:
        device.push(5)
        count.take(1)
        assert "Stop it first" in mistake(house, "forget_state count", FlowError)
        count.stop()
    assert "no state of first was stored" in answer(house, "forget_state count first")
    assert "count: the stored state of Deadband is deleted; messages stay." in answer(
        house, "forget_state count Deadband"
    )
    assert "no state was stored" in answer(house, "forget_state count")


def test_the_name_may_be_left_out_while_one_flow_runs_and_must_be_given_when_two_do(house):
    answer(house, "pause double")
    answer(house, "resume double")
    answer(house, "rate 7")
    assert house.names["house"].rate == 7
    answer(house, 'send room1 {"a": 1}')
    house.ok("%%dataflow garden\nPush ~> double ~> Output")
    assert "which flow? Running: garden, house." in mistake(house, "stop", FlowError)
    assert "Running: garden, house." in mistake(house, "rate 7", FlowError)
    assert len(flows()) == 2


def test_what_has_no_effect_says_so(house):
    house.ok("%%dataflow garden\nPush ~> double ~> Output")
    assert "no effect now: its input is Push, not Demand or Pull" in answer(house, "rate garden 5")
    assert "not Demand." in answer(house, "demand garden 5")
    assert "no effect" not in answer(house, "rate house 5")


def test_an_order_that_cannot_pass_says_which_arrow(house):
    house.ok("%%dataflow garden\nPush <~> double ~> Output")
    assert "arrow 2" in mistake(house, "send garden all 1", OneWayError)


def test_help_tells_every_command(house):
    assert all(name in answer(house, "--help") for name in COMMANDS)


def test_a_cell_that_says_nothing_new_leaves_what_a_slider_has_set(house):
    answer(house, "rate house 7")
    house.ok("%%dataflow house --rate 100\nDemand <~> double <~> Output")
    assert house.names["house"].rate == 7
    house.ok("%%dataflow house --rate 50 --max-demand 40\nDemand <~> double <~> Output")
    assert (house.names["house"].rate, house.names["house"].max_demand) == (50, 40)
    assert isinstance(house.run("%%dataflow house\nDemand <~> nothing <~> Output").error, NotationError)


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("%dataflow pa", ["pause"]),
        ("%dataflow s", ["status", "send", "stop"]),
        ("%dataflow stop ", ["house"]),
        ("%dataflow pause ", ["house", "double"]),
        ("%dataflow pause house ", ["double"]),
        ("%dataflow pause house dou", ["double"]),
        ("%dataflow pause house double ", []),
        ("%dataflow send house ", ["all", "room1"]),
        ("%dataflow send house room1 ", []),
        ("%dataflow rate house ", ["none"]),
        ("%dataflow nothing ", []),
        ("%dataflow stop house ", []),
    ],
)
def test_completion_offers_commands_flows_processors_and_devices(house, line, expected):
    assert line_suggestions(line, flows())[1] == expected


def test_a_tenants_flow_is_addressed_by_its_tenant_and_name(quick_shell):
    quick_shell.ok("from pratipad_nb import Flow\ndef same(x): return x\nnotation = 'Push ~> same ~> Output'")
    quick_shell.ok("acme = Flow(notation, name='house', tenant='acme').start()")
    quick_shell.ok("plain = Flow(notation, name='house').start()")
    assert {"house", "acme/house"} <= flows().keys()
    assert "acme/house is paused" in answer(quick_shell, "pause acme/house")
    assert [quick_shell.names[name].state for name in ("acme", "plain")] == ["paused", "running"]
    assert "acme/house has stopped" in answer(quick_shell, "stop acme/house")
    assert "house" in flows()
    assert "acme/house" not in flows()
    assert "acme/house has stopped, and all" in answer(quick_shell, "forget acme/house")
    quick_shell.ok("plain.stop()")
