"""The table of subjects: what is built can be parsed, and nothing else."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pratipad_nb.errors import FrameError, SettingsError
from pratipad_nb.settings import NAME_PATTERN, RESERVED_NAMES
from pratipad_nb.transport.subjects import Subjects

names = st.from_regex(NAME_PATTERN, fullmatch=True).filter(lambda n: n not in RESERVED_NAMES)
HOUSE = Subjects("house")


@pytest.mark.parametrize(
    ("built", "subject"),
    [
        (HOUSE.up("room1"), "pratipad.house.up.room1"),
        (HOUSE.out(0), "pratipad.house.out.0"),
        (HOUSE.order("cloud"), "pratipad.house.order.cloud"),
        (HOUSE.edge_order, "pratipad.house.reply"),
        (HOUSE.former_order, "pratipad.house.order"),
        (HOUSE.down("room1"), "pratipad.house.down.room1"),
        (HOUSE.plain("room1"), "pratipad.house.plain.room1"),
        (HOUSE.credit("room1"), "pratipad.house.credit.room1"),
        (HOUSE.credit_all, "pratipad.house.credit._all"),
        (HOUSE.hello("room1"), "pratipad.house.hello.room1"),
        (HOUSE.mark("room1"), "pratipad.house.mark.room1"),
        (HOUSE.read("cloud"), "pratipad.house.read.cloud"),
        (HOUSE.dead("P1#2"), "pratipad.house.dead.P1#2"),
        (HOUSE.dead("a.b c"), "pratipad.house.dead.a%2Eb%20c"),
        (HOUSE.stats, "pratipad.house.stats"),
        (HOUSE.control("cloud"), "pratipad.house.control.cloud"),
    ],
)
def test_every_subject_is_as_the_table_says(built: str, subject: str) -> None:
    assert built == subject


@given(flow=names, device=names)
def test_a_device_is_found_again_in_each_of_its_subjects(flow: str, device: str) -> None:
    subjects = Subjects(flow)
    for build in (subjects.up, subjects.down, subjects.plain, subjects.credit, subjects.hello, subjects.mark):
        assert subjects.device_of(build(device)) == device
    for build in (subjects.read, subjects.order, subjects.control):
        assert subjects.reader_of(build(device)) == device
    for other in (subjects.edge_order, subjects.former_order, subjects.control_all):
        with pytest.raises(FrameError):
            subjects.reader_of(other)


@given(reader=names, tenant=names)
def test_a_reader_of_another_tenant_is_found_again_in_each_of_its_subjects(reader: str, tenant: str) -> None:
    for build in (HOUSE.read, HOUSE.order, HOUSE.control):
        assert HOUSE.reader_of(build(f"{reader}@{tenant}")) == f"{reader}@{tenant}"


@given(key=st.text(min_size=1))
def test_any_processor_key_makes_one_token_and_is_found_again(key: str) -> None:
    if any(0xD800 <= ord(c) <= 0xDFFF for c in key):
        return
    subject = HOUSE.dead(key)
    assert subject.isascii()
    assert len(subject.split(".")) == 4
    assert not set(subject) & set(" *>\t\r\n\0")
    assert HOUSE.processor_of(subject) == key


@given(partition=st.integers(min_value=0))
def test_a_partition_is_found_again(partition: int) -> None:
    assert HOUSE.partition_of(HOUSE.out(partition)) == partition


@given(subject=st.text())
def test_any_text_is_a_subject_of_ours_or_a_frame_error(subject: str) -> None:
    for parse in (HOUSE.device_of, HOUSE.reader_of, HOUSE.processor_of, HOUSE.partition_of):
        with pytest.raises(FrameError):
            parse(subject)


@pytest.mark.parametrize(
    "subject",
    [
        "pratipad.garden.up.room1",
        "pratipad.house.stats.room1",
        "pratipad.house.up",
        "pratipad.house.up.room1.more",
        "pratipad.house.up.",
        "pratipad.house.up.1room",
        "pratipad.house.credit._all",
        "other.house.up.room1",
    ],
)
def test_a_subject_that_names_no_device_of_the_flow_says_what_was_expected(subject: str) -> None:
    with pytest.raises(FrameError, match=r"no device|expected pratipad\.house\.up\.NAME"):
        HOUSE.device_of(subject)


@pytest.mark.parametrize(
    "name", ["", "a.b", "*", ">", "_all", "Output", "a b", "@", "@b", "a@b.c", "a@*", "a@b@c", "a@@"]
)
def test_a_name_that_would_reach_beyond_its_token_is_refused(name: str) -> None:
    with pytest.raises(SettingsError):
        Subjects(name)
    for build in (
        HOUSE.up,
        HOUSE.down,
        HOUSE.plain,
        HOUSE.credit,
        HOUSE.hello,
        HOUSE.mark,
        HOUSE.read,
        HOUSE.order,
        HOUSE.control,
    ):
        with pytest.raises(SettingsError):
            build(name)


@pytest.mark.parametrize("partition", [-1, True, 1.0, "1"])
def test_a_partition_is_a_whole_number(partition: object) -> None:
    with pytest.raises(SettingsError, match="can't be a partition"):
        HOUSE.out(partition)  # type: ignore[arg-type]


def test_every_stream_stores_subjects_of_its_own() -> None:
    assert set(HOUSE.streams) == {"UP_house", "OUT_house", "ORDER_house", "MARK_house", "DEAD_house"}
    stored = [subject for subjects in HOUSE.streams.values() for subject in subjects]
    assert len(stored) == len(set(stored)) == 6
