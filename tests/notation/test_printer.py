"""The canonical notation: it parses to an equal tree, and equal trees print alike."""

import keyword
import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pratipad_nb.notation import Argument, Processor, Stage, Tree, parse
from pratipad_nb.notation.printer import MAX_NESTING, literal_text

WORDS = {"Push", "Pull", "Demand", "Output"}

identifiers = st.one_of(
    st.from_regex(r"[A-Za-z_][A-Za-z0-9_]{0,8}", fullmatch=True),
    st.sampled_from(["été", "温度", "set", "r", "b", "output", "push"]),
).filter(lambda name: not keyword.iskeyword(name) and name not in WORDS)
atoms = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(allow_nan=False, allow_infinity=False),
    st.text(),
    st.text(alphabet="'\"\\\n#~><", max_size=8),
    st.binary(max_size=8),
)
hashables = st.recursive(atoms, lambda inner: st.lists(inner, max_size=3).map(tuple), max_leaves=4)
values = st.recursive(
    st.one_of(atoms, st.sets(hashables, max_size=4)),
    lambda inner: st.one_of(
        st.lists(inner, max_size=4),
        st.lists(inner, max_size=4).map(tuple),
        st.dictionaries(hashables, inner, max_size=4),
    ),
    max_leaves=12,
)


@st.composite
def processors(draw: st.DrawFn) -> Processor:
    name = ".".join(draw(st.lists(identifiers, min_size=1, max_size=3)))
    given_arguments = draw(st.dictionaries(identifiers, values, max_size=3))
    return Processor(name, tuple(Argument.of(key, value) for key, value in given_arguments.items()))


stages = st.one_of(
    processors().map(lambda processor: Stage("single", (processor,))),
    st.builds(
        Stage,
        st.sampled_from(["sequential", "concurrent"]),
        st.lists(processors(), min_size=1, max_size=3).map(tuple),
    ),
)


@st.composite
def trees(draw: st.DrawFn) -> Tree:
    found = draw(st.lists(stages, min_size=1, max_size=4))
    source = draw(st.sampled_from(["Push", "Pull", "Demand"]))
    hop = st.just("<~>") if source == "Pull" else st.sampled_from(["~>", "<~>"])
    return Tree(source, tuple(found), tuple(draw(hop) for _ in range(len(found) + 1)))  # type: ignore[arg-type]


@given(trees())
@settings(max_examples=100, deadline=None)
def test_printing_and_parsing_again_gives_an_equal_tree(tree: Tree) -> None:
    again = parse(str(tree))
    assert again == tree
    assert hash(again) == hash(tree)
    assert str(again) == str(tree)


@given(values)
@settings(max_examples=60, deadline=None)
def test_an_argument_gives_back_the_value_it_was_made_of(value: object) -> None:
    again = Argument.of("x", value).value
    assert again == value
    assert literal_text(again) == literal_text(value)


def test_one_meaning_has_one_spelling() -> None:
    text = "Push<~>A( x = 0x10,y=\"a\",z={'b','a'} , )~>[B,]~>Output"
    assert str(parse(text)) == "Push <~> A(x=16, y='a', z={'a', 'b'}) ~> [B] ~> Output"


def test_spans_and_source_do_not_count_for_equality() -> None:
    assert parse("Push ~> A(x=1) ~> Output") == parse("Push~>\n\nA(x=0x1)~>Output # the same")


def test_one_and_true_are_equal_in_python_and_differ_in_a_tree() -> None:
    assert parse("Push ~> A(x=1) ~> Output") != parse("Push ~> A(x=True) ~> Output")


@pytest.mark.parametrize(
    "value", [math.inf, -math.inf, math.nan, [math.inf], 1j, ..., object(), frozenset(), [2**20_000]]
)
def test_what_no_literal_says_makes_no_argument(value: object) -> None:
    with pytest.raises(ValueError):
        Argument.of("x", value)


def test_nesting_is_bounded_alike_for_the_parser_and_the_printer() -> None:
    nested: object = 1
    for _ in range(MAX_NESTING):
        nested = [nested]
    text = literal_text(nested)
    assert parse(f"Push ~> A(x={text}) ~> Output").stages[0].processors[0].arguments["x"] == nested
    with pytest.raises(ValueError, match="deeper than 20"):
        literal_text([nested])
