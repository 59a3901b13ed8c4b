"""The line of a %%dataflow cell: what it takes, and how it says what it doesn't."""

import builtins
import keyword
import shlex
import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pratipad_nb.errors import SettingsError
from pratipad_nb.notebook.cell_line import OPTION_NAMES, CellOptions, HelpAsked, cell_options, named_in
from pratipad_nb.settings import RESERVED_NAMES


def test_a_name_alone_leaves_all_else_to_the_defaults():
    assert cell_options("house") == CellOptions("house")


def test_every_option_is_read():
    line = (
        "plant --delivery fast --server tls://host:4222 --certs /etc/certs --rate 50 --max-demand 200 "
        "--min-demand 20"
        " --keep 10min --no-swap"
    )
    options = cell_options(line)
    assert (options.name, options.delivery, options.server) == ("plant", "fast", "tls://host:4222")
    assert (options.certs, options.rate, options.max_demand, options.min_demand) == (
        "/etc/certs",
        50.0,
        200,
        20,
    )
    assert options.keep.seconds == 600
    assert not options.swap


def test_options_may_stand_before_the_name_and_a_comment_behind_all():
    assert cell_options("--rate 2 house  # two a second") == CellOptions("house", rate=2.0)


@pytest.mark.parametrize("line", ["", "   ", "--help", "-h", "house --help"])
def test_help_is_given_when_asked_for_and_when_nothing_is_said(line):
    with pytest.raises(HelpAsked) as asked:
        cell_options(line)
    assert all(option in str(asked.value) for option in OPTION_NAMES)


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("house --delivery sometimes", r"delivery is 'sometimes'.*'durable'.*'fast'"),
        ("house --rate fast", r"--rate: 'fast' is given; it must be a number above 0"),
        ("house --rate -1", r"--rate.*above 0|--rate: expected one argument"),
        ("house --rate nan", r"'nan' is given"),
        ("house --rate inf", r"'inf' is given"),
        ("house --max-demand 1.5", r"'1.5' is given; it must be a whole number above 0"),
        ("house --keep soon", r"'soon' is given; it must be a time such as 90s, 10min, 1h or 2d"),
        ("house --keep 0s", r"--keep.*at least 1"),
        ("house --spped 3", r"unrecognized arguments: --spped 3"),
        ("house --deliv fast", r"unrecognized arguments"),
        ("house garden", r"unrecognized arguments: garden"),
        ("--rate 3", r"required: NAME"),
        ("1st", r"'1st' can't name a flow"),
        ("Push", r"'Push' can't name a flow: .* words of the notation"),
        ("my-house", r"bound to a variable. Use 'my_house'"),
        ("print", r"'print' can't be the name .*a name of Python's own\. Use 'print_flow'"),
        ("import", r"'import' can't be the name .*a word of Python\. Use 'import_flow'"),
        ("house --certs 'open", r"Close the quotation mark"),
        ("'x", r"^the line `%%dataflow 'x` can't be read: a quotation mark is opened in it and not closed"),
        ("x \\", r"it ends in a backslash"),
    ],
)
def test_a_mistake_is_told_with_the_value_and_what_is_allowed(line, said):
    with pytest.raises(SettingsError, match=said):
        cell_options(line)


@pytest.mark.parametrize(
    ("line", "name"),
    [
        ("house", "house"),
        ("--rate house garden", "garden"),
        ("--certs=house garden --keep 3", "garden"),
        ("--no-swap house --rate never", "house"),
        ("--rate 3", ""),
        ("'house", "'house"),
        ("", ""),
    ],
)
def test_the_name_is_found_also_where_the_line_is_wrong_and_an_options_value_is_none(line, name):
    assert named_in(line) == name


@pytest.mark.parametrize(
    ("text", "seconds"), [("90", 90), ("90s", 90), ("1.5min", 90), ("2h", 7200), ("2d", 172800), ("1H", 3600)]
)
def test_a_time_may_be_given_in_any_unit(text, seconds):
    assert cell_options(f"house --keep {text}").keep.seconds == seconds


@given(st.text(alphabet=st.characters(codec="utf-8"), max_size=60))
def test_no_line_ends_in_anything_but_options_help_or_a_settings_error(line):
    try:
        options = cell_options(line)
    except (HelpAsked, SettingsError):
        return
    assert options.name.isidentifier()


names = st.from_regex(r"[A-Za-z][A-Za-z0-9_]{0,20}", fullmatch=True).filter(
    lambda n: n not in RESERVED_NAMES and not keyword.iskeyword(n) and not hasattr(builtins, n)
)
folders = st.text(string.ascii_letters + string.digits + "/._ ", min_size=1).filter(lambda f: f[0] != "-")


@given(name=names, rate=st.floats(0.001, 1e9), most=st.integers(1, 10**9), certs=folders)
def test_what_is_written_is_what_is_read(name, rate, most, certs):
    line = f"{name} --rate {rate!r} --max-demand {most} --certs {shlex.quote(certs)}"
    options = cell_options(line)
    assert (options.name, options.rate, options.max_demand, options.certs) == (name, rate, most, certs)
