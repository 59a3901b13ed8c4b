"""How a text is cut: nothing is lost, and what is no token has a kind of its own."""

from hypothesis import given
from hypothesis import strategies as st

from pratipad_nb.notation.tokens import Kind, tokens


def cut(text: str) -> list[tuple[str, str]]:
    return [(token.kind.value, token.text) for token in tokens(text)][:-1]


def test_a_hash_in_a_string_is_no_comment() -> None:
    assert cut("'#' # '") == [("string", "'#'")]


def test_an_arrow_that_runs_on_is_a_lookalike() -> None:
    assert cut("~> <~> ~>> <~~>") == [
        ("arrow", "~>"),
        ("arrow", "<~>"),
        ("lookalike", "~>>"),
        ("lookalike", "<~~>"),
    ]


def test_the_equals_sign_and_the_minus_of_an_argument_make_no_arrow() -> None:
    assert cut("x=-1") == [("name", "x"), ("mark", "="), ("mark", "-"), ("number", "1")]


def test_a_prefix_belongs_to_its_string_and_a_word_does_not() -> None:
    assert cut("rb'' f''") == [("string", "rb''"), ("name", "f"), ("string", "''")]


def test_an_unclosed_string_ends_with_its_line_and_a_triple_one_with_the_text() -> None:
    assert cut("'a\nb") == [("unclosed string", "'a"), ("name", "b")]
    assert cut("'''a\nb") == [("unclosed string", "'''a\nb")]


@given(st.one_of(st.text(), st.text(alphabet="ab1.'\"\\#<~>-= \n\r", max_size=40)))
def test_tokens_stand_in_order_and_between_them_is_only_space_and_comment(text: str) -> None:
    at = 0
    for token in tokens(text):
        assert token.span.start >= at
        between = text[at : token.span.start]
        assert all(not line or line.startswith("#") for line in map(str.strip, between.splitlines()))
        at = token.span.end
    assert token.kind is Kind.END
