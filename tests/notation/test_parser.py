"""What the notation takes, what it refuses, and that it never does anything else."""

import pickle

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from pratipad_nb.errors import PratipadError
from pratipad_nb.notation import MAX_LENGTH, NotationError, Tree, parse


def stages(text: str) -> list[tuple[str, list[str]]]:
    return [(stage.kind, [processor.name for processor in stage.processors]) for stage in parse(text).stages]


def arguments(text: str) -> dict[str, object]:
    return parse(f"Push ~> P({text}) ~> Output").stages[0].processors[0].arguments


def test_one_processor_is_a_single_stage() -> None:
    tree = parse("Push <~> Celsius <~> Output")
    assert (tree.input, tree.hops) == ("Push", ("<~>", "<~>"))
    assert stages("Push <~> Celsius <~> Output") == [("single", ["Celsius"])]


def test_square_brackets_are_sequential_and_braces_concurrent() -> None:
    assert stages("Push ~> A ~> [B, C] ~> {D, E} ~> Output") == [
        ("single", ["A"]),
        ("sequential", ["B", "C"]),
        ("concurrent", ["D", "E"]),
    ]


def test_there_is_a_hop_for_every_arrow_and_its_span_holds_the_arrow() -> None:
    text = "Demand <~> A ~> [B] <~> Output"
    tree = parse(text)
    assert tree.hops == ("<~>", "~>", "<~>")
    assert tuple(text[start:end] for start, end in tree.hop_spans) == tree.hops


def test_spans_hold_what_they_name() -> None:
    text = "Push ~> [ a . b , C(x = 1) ] ~> Output"
    (stage,) = parse(text).stages
    assert text[slice(*stage.span)] == "[ a . b , C(x = 1) ]"
    assert [text[slice(*processor.span)] for processor in stage.processors] == ["a . b", "C(x = 1)"]
    assert text[slice(*stage.processors[1].name_span)] == "C"
    assert text[slice(*stage.processors[1].written[0].span)] == "x = 1"


def test_line_breaks_comments_and_white_space_are_free() -> None:
    text = "Push # from devices\r\n\t~> A\r  ~> [B,\n# and then\n C]~>Output # done"
    assert str(parse(text)) == "Push ~> A ~> [B, C] ~> Output"


def test_arrows_need_no_space_around_them() -> None:
    assert str(parse("Push<~>A~>{B,C}~>Output")) == "Push <~> A ~> {B, C} ~> Output"


def test_a_trailing_comma_is_taken_and_not_printed() -> None:
    assert str(parse("Push ~> [A, B(x=(1,),),] ~> Output")) == "Push ~> [A, B(x=(1,))] ~> Output"


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1", 1),
        ("-1.5e-3", -0.0015),
        ("+ 2", 2),
        ("0x_ff", 255),
        ("1_000", 1000),
        (".5", 0.5),
        ("True", True),
        ("None", None),
        ("'it''s'", "its"),
        ("'# ~> ) ] \"'", '# ~> ) ] "'),
        (r"'\'\\\n\u00e9'", "'\\\né"),
        (r"r'\d'", r"\d"),
        ("'''a\n'b\n'''", "a\n'b\n"),
        ("b'\\xff'", b"\xff"),
        ("(1)", 1),
        ("(1,)", (1,)),
        ("()", ()),
        ("[1, [2, {'a': (3,)}],]", [1, [2, {"a": (3,)}]]),
        ("{}", {}),
        ("{1, 2}", {1, 2}),
        ("set()", set()),
        ("[1, # one\n 2]", [1, 2]),
        ("{'a': -1, 'b': {None: ''}}", {"a": -1, "b": {None: ""}}),
    ],
)
def test_an_argument_is_a_python_literal(text: str, value: object) -> None:
    got = arguments(f"x={text}")["x"]
    assert got == value
    assert type(got) is type(value)


def test_arguments_keep_their_order_and_are_made_afresh_each_time() -> None:
    processor = parse("Push ~> P(b=[1], a=2) ~> Output").stages[0].processors[0]
    assert list(processor.arguments) == ["b", "a"]
    processor.arguments["b"].append(2)
    assert processor.arguments["b"] == [1]


def test_names_are_those_of_python_in_every_script() -> None:
    # The second one is written with a vowel sign that is no letter, the third with a ligature that
    # Python normalises.
    assert stages("Push ~> [é.Größe, हिन्दी, ﬁlter] ~> Output") == [
        ("sequential", ["é.Größe", "हिन्दी", "filter"])
    ]


def test_words_of_the_notation_are_reserved_in_their_spelling_alone() -> None:
    assert stages("Push ~> output ~> pull ~> Output") == [("single", ["output"]), ("single", ["pull"])]


def test_the_error_is_one_of_the_package_and_can_be_pickled() -> None:
    with pytest.raises(PratipadError) as caught:
        parse("Push -> A ~> Output")
    copy = pickle.loads(pickle.dumps(caught.value))
    assert (str(copy), copy.span, copy.text) == (str(caught.value), (5, 7), "Push -> A ~> Output")


def test_what_is_no_text_is_refused() -> None:
    with pytest.raises(NotationError, match="a notation is text, and this is an int"):
        parse(5)  # type: ignore[arg-type]


def test_the_length_is_bounded() -> None:
    parse("Push ~> A ~> Output" + " " * (MAX_LENGTH - 19))
    with pytest.raises(NotationError, match="100,000 characters at most; this one has 100,001"):
        parse("Push ~> A ~> Output" + " " * (MAX_LENGTH - 18))


def test_what_would_print_longer_than_the_bound_is_refused_for_it_could_not_be_parsed_again() -> None:
    text = "Push ~> A(x=[" + "1," * 49_000 + "]) ~> Output"
    with pytest.raises(NotationError, match="written in full"):
        parse(text)


@pytest.mark.parametrize(
    "character", ["[", "(", "{", "-", "A~>", "~>", "'", '"', "\\", "#", "1", "A,", "a=", "{1:"]
)
@pytest.mark.parametrize("head", ["Push ~> ", "Push ~> A(x="])
def test_a_hostile_repetition_is_refused_at_once(head: str, character: str) -> None:
    text = (head + character * MAX_LENGTH)[:MAX_LENGTH]
    with pytest.raises(NotationError) as caught:
        parse(text)
    assert len(str(caught.value)) < 10_000


# What notations are made of, right and wrong, so that random texts get far into the grammar.
WORDS = r"""
Push Pull Demand Output output A b.c f(x=1) f( [ ] { } ( ) , . = : ~> <~> -> <~ <~~> ~ - → ↔ 'a' " '''
# 1 -1.5 1e999 0x 007 1_ 1j True None set set( class \ \d … ﬁ x=[1,{2:(3,)}]
"""
pieces = st.sampled_from([*WORDS.split(), "\n", "\r\n", "\r", "\t", " ", "\ud800", "\x00"])
texts = st.one_of(
    st.text(),
    st.lists(pieces, max_size=30).map(" ".join),
    st.lists(pieces, max_size=30).map("".join),
    st.lists(pieces, max_size=12).map(lambda found: "Push ~> P(x=" + "".join(found) + ") ~> Output"),
    st.text(alphabet="PushOtp~<>[]{}(),=.'\"\\#-1e \n", max_size=60),
    st.text(max_size=20).map(lambda found: f"Push ~> P(x='{found}') ~> Output"),
)


@given(texts)
@settings(max_examples=300, deadline=None)
@example("Push ~> P(x='\ud800') ~> Output")
@example("Push ~> P(x='\x00') ~> Output")
@example('Push ~> P(x="\\400") ~> Output')
@example("Push ~> P(x=b'\\N{DASH}') ~> Output")
@example("Push ~> P(x=" + "9" * 5000 + ") ~> Output")
@example("Push ~> P(x=0x" + "f" * 5000 + ") ~> Output")
@example("Push ~> P(ﷺ=1,ﷺ=1)")
def test_any_text_gives_a_tree_or_an_error_whose_position_lies_in_the_text(text: str) -> None:
    try:
        tree = parse(text)
    except NotationError as error:
        check_position(error, text)
    else:
        assert isinstance(tree, Tree)
        assert parse(str(tree)) == tree


def check_position(error: NotationError, text: str) -> None:
    for problem in error.problems:
        assert 0 <= problem.span.start <= problem.span.end <= len(text)
    lines = text.replace("\r\n", "\n").replace("\r", "\n").split("\n")
    assert 1 <= error.line <= len(lines)
    assert 1 <= error.column <= len(lines[error.line - 1]) + 1
    assert error.message in str(error)
    assert str(error).encode()
    assert error._render_traceback_()
