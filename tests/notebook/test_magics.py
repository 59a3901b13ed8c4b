"""%%dataflow and %dataflow in a real shell over the real server, and the mistakes a newcomer makes."""

import importlib.metadata
import socket
import time

import pytest
from patience import patient

from pratipad_nb import Device, Flow, NotationError, flows
from pratipad_nb.errors import (
    ConnectionRefused,
    FlowError,
    PratipadError,
    ProcessorError,
    ServerError,
    SettingsError,
)
from pratipad_nb.session.defaults import Defaults, set_defaults

CELSIUS = """
class Celsius:
    def process(self, reading):
        return round((reading - 32) / 1.8, 1)
"""
HOUSE = "%%dataflow house\nPush <~> Celsius <~> Output"


@pytest.fixture
def running(shell):
    """A shell in which the flow `house` runs."""
    shell.ok(CELSIUS)
    shell.ok(HOUSE)
    yield shell
    house = flows().get("house")
    if house is not None:
        house.forget()


@pytest.fixture
def certs(running, tmp_path):
    """A folder with somebody's certificates."""
    running.names["house"].invite("guest", tmp_path / "certs")
    return tmp_path / "certs"


def one_message(ran):
    """Hold that a mistake was shown as its message alone: no frames, nothing of this package's files."""
    assert "Traceback" not in ran.out
    assert "pratipad_nb/" not in ran.out + ran.err
    assert 'File "' not in ran.out
    return ran.out


# -- the cell ------------------------------------------------------------------------------------------------


def test_a_cell_starts_a_flow_binds_it_and_shows_it(running):
    house = running.names["house"]
    assert isinstance(house, Flow)
    assert flows() == {"house": house}
    with Device("room1").connect(house) as device:
        device.push(212)
        assert house.take(1)[0].payload == 100.0


def test_running_an_unchanged_cell_again_changes_nothing(running):
    house = running.names["house"]
    with Device("room1").connect(house) as device:
        ran = running.ok(HOUSE)
        assert running.names["house"] is house
        assert "swapped" not in ran.out
        device.push(32)
        assert house.take(1)[0].payload == 0.0
        assert house.stats().processors["Celsius"].version == 0


def test_a_changed_cell_changes_what_differs_and_devices_stay(running):
    house = running.names["house"]
    running.ok("def tenfold(x):\n    return x * 10")
    with Device("room1").connect(house) as device:
        ran = running.ok("%%dataflow house\nPush <~> [Celsius, tenfold] <~> Output")
        assert "house: added tenfold: 0 messages in flight" in ran.out
        assert "lost 0, doubled 0" in ran.out
        assert running.names["house"] is house
        device.push(212)
        assert house.take(1)[0].payload == 1000.0


def test_a_flow_of_that_name_that_was_stopped_is_started_again(running):
    running.ok("house.stop()")
    running.ok(HOUSE)
    assert running.names["house"].state == "running"


def test_braces_are_notation_and_nothing_that_ipython_expands(running):
    running.ok("def look(x):\n    pass")
    running.ok("%%dataflow house\nPush <~> Celsius <~> {look, Celsius} <~> Output")
    assert "{look, Celsius}" in running.names["house"].notation


def test_help_needs_no_body(shell):
    assert "usage: %%dataflow NAME" in shell.ok("%%dataflow --help").out


# -- mistakes ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("cell", "error", "said"),
    [
        ("%%dataflow house\nPush -> Celsius ~> Output", NotationError, "^"),
        ("%%dataflow house\nPush ~> Celsus ~> Output", NotationError, "did you mean `Celsius`?"),
        ("%%dataflow house\nPush ~> Celsus ~> Farenheit ~> Output", NotationError, "`Farenheit`"),
        ("%%dataflow house\n", NotationError, "the notation is empty"),
        ("%%dataflow house --rate never\nPush ~> Celsius ~> Output", SettingsError, "'never' is given"),
        ("%%dataflow Celsius\nPush ~> Celsius ~> Output", FlowError, "`del Celsius` first"),
        (
            "%%dataflow house --delivery fast\nPush <~> Celsius <~> Output",
            FlowError,
            "--delivery can't change",
        ),
        ("%%dataflow house --server tls://localhost:1\nPush <~> Celsius <~> Output", FlowError, "--server"),
    ],
)
def test_a_mistake_is_one_message_and_the_running_flow_goes_on(running, cell, error, said):
    house = running.names["house"]
    before = house.notation
    ran = running.run(cell)
    assert said in one_message(ran) + ran.err
    assert type(ran.error) is error
    assert ran.out.count("FlowWidget") == cell.startswith("%%dataflow house")  # what runs on is shown on
    assert (house.state, house.notation) == ("running", before)
    with Device("room1").connect(house) as device:
        device.push(212)
        assert house.take(1)[0].payload == 100.0


def test_a_cell_without_a_name_tells_how_to_write_one(shell):
    ran = shell.run("%%dataflow\nPush ~> Celsius ~> Output")
    assert "usage: %%dataflow NAME" in one_message(ran)
    assert flows() == {}


def test_a_first_cell_that_is_wrong_starts_nothing(shell):
    ran = shell.run("%%dataflow garden\nPush ~> Nothing ~> Output")
    assert isinstance(ran.error, NotationError)
    assert "garden" not in shell.names
    assert flows() == {}


def test_a_processor_that_cannot_be_set_up_is_named_and_binds_nothing(shell):
    shell.ok("class Broken:\n    def setup(self): 1 / 0\n    def process(self, x): return x")
    ran = shell.run("%%dataflow garden\nPush ~> Broken ~> Output")
    assert isinstance(ran.error, ProcessorError)
    assert "Broken: setup failed with ZeroDivisionError" in one_message(ran)
    assert "garden" not in shell.names


def test_a_state_folder_that_cannot_be_written_is_one_message(shell, tmp_path):
    (tmp_path / "taken").write_text("a file")
    set_defaults(Defaults(home=tmp_path / "taken"))
    shell.ok(CELSIUS)
    ran = shell.run("%%dataflow garden\nPush ~> Celsius ~> Output")
    assert isinstance(ran.error, ServerError)
    assert f"the state folder {tmp_path / 'taken'} can't be written" in one_message(ran)
    assert "PRATIPAD_HOME" in one_message(ran)
    assert "garden" not in shell.names


def test_an_existing_server_that_does_not_answer_is_one_message(shell, certs):
    shell.ok(CELSIUS)
    ran = shell.run(
        f"%%dataflow garden --server tls://127.0.0.1:1 --certs {certs}\nPush ~> Celsius ~> Output"
    )
    assert isinstance(ran.error, ConnectionRefused)
    assert "127.0.0.1:1" in one_message(ran)
    assert "garden" not in shell.names


def test_a_port_that_something_else_has_taken_is_one_message_in_time(shell, certs):
    shell.ok(CELSIUS)
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        began = time.monotonic()
        ran = shell.run(
            f"%%dataflow garden --server tls://127.0.0.1:{port} --certs {certs}\nPush ~> Celsius ~> Output"
        )
    assert time.monotonic() - began < patient(10)
    assert isinstance(ran.error, PratipadError)
    assert str(port) in one_message(ran)
    assert "garden" not in shell.names


def test_a_server_without_certificates_is_refused_with_the_next_step(shell):
    shell.ok(CELSIUS)
    ran = shell.run("%%dataflow garden --server tls://127.0.0.1:4222\nPush ~> Celsius ~> Output")
    assert "server= and certs= go together" in one_message(ran)


def test_a_missing_server_binary_is_one_message_with_the_next_step(shell, monkeypatch, tmp_path):
    from pratipad_nb.server import process as server_process

    def missing(name):
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(server_process.shutil, "which", lambda *_, **__: None)
    monkeypatch.setattr(server_process.sys, "executable", str(tmp_path / "python"))
    monkeypatch.setattr(server_process.importlib.metadata, "files", missing)
    shell.ok(CELSIUS)
    ran = shell.run("%%dataflow garden\nPush ~> Celsius ~> Output")
    assert isinstance(ran.error, ServerError)
    assert "pip install" in one_message(ran)


@pytest.mark.parametrize("name", ["print", "sum", "import"])
def test_a_name_of_pythons_own_is_refused_and_hides_nothing(quick_shell, name):
    quick_shell.ok("def same(x): return x")
    ran = quick_shell.run(f"%%dataflow {name}\nPush ~> same ~> Output")
    assert isinstance(ran.error, SettingsError)
    assert f"Use '{name}_flow'" in one_message(ran)
    assert flows() == {}
    assert name not in quick_shell.names


def test_a_hint_names_nothing_that_ipython_has_put_there(quick_shell):
    quick_shell.ok("from pratipad_nb import preview")
    for cell in ("%%dataflow house\nPush ~> exiit ~> Output", "preview('Push ~> opn ~> Output', [])"):
        ran = quick_shell.run(cell)
        assert isinstance(ran.error, NotationError)
        assert "did you mean" not in ran.out


# -- a cell again --------------------------------------------------------------------------------------------


@pytest.fixture
def plant(quick_shell):
    """A shell in which the Demand flow `plant` runs on the in-memory transport."""
    quick_shell.ok("def same(x): return x")
    quick_shell.ok("%%dataflow plant --rate 10 --max-demand 40\nDemand <~> same <~> Output")
    return quick_shell


def failed(flow, until):
    """Let a flow's run end with an error."""

    async def fail():
        async def fails(line):
            raise OSError("no space left")

        flow._flow._edge.parts.upkeep.last_checkpoint = fails
        flow._flow._edge.drain()

    flow._portal.run(fail())
    until(lambda: flow.state == "failed")


def test_the_cell_of_a_flow_that_has_failed_starts_it_again(plant, until):
    flow = plant.names["plant"]
    failed(flow, until)
    plant.ok("%%dataflow plant --rate 20\nDemand <~> [same, same] <~> Output")
    assert plant.names["plant"] is flow
    assert (flow.state, flow.rate, flow.max_demand) == ("running", 20.0, 1000)
    with Device("room1").connect(flow) as device:
        device.push(1)
        assert flow.take(1)[0].payload == 1


def test_the_cell_of_a_flow_that_has_failed_may_say_what_a_running_one_can_not_change(plant, until):
    failed(plant.names["plant"], until)
    wrong = plant.run("%%dataflow plant --keep 10min\nDemand <~> other <~> Output")
    assert isinstance(wrong.error, NotationError)
    plant.ok("%%dataflow plant --keep 10min\nDemand <~> same <~> Output")
    assert plant.names["plant"].state == "running"
    assert plant.names["plant"].settings.keep.seconds == 600


def test_the_cell_of_a_stopped_flow_that_a_device_has_come_back_to_starts_it(plant):
    flow = plant.names["plant"]
    flow.stop()
    with Device("room1").connect(flow) as device:
        assert flows() == {"plant": flow}
        plant.ok("%%dataflow plant --rate 10 --max-demand 40\nDemand <~> same <~> Output")
        assert plant.names["plant"] is flow
        assert flow.state == "running"
        device.push(1)
        assert flow.take(1)[0].payload == 1


def test_a_cell_that_is_wrong_changes_nothing_and_going_back_changes_nothing_either(plant):
    flow = plant.names["plant"]
    for wrong in (
        "--rate 99 --max-demand 7\nDemand <~> nothing <~> Output",
        "--rate 99 --max-demand 7 --min-demand 7\nDemand <~> same <~> Output",
        "--rate 99 --delivery fast\nDemand <~> same <~> Output",
    ):
        assert isinstance(plant.run(f"%%dataflow plant {wrong}").error, PratipadError)
        assert (flow.rate, flow.max_demand, flow.min_demand) == (10.0, 40, 20)
    plant.ok("%%dataflow plant --rate 10 --max-demand 40\nDemand <~> same <~> Output")
    assert (flow.rate, flow.max_demand, flow.min_demand) == (10.0, 40, 20)


def test_options_are_compared_with_what_a_flow_of_a_program_is(plant):
    plant.ok("plant.stop()\nfrom pratipad_nb import Flow")
    plant.ok("plant = Flow('Demand <~> same <~> Output', name='plant', keep=60, max_demand=100).start()")
    flow = plant.names["plant"]
    for said in ("--keep 10min", "--delivery fast", "--server memory://elsewhere", "--certs nowhere"):
        ran = plant.run(f"%%dataflow plant {said}\nDemand <~> same <~> Output")
        assert f"{said.split()[0]} can't change while flow 'plant' runs" in str(ran.error)
    plant.ok("%%dataflow plant --keep 1min --delivery durable --rate 5\nDemand <~> same <~> Output")
    assert plant.names["plant"] is flow
    assert (flow.rate, flow.max_demand) == (5.0, 100)
    plant.ok("%%dataflow plant --keep 1min --rate 5 --min-demand 7\nDemand <~> same <~> Output")
    assert (flow.rate, flow.max_demand, flow.min_demand) == (5.0, 100, 7)


def test_what_holds_anyway_may_be_said_or_left_out(plant):
    cell = "%%dataflow plant --rate 10 --max-demand 40{}\nDemand <~> same <~> Output"
    for said in (" --delivery durable", "", " --keep 1h", ""):
        plant.ok(cell.format(said))
    assert plant.names["plant"].state == "running"


def test_an_extension_that_is_loaded_anew_knows_what_the_cells_have_said(plant):
    flow = plant.names["plant"]
    plant.ok("%reload_ext pratipad_nb")
    assert "plant: swapped same" in plant.ok("def same(x): return 2 * x").out
    plant.ok("%reload_ext pratipad_nb")
    fast = plant.run("%%dataflow plant --delivery fast\nDemand <~> same <~> Output")
    assert "--delivery can't change" in str(fast.error)
    plant.ok("%dataflow rate plant 3")
    plant.ok("%%dataflow plant --rate 10 --max-demand 40\nDemand <~> same <~> Output")
    assert flow.rate == 3.0


def test_the_picture_of_the_flow_that_is_named_is_shown_again_and_of_no_other(plant):
    plant.ok("%%dataflow durable\nDemand <~> same <~> Output")
    ran = plant.run("%%dataflow plant --delivery durable\nDemand <~> nothing <~> Output")
    assert (ran.out.count("FlowWidget"), "nothing" in ran.out) == (1, True)
    ran = plant.run("%%dataflow garden --delivery durable\nDemand <~> nothing <~> Output")
    assert ran.out.count("FlowWidget") == 0


# -- hot swap ------------------------------------------------------------------------------------------------


def test_running_the_class_cell_again_swaps_it_and_prints_the_receipt(running):
    house = running.names["house"]
    with Device("room1").connect(house) as device:
        device.push(32)
        assert house.take(1)[0].payload == 0.0
        ran = running.ok(CELSIUS.replace("round((reading - 32) / 1.8, 1)", "'new'"))
        assert "house: swapped Celsius: 0 messages in flight, pause " in ran.out
        assert "lost 0, doubled 0" in ran.out
        device.push(32)
        assert house.take(1)[0].payload == "new"


def test_a_cell_that_defines_nothing_of_the_flow_swaps_nothing(running):
    assert "swapped" not in running.ok("x = 3\ndef other(y): return y").out
    assert running.names["house"].stats().processors["Celsius"].version == 0


def test_no_swap_leaves_the_old_one_and_says_that_the_code_is_newer(running):
    running.ok("%%dataflow house --no-swap\nPush <~> Celsius <~> Output")
    house = running.names["house"]
    ran = running.ok(CELSIUS.replace("1.8", "1.9"))
    assert "swapped" not in ran.out
    assert house.stats().processors["Celsius"].newer
    with Device("room1").connect(house) as device:
        device.push(212)
        assert house.take(1)[0].payload == 100.0
    assert "swapped Celsius" in running.ok("%%dataflow house --no-swap\nPush <~> Celsius <~> Output").out
    assert not house.stats().processors["Celsius"].newer


def test_a_new_one_that_cannot_be_set_up_leaves_the_old_one_and_is_told_once(running):
    house = running.names["house"]
    broken = CELSIUS + "    def setup(self):\n        raise OSError('no such sensor')\n"
    ran = running.run(broken)
    assert ": house: Celsius: setup failed with OSError: no such sensor" in one_message(ran)
    assert "The old Celsius goes on." in ran.out
    assert house.stats().processors["Celsius"].newer
    with Device("room1").connect(house) as device:
        device.push(212)
        assert house.take(1)[0].payload == 100.0
    assert "no such sensor" not in running.ok("1 + 1").out
    assert "no such sensor" in running.run(broken).out
    assert "swapped Celsius" in running.ok(CELSIUS).out


def test_a_processor_that_is_deleted_from_the_notebook_goes_on_running(running):
    assert running.ok("del Celsius").out == ""
    assert running.names["house"].state == "running"
    assert running.ok("1").out.strip() in ("", "1", "Out[0]: 1")


# -- the line ------------------------------------------------------------------------------------------------


def test_the_list_says_what_runs(running):
    (line,) = running.ok("%dataflow").out.splitlines()
    assert line.split()[:2] == ["house", "running"]
    assert line.endswith("Push <~> Celsius <~> Output")


def test_without_flows_the_list_says_how_to_start_one(shell):
    assert "`%%dataflow NAME` starts one" in shell.ok("%dataflow list").out


def test_stop_keeps_and_forget_deletes(running):
    assert "has stopped" in running.ok("%dataflow stop house").out
    assert flows() == {}
    assert "is deleted" in running.ok("%dataflow forget house").out


def test_what_an_earlier_kernel_has_stored_is_in_the_way_until_it_is_forgotten_by_name(shell):
    with Flow("Push ~> double ~> Output", name="earlier", namespace={"double": lambda x: 2 * x}):
        pass
    shell.ok(CELSIUS)
    fast = "%%dataflow earlier --delivery fast\nPush ~> Celsius ~> Output"
    assert "`%dataflow forget`" in one_message(shell.run(fast))
    shell.ok("%dataflow forget earlier")
    shell.ok(fast)
    shell.ok("earlier.stop()\nearlier.forget()")


def test_a_name_may_be_left_out_if_one_flow_runs(running):
    assert "house is paused" in running.ok("%dataflow pause").out
    assert running.names["house"].state == "paused"
    assert "house goes on" in running.ok("%dataflow resume").out
    assert running.names["house"].state == "running"


def test_an_unknown_flow_is_told_with_those_that_run(running):
    ran = running.run("%dataflow stop hous")
    assert "no flow is named 'hous'" in one_message(ran)
    assert "house" in str(ran.error)


# -- loading -------------------------------------------------------------------------------------------------


def test_loading_twice_changes_nothing_and_unloading_takes_it_all_out(quick_shell):
    ip = quick_shell.ip
    hooks = len(ip.Completer.custom_matchers), len(ip.input_transformers_cleanup)
    quick_shell.ok("%reload_ext pratipad_nb")
    assert (len(ip.Completer.custom_matchers), len(ip.input_transformers_cleanup)) == hooks
    quick_shell.ok("%unload_ext pratipad_nb")
    assert (len(ip.Completer.custom_matchers), len(ip.input_transformers_cleanup)) == (
        hooks[0] - 1,
        hooks[1] - 1,
    )
    assert "not found" in quick_shell.run("%dataflow").err
    quick_shell.ok("%load_ext pratipad_nb")


def test_flows_go_on_when_the_magics_are_unloaded(quick_shell):
    quick_shell.ok("def same(x): return x")
    quick_shell.ok("%%dataflow house\nPush ~> same ~> Output")
    quick_shell.ok("%unload_ext pratipad_nb")
    assert quick_shell.names["house"].state == "running"
    quick_shell.ok("%load_ext pratipad_nb")
