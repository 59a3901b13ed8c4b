"""The exact text of errors, for it is what a user works with."""

import textwrap

import pytest

from pratipad_nb.notation import NotationError, Problem, Span, parse, rendered


def error_of(text: str) -> NotationError:
    with pytest.raises(NotationError) as caught:
        parse(text)
    return caught.value


def lines(text: str) -> str:
    return textwrap.dedent(text).strip("\n")


def test_a_wrong_arrow_is_shown_with_the_one_that_was_meant() -> None:
    assert str(error_of("Push -> A ~> Output")) == lines("""
        `->` is no arrow (line 1, column 6)
            Push -> A ~> Output
                 ^^
          expected: `~>` (forward only) or `<~>` (both ways)
          hint: write `~>`
    """)


def test_all_wrong_arrows_are_shown_at_once() -> None:
    assert str(error_of("Push ~> A <~\n  B → Output")) == lines("""
        `<~` is no arrow (line 1, column 11)
            Push ~> A <~
                      ^^
          expected: `~>` (forward only) or `<~>` (both ways)
          hint: write `<~>`: nothing passes back where nothing passes forward

        `→` is no arrow (line 2, column 5)
              B → Output
                ^
          expected: `~>` (forward only) or `<~>` (both ways)
          hint: write `~>`
    """)


@pytest.mark.parametrize(
    ("wrong", "meant"),
    [
        ("->", "~>"),
        ("-->", "~>"),
        ("=>", "~>"),
        ("~", "~>"),
        ("-", "~>"),
        (">", "~>"),
        ("|>", "~>"),
        ("|", "~>"),
        ("~>>", "~>"),
        ("~ >", "~>"),
        ("→", "~>"),
        ("⇒", "~>"),
        ("–>", "~>"),
        ("<~", "<~>"),
        ("<-", "<~>"),
        ("←", "<~>"),
        ("<->", "<~>"),
        ("<~~>", "<~>"),
        ("<=>", "<~>"),
        ("< ~>", "<~>"),
        ("↔", "<~>"),
        ("⇄", "<~>"),
        ("⟷", "<~>"),
    ],
)
def test_every_likely_wrong_arrow_is_recognised(wrong: str, meant: str) -> None:
    error = error_of(f"Push ~> A {wrong} B ~> Output")
    (problem,) = error.problems
    assert problem.message == f"`{wrong}` is no arrow"
    assert problem.span == (10, 10 + len(wrong))
    assert problem.hint.startswith(f"write `{meant}`")


def test_pull_with_one_way_hops_shows_each_of_them() -> None:
    assert str(error_of("Pull <~> A ~> B ~> Output")) == lines("""
        Pull needs `<~>` on every hop, since the request travels back along the flow (line 1, column 12)
            Pull <~> A ~> B ~> Output
                       ^^
          hint: write `<~>`

        Pull needs `<~>` on every hop, since the request travels back along the flow (line 1, column 17)
            Pull <~> A ~> B ~> Output
                            ^^
          hint: write `<~>`
    """)


def test_a_missing_output_is_shown_behind_the_last_word() -> None:
    assert str(error_of("Push ~> A  # and then?\n")) == lines("""
        the dataflow ends without Output (line 1, column 10)
            Push ~> A  # and then?
                     ^
          expected: `~>` (forward only) or `<~>` (both ways) and `Output`
    """)


def test_an_empty_notation_gets_an_example() -> None:
    assert str(error_of(" \n")) == lines("""
        the notation is empty (line 1, column 1)
          hint: for example: Push ~> MyProcessor ~> Output
    """)


def test_words_in_lower_case_are_recognised_both_at_once() -> None:
    assert str(error_of("push ~> A ~> output")) == lines("""
        `push` is no input (line 1, column 1)
            push ~> A ~> output
            ^^^^
          expected: Push, Pull or Demand
          hint: write `Push`

        a dataflow ends with Output, not with `output` (line 1, column 14)
            push ~> A ~> output
                         ^^^^^^
          expected: `Output`
          hint: write `Output`
    """)


def test_a_positional_argument_is_shown_with_how_to_name_it() -> None:
    assert str(error_of("Push ~> Scale(-1.8) ~> Output")) == lines("""
        arguments are given by name (line 1, column 15)
            Push ~> Scale(-1.8) ~> Output
                          ^^^^
          expected: a name, `=` and a literal
          hint: write NAME=-1.8
    """)


def test_a_value_that_is_no_literal_is_shown_with_what_is_one() -> None:
    assert str(error_of("Push ~> Scale(factor=math.pi) ~> Output")) == lines("""
        `math` is no literal (line 1, column 22)
            Push ~> Scale(factor=math.pi) ~> Output
                                 ^^^^
          expected: a literal: a number, a string, True, False, None, or a list, tuple, dict or set of these
    """)


@pytest.mark.parametrize(
    ("text", "marked", "message"),
    [
        ("A ~> Output", "A", "a dataflow starts with its input, not with `A`"),
        ("~> A ~> Output", "~>", "a dataflow starts with its input, not with `~>`"),
        ("Push ~> Output", "Output", "there is no processor between Push and Output"),
        ("Push ~> A ~> ~> Output", "~>", "there is no processor between two arrows"),
        ("Push ~> Output ~> A", "Output", "`Output` ends a dataflow, and `~>` comes after it"),
        ("Push ~> Push ~> Output", "Push", "`Push` starts a dataflow and can't be a processor"),
        ("Push ~> [A, Output]", "Output", "`Output` ends a dataflow and can't be a processor"),
        ("Push ~> class ~> Output", "class", "`class` is a word of Python and can't be a processor"),
        ("Push ~> A B ~> Output", "B", "there is no arrow before `B`"),
        ("Push ~> A, B ~> Output", ",", "`,` can't stand outside brackets"),
        ("Push ~> A] ~> Output", "]", "`]` closes nothing"),
        ("Push ~> (A, B) ~> Output", "(", "a stage doesn't stand in parentheses"),
        ("Push ~> [A, B ~> Output", "[", "`[` is never closed"),
        ("Push ~> {A, B ~> [C] ~> Output", "{", "`{` is never closed"),
        ("Push ~> [A -> B] ~> Output", "->", "an arrow can't stand inside brackets"),
        ("Push ~> [A, B} ~> Output", "}", "`[` is closed by `}`"),
        ("Push ~> { } ~> Output", "{ }", "`{}` holds no processor"),
        ("Push ~> [A, {B}] ~> Output", "{", "brackets of stages can't be nested"),
        ("Push ~> [A, , B] ~> Output", ",", "there is no processor before this comma"),
        ("Push ~> A(x=1 ~> Output", "(", "`(` is never closed"),
        ("Push ~> A(x=[1) ~> Output", ")", "`)` can't stand here"),
        ("Push ~> A(x=[1 ~> Output", "[", "`[` is never closed"),
        ("Push ~> A(x=1, x=2) ~> Output", "x", "argument `x` is given twice"),
        ("Push ~> A(x=) ~> Output", "x", "argument `x` has no value"),
        ("Push ~> A(x) ~> Output", "x", "arguments are given by name"),
        ("Push ~> A(if=1) ~> Output", "if", "`if` is a word of Python and can't name an argument"),
        ("Push ~> A(x='a) ~> Output", "'a) ~> Output", "the string `'a) ~> Output` is never closed"),
        ("Push ~> A(x='\\d') ~> Output", "\\d", "`\\d` is no escape of a Python string"),
        ("Push ~> A(x={[1]: 2}) ~> Output", "[1]", "a list can't be a key of a dict"),
        (
            "Push ~> A(x=1e999) ~> Output",
            "1e999",
            "`1e999` is no number that Python takes: a float can't be infinite or nan",
        ),
        ("Push ~> A ~> \\\n Output", "\\", "`\\` (U+005C, REVERSE SOLIDUS) means nothing in a notation"),
    ],
)
def test_a_mistake_is_named_and_marked(text: str, marked: str, message: str) -> None:
    error = error_of(text)
    assert error.message == message
    assert text[slice(*error.span)] == marked


def test_carets_stay_below_after_tabs_and_wide_characters() -> None:
    shown = str(error_of("\tPush\t~> 漢字 -> Output")).splitlines()
    assert shown[1:3] == ["    \tPush\t~> 漢字 -> Output", "    \t    \t        ^^"]


def test_what_a_terminal_would_obey_is_not_shown() -> None:
    shown = str(error_of("Push ~> \x1b[31m\u202e ~> Output"))
    assert "\x1b" not in shown
    assert "\u202e" not in shown


def test_a_long_line_is_cut_around_the_carets() -> None:
    text = "Push ~> " + "A ~> " * 100 + "B -> " + "A ~> " * 100 + "Output"
    shown = str(error_of(text)).splitlines()
    assert len(shown[1]) <= 110
    at = shown[2].index("^")
    assert shown[1][at : at + 2] == "->"


def test_of_a_thousand_problems_ten_are_shown() -> None:
    shown = str(error_of("Push " + "-> A " * 1000 + "~> Output"))
    assert shown.count("is no arrow") == 10
    assert shown.endswith("… and 990 more")


def test_line_and_column_count_every_kind_of_line_break() -> None:
    error = error_of("Push\r\n~> A\r~> B\n  ~> 5 ~> Output")
    assert (error.line, error.column) == (4, 6)


def test_ipython_is_given_coloured_lines_and_no_frames() -> None:
    error = error_of("Push -> A ~> Output")
    shown = error._render_traceback_()
    assert all("\n" not in line for line in shown)
    assert shown[0] == "\x1b[1;31mNotationError\x1b[0m: \x1b[1m`->` is no arrow\x1b[0m (line 1, column 6)"
    assert shown[2] == "         \x1b[1;31m^^\x1b[0m"


def test_a_problem_can_be_shown_without_being_raised() -> None:
    assert rendered("Push ~> A", Problem("look", Span(8, 9))) == lines("""
        look (line 1, column 9)
            Push ~> A
                    ^
    """)


def test_problems_are_shown_in_the_order_of_the_text() -> None:
    error = NotationError("a b", [Problem("second", Span(2, 3)), Problem("first", Span(0, 1))])
    assert (error.message, error.column) == ("first", 1)
