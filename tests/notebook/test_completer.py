"""What completion offers in a %%dataflow cell, and where it keeps out."""

import types

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from IPython.core.completer import CompletionContext, provisionalcompleter

from pratipad_nb.notebook.completer import dataflow_matcher, suggestions


class Celsius:
    def __init__(self, factor=1.8, offset=32):
        pass

    def process(self, reading):
        return reading


def alarm(reading, message, most=40):
    return reading


tools = types.ModuleType("tools")
tools.Scale = type("Scale", (), {"process": lambda self, x: x})
tools.number = 3

NAMES = {"Celsius": Celsius, "alarm": alarm, "tools": tools, "x": 3, "_hidden": alarm}


def offered(cell):
    return [text for text, _ in suggestions(cell, NAMES)[1]]


@pytest.mark.parametrize(
    ("cell", "expected"),
    [
        ("%%dataflow house\n", ["Push", "Pull", "Demand"]),
        ("%%dataflow house\nPu", ["Push", "Pull"]),
        ("%%dataflow house\nPush ", ["~>", "<~>"]),
        ("%%dataflow house\nPush <", ["<~>"]),
        ("%%dataflow house\nPush ~", ["~>"]),
        ("%%dataflow house\nPush\n", ["~>", "<~>"]),
        ("%%dataflow house\nPush <\n", ["~>", "<~>"]),
        ("%%dataflow house\nPush ~> ", ["Output", "Celsius", "alarm", "tools"]),
        ("%%dataflow house\nPush ~> Ce", ["Celsius"]),
        ("%%dataflow house\nPush ~> [", ["Celsius", "alarm", "tools"]),
        ("%%dataflow house\nPush ~> {Celsius, al", ["alarm"]),
        ("%%dataflow house\nPush ~> tools.", ["tools.Scale"]),
        ("%%dataflow house\nPush ~> Celsius", []),
        ("%%dataflow house\nPush ~> Celsius # a ", []),
        ("%%dataflow house\n# a comment\nDem", ["Demand"]),
        ("%%dataflow house\nPush ~> Scale(fac", []),
        ("%%dataflow house\nPush ~> Celsius(", ["factor=", "offset="]),
        ("%%dataflow house\nPush ~> Celsius(fac", ["factor="]),
        ("%%dataflow house\nPush ~> Celsius(factor=2, ", ["offset="]),
        ("%%dataflow house\nPush ~> Celsius(factor=", []),
        ("%%dataflow house\nPush ~> [Celsius(factor=2), alarm(", ["most="]),
        ("%%dataflow house\nPush ~> tools.Scale(", []),
        ("%%dataflow house --del", ["--delivery"]),
        ("%%dataflow house --delivery ", ["durable", "fast"]),
        ("%%dataflow house --delivery f", ["fast"]),
        ("%%dataflow ho", []),
    ],
)
def test_offers_what_may_stand_there(cell, expected):
    assert offered(cell) == expected


def test_offers_an_option_once():
    assert "--rate" not in offered("%%dataflow house --rate 3 ")
    assert "--keep" in offered("%%dataflow house --rate 3 ")


def test_what_is_being_written_is_what_is_replaced():
    assert suggestions("%%dataflow house\nPush ~> tools.S", NAMES)[0] == "tools.S"
    assert suggestions("%%dataflow house\nPush <", NAMES)[0] == "<"


@example("\n<\n")
@given(st.text(alphabet="PushDeman ~<>[]{},()#.\n-%tolsC", max_size=60))
def test_no_text_breaks_it_and_each_offer_goes_on_from_what_is_written(text):
    before = "%%dataflow " + text
    fragment, found = suggestions(before, NAMES)
    assert before.endswith(fragment)
    assert all(offer.startswith(fragment) for offer, _ in found)


def context(text):
    lines = text.split("\n")
    return CompletionContext(
        token="",
        full_text=text,
        cursor_position=len(lines[-1]),
        cursor_line=len(lines) - 1,
        limit=None,
    )


def test_keeps_out_of_other_cells():
    matcher = dataflow_matcher(lambda: NAMES)
    assert matcher(context("import Pu"))["completions"] == []
    assert not matcher(context("%%dataflows x\nPu")).get("suppress")


def test_a_shell_offers_processors_and_leaves_python_names_out(quick_shell):
    quick_shell.ok("class Celsius:\n    def process(self, x): return x\nCentury = 100")
    completer = quick_shell.ip.Completer
    completer.use_jedi = False
    cell = "%%dataflow house\nPush ~> Ce"
    with provisionalcompleter():
        found = [each.text for each in completer.completions(cell, len(cell))]
    assert "Celsius" in found
    assert "Century" not in found
