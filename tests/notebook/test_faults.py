"""Errors as a notebook shows them."""

import re

import pytest

from pratipad_nb import NotationError, parse
from pratipad_nb.errors import FlowError, ProcessorError, SettingsError, WaitTimeout
from pratipad_nb.notebook.faults import without_frames


def plain(error):
    return re.sub(r"\x1b\[[0-9;]*m", "", "\n".join(error._render_traceback_()))


def test_an_error_shows_its_class_and_its_message_and_no_frames():
    assert plain(without_frames(FlowError("flow 'a' is stopped.\nStart it."))) == (
        "FlowError: flow 'a' is stopped.\nStart it."
    )


def test_an_error_keeps_its_class_and_is_the_same_object():
    error = SettingsError("no")
    assert without_frames(error) is error


def test_the_cause_is_named_below():
    error = FlowError("broken")
    error.__cause__ = OSError("no such sensor")
    assert plain(without_frames(error)).splitlines() == [
        "FlowError: broken",
        "Cause: OSError: no such sensor",
    ]


def test_of_a_cause_in_a_users_code_its_line_is_shown():
    def open_port():
        raise OSError("no such sensor")

    error = FlowError("broken")
    try:
        open_port()
    except OSError as cause:
        error.__cause__ = cause
    *_, last = plain(without_frames(error)).splitlines()
    assert re.fullmatch(r'  in open_port, line \d+: raise OSError\("no such sensor"\)', last)


@pytest.mark.parametrize("text", ["", None])
def test_an_error_without_a_message_still_shows_something(text):
    error = FlowError() if text is None else FlowError(text)
    assert plain(without_frames(error)) == "FlowError: (no message)"


def test_words_around_the_message_say_whose_it_is_and_what_goes_on():
    error = without_frames(FlowError("P: no sensor."), "house: ", " The old P goes on.")
    assert plain(error) == "FlowError: house: P: no sensor. The old P goes on."
    with pytest.raises(NotationError) as caught:
        parse("Push")
    told = plain(without_frames(caught.value, "house: ", " The old P goes on."))
    assert told.endswith("\nhouse: The old P goes on.")


# -- what is called in a cell --------------------------------------------------------------------------------


def test_what_is_called_in_a_cell_shows_the_users_lines_down_to_the_call_and_the_message(quick_shell):
    quick_shell.ok("def same(x): return x\ndef taken(flow):\n    return flow.take(100, timeout=0.05)")
    quick_shell.ok("%%dataflow house\nPush ~> same ~> Output")
    ran = quick_shell.run("taken(house)")
    assert isinstance(ran.error, WaitTimeout)
    assert "----> 1 taken(house)" in ran.out
    assert "return flow.take(100, timeout=0.05)" in ran.out
    assert ran.out.splitlines()[-1].startswith("WaitTimeout: got 0 of 100 messages")
    assert "pratipad_nb" not in ran.out
    assert "concurrent" not in ran.out


def test_where_it_comes_from_in_the_users_code_is_shown_below(quick_shell):
    quick_shell.ok("from pratipad_nb import Flow")
    quick_shell.ok(
        "class Broken:\n"
        "    def setup(self):\n"
        "        raise OSError('no such bus')\n"
        "    def process(self, x): return x"
    )
    ran = quick_shell.run("Flow('Push ~> Broken ~> Output').start()")
    assert isinstance(ran.error, ProcessorError)
    assert "Broken: setup failed with OSError: no such bus" in ran.out
    assert "----> 3     raise OSError('no such bus')" in ran.out
    assert "pratipad_nb/" not in ran.out
    assert ran.error.__cause__ is not None


def test_a_cause_that_is_ours_is_one_line(quick_shell):
    quick_shell.ok("from pratipad_nb import Flow\nimport threading\ndef same(x): return x")
    quick_shell.ok("flow = Flow('Push ~> same ~> Output').start()")
    ran = quick_shell.run("threading.Timer(0.1, flow.stop).start()\nflow.take(1, None)")
    assert isinstance(ran.error, FlowError)
    assert "Cause: TransportClosed: " in ran.out.splitlines()[-1]
    assert "pratipad_nb/" not in ran.out


def test_errors_are_shown_as_any_others_once_the_extension_is_unloaded(quick_shell):
    quick_shell.ok("from pratipad_nb import Flow\n%unload_ext pratipad_nb")
    assert "pratipad_nb/" in quick_shell.run("Flow('Push ~> len ~> Output', namespace=3)").out
    quick_shell.ok("%load_ext pratipad_nb")
    assert "pratipad_nb/" not in quick_shell.run("Flow('Push ~> len ~> Output', namespace=3)").out


def test_an_error_that_brings_its_own_form_keeps_it():
    error = FlowError("mine")
    error._render_traceback_ = lambda: ["as I like it"]
    assert without_frames(error)._render_traceback_() == ["as I like it"]
