"""Which edge runs which partition: every one has an owner, the shares are even, and little moves."""

from hypothesis import given
from hypothesis import strategies as st

from pratipad_nb.runtime.sharing.membership import LOST_SECONDS, Membership, assign
from pratipad_nb.transport.frames import HeartbeatFrame
from pratipad_nb.transport.origin import Origin

edges = st.dictionaries(
    st.sampled_from("abcdefgh"),
    st.tuples(st.floats(0, 10), st.frozensets(st.integers(0, 15))),
    min_size=1,
)


@given(edges, st.integers(1, 16))
def test_every_partition_has_one_owner_and_the_shares_differ_by_one_at_most(members, partitions):
    plan = assign(members, partitions)
    assert sorted(plan) == list(range(partitions))
    shares = [list(plan.values()).count(edge) for edge in members]
    assert max(shares) - min(shares) <= 1


@given(edges, st.integers(1, 16))
def test_a_plan_that_is_carried_out_stays_as_it_is(members, partitions):
    plan = assign(members, partitions)
    settled = {
        edge: (since, frozenset(p for p, owner in plan.items() if owner == edge))
        for edge, (since, _) in members.items()
    }
    assert assign(settled, partitions) == plan


def test_an_edge_that_comes_takes_only_its_share():
    owned = {"old": (1.0, frozenset(range(8))), "new": (2.0, frozenset())}
    plan = assign(owned, 8)
    assert [p for p in range(8) if plan[p] == "old"] == [0, 1, 2, 3]


def test_partitions_of_an_edge_that_is_gone_go_to_the_others_and_theirs_stay():
    owned = {"a": (1.0, frozenset({0, 1})), "b": (2.0, frozenset({4, 5}))}
    plan = assign(owned, 6)
    assert [plan[p] for p in (0, 1)] == ["a", "a"]
    assert [plan[p] for p in (4, 5)] == ["b", "b"]
    assert sorted(plan[p] for p in (2, 3)) == ["a", "b"]


def origin(edge, since=0.0):
    return Origin(edge, "host", 1, since)


def heard(membership, edge, owned, since=0.0, **more):
    return membership.hear(HeartbeatFrame(origin(edge, since), list(owned), **more))


def test_what_another_still_runs_is_not_begun_before_it_is_given_up():
    here = Membership(origin("new"), 4)
    heard(here, "old", range(4))
    assert here.plan(frozenset()) == (frozenset(), frozenset())
    heard(here, "old", [0, 1])
    assert here.plan(frozenset()) == (frozenset({2, 3}), frozenset())


def test_an_edge_gives_up_what_falls_to_another():
    here = Membership(origin("old"), 4)
    assert here.plan(frozenset()) == (frozenset(range(4)), frozenset())
    heard(here, "new", [], since=1.0)
    assert here.plan(frozenset(range(4))) == (frozenset(), frozenset({2, 3}))


def test_an_edge_that_falls_silent_or_leaves_is_no_longer_counted():
    now = 0.0
    here = Membership(origin("here"), 2, lambda: now)
    heard(here, "silent", [0])
    now = LOST_SECONDS - 0.1
    assert "silent" in here.others()
    now += 0.2
    assert here.plan(frozenset({1})) == (frozenset({0}), frozenset())
    heard(here, "leaver", [0])
    heard(here, "leaver", [], leaving=True)
    assert here.others() == {}


def test_its_own_beats_and_those_that_say_nothing_new_are_no_news():
    here = Membership(origin("here"), 2)
    assert not heard(here, "here", [0])
    assert heard(here, "other", [0])
    assert not heard(here, "other", [0])
    assert heard(here, "other", [0, 1])


def test_an_edge_that_fails_or_falls_silent_is_remembered_for_an_hour_and_until_it_is_heard_again():
    now = 0.0
    here = Membership(origin("here"), 2, lambda: now)
    heard(here, "left", [0])
    heard(here, "left", [], leaving=True)
    heard(here, "failed", [], leaving=True, error="the disk is full")
    heard(here, "silent", [0])
    now = LOST_SECONDS + 0.1
    assert [(gone.edge.id, gone.error.partition(":")[0]) for gone in here.gone()] == [
        ("failed", "the disk is full"),
        ("silent", "has sent no heartbeat for 2.5 s"),
    ]
    heard(here, "silent", [0])
    assert [gone.edge.id for gone in here.gone()] == ["failed"]
    now = 3601.0
    assert [gone.edge.id for gone in here.gone()] == ["silent"]
    for number in range(40):
        heard(here, f"failed{number}", [], leaving=True, error="x")
    assert len(here.gone()) == 16


def test_partitions_that_the_flow_does_not_have_count_for_no_edge():
    here = Membership(origin("here"), 4)
    heard(here, "other", [-3, -2, -1, 0, 4, 10**12])
    assert here.others() == {"other": frozenset({0})}
    assert here.plan(frozenset({1, 2, 3})) == (frozenset(), frozenset({3}))
