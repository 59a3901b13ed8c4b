"""Errors as a notebook shows them."""

import re

import pytest

from pratipad_nb.errors import FlowError, SettingsError
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


@pytest.mark.parametrize("text", ["", None])
def test_an_error_without_a_message_still_shows_something(text):
    error = FlowError() if text is None else FlowError(text)
    assert plain(without_frames(error)) == "FlowError: (no message)"


def test_an_error_that_brings_its_own_form_keeps_it():
    error = FlowError("mine")
    error._render_traceback_ = lambda: ["as I like it"]
    assert without_frames(error)._render_traceback_() == ["as I like it"]
