"""Back-off: pauses that grow to a bound, each of its own length."""

from __future__ import annotations

import ast
import itertools
from pathlib import Path

import pytest

import pratipad_nb
from pratipad_nb.backoff import Backoff


def test_every_pause_is_twice_as_long_as_the_last_until_the_longest_and_half_of_it_is_random():
    backoff = Backoff(0.1, 1.0)
    for whole in [0.1, 0.2, 0.4, 0.8, 1.0, 1.0, 1.0]:
        assert whole / 2 <= backoff.next() <= whole


def test_two_that_begin_at_the_same_time_do_not_wait_in_step():
    one, other = Backoff(1.0, 1.0), Backoff(1.0, 1.0)
    assert [one.next() for _ in range(5)] != [other.next() for _ in range(5)]


def test_after_a_success_it_begins_with_the_first_pause_again():
    backoff = Backoff(0.1, 100.0)
    for _ in range(8):
        backoff.next()
    backoff.reset()
    assert backoff.next() <= 0.1


@pytest.mark.parametrize("tries", [10_000])
def test_it_goes_on_for_as_long_as_is_tried(tries):
    backoff = Backoff(0.01, 1.0)
    assert all(0 < pause <= 1.0 for pause in itertools.islice(iter(backoff.next, None), tries))


def names(tree):
    """The names in a piece of code: variables, and attributes by their own name; not `self`."""
    return {
        node.id if isinstance(node, ast.Name) else node.attr
        for node in ast.walk(tree)
        if isinstance(node, (ast.Name, ast.Attribute))
    } - {"self"}


def multiplied_and_slept(source):
    """The names that a module gives a multiple of what they were, and sleeps for."""
    grown, slept = set(), set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Call) and names(node.func) & {"sleep", "timeout"}:
            slept |= {name for argument in node.args for name in names(argument)}
        if isinstance(node, ast.AugAssign) and isinstance(node.op, ast.Mult):
            grown |= names(node.target)
        if isinstance(node, ast.Assign) and any(
            isinstance(part, ast.BinOp) and isinstance(part.op, ast.Mult) for part in ast.walk(node.value)
        ):
            grown |= {n for target in node.targets for n in names(target)} & names(node.value)
    return grown & slept


def test_a_pause_that_grows_by_hand_is_found():
    assert multiplied_and_slept("pause = min(1.0, pause * 2)\nasyncio.sleep(pause)") == {"pause"}
    assert multiplied_and_slept("self._wait *= 2\nasyncio.sleep(self._wait + 1)") == {"_wait"}
    assert multiplied_and_slept("pause = backoff.next() * 2\nasyncio.sleep(pause)") == set()


def test_no_other_module_lets_a_pause_grow():
    folder = Path(pratipad_nb.__file__).parent
    found = {
        str(path.relative_to(folder)): multiplied_and_slept(path.read_text()) for path in folder.rglob("*.py")
    }
    assert {path: grown for path, grown in found.items() if grown} == {}
