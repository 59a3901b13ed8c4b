"""Time-outs that grow with what the machine has to do."""

import patience
import pytest


def test_no_machine_needs_less_patience_than_a_quiet_machine_and_none_gets_more_than_tenfold():
    assert 1.0 <= patience.factor() <= 10.0


@pytest.mark.timeout(77)
def test_a_time_out_that_a_test_names_grows_by_the_factor(request):
    assert request.node.get_closest_marker("timeout").args == (77 * patience.factor(),)


def test_the_usual_time_out_grows_by_the_factor(request):
    usual = float(request.config.getini("timeout"))
    assert request.node.get_closest_marker("timeout").args == (usual * patience.factor(),)


def test_a_condition_that_never_holds_is_named(until):
    with pytest.raises(AssertionError, match=r"not so within 0 s: until\(lambda: 1 > 2, seconds=0\)"):
        until(lambda: 1 > 2, seconds=0)


async def test_a_condition_may_be_a_coroutine_function():
    asked = []

    async def at_the_third_asking():
        asked.append(True)
        return len(asked) == 3

    await patience.eventually(at_the_third_asking)
    assert len(asked) == 3
