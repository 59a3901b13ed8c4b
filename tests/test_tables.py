"""Small tables: as text, as HTML, and the time of day in them."""

from pratipad_nb.tables import Cell, clock, html_table, shown, text_table


class Broken:
    def __repr__(self):
        raise ValueError("no")


def test_columns_stand_below_each_other_and_wide_letters_count_twice():
    lines = text_table("two", ("name", "value"), [("雨", "1"), ("long", "2\n3")]).splitlines()
    assert lines == ["two", "name  value", "雨    1", "long  2 3"]


def test_html_bears_no_markup_of_the_values_and_marks_what_went_wrong():
    found = html_table("<b>", ("<i>",), [("<script>",), (Cell("✗", fault=True),)])
    assert "<script>" not in found
    assert found.count("jp-error-color1") == 1


def test_long_values_are_cut_and_one_that_can_not_be_shown_is_marked():
    assert text_table("", ("x",), [("y" * 100,)]).splitlines()[-1] == "y" * 59 + "…"
    assert shown(Broken()).fault


def test_a_time_that_no_clock_shows_is_its_number():
    assert clock(1e300) == "1e+300"
    assert clock(float("nan")) == "nan"
    assert clock(0.5).endswith(".500")
