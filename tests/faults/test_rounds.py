"""The hunt of `rounds.py`: short rounds find nothing, a seed repeats its schedule, clocks can be set."""

import subprocess
import sys
import time
from itertools import islice
from pathlib import Path

import pytest
from patience import until

sys.path.append(str(Path(__file__).parent))
from hosts import Hosts
from programs import Process, Program
from schedule import KINDS, SHORT, Fault, schedule

ROUNDS = Path(__file__).with_name("rounds.py")
#: With this seed five short rounds have eight faults, of seven kinds, and the server and both edges
#: suffer.
SEED = 7786
FAULTS = ("kill", "stop", "freeze", "clock", "swap", "concurrency", "rewind", "mend")
LONGEST = 0.5


@pytest.mark.timeout(180)
def test_short_rounds_of_many_kinds_of_faults_find_nothing():
    planned = [fault for faults in islice(schedule(SEED, FAULTS, LONGEST), 5) for fault in faults]
    assert len({fault.kind for fault in planned}) >= 7
    assert {"server", "edge1", "edge2"} <= {fault.target for fault in planned}
    command = [sys.executable, str(ROUNDS), "--rounds", "5", "--seed", str(SEED)]
    with subprocess.Popen(
        [*command, "--faults", ",".join(FAULTS), "--longest", str(LONGEST)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as hunt:
        try:
            out, err = hunt.communicate()
        finally:
            hunt.terminate()
    assert hunt.returncode == 0, out + err
    assert out.startswith(f"seed {SEED}: 5 rounds")
    assert "lost 0, doubled 0, reordered 0, wrong states 0, orders lost 0" in out


def test_a_seed_makes_the_same_schedule_again_and_fewer_rounds_are_its_beginning():
    first, again = (list(islice(schedule(7, tuple(KINDS), 6.0), rounds)) for rounds in (50, 20))
    assert first[:20] == again
    assert first != list(islice(schedule(8, tuple(KINDS), 6.0), 50))


def test_a_schedule_has_every_kind_of_fault_at_every_target_and_pairs():
    rounds = list(islice(schedule(7, tuple(KINDS), 6.0), 1000))
    assert {(f.kind, f.target) for faults in rounds for f in faults} == {
        (kind.name, target) for kind in KINDS.values() for target in kind.targets
    }
    pairs = [faults for faults in rounds if len(faults) == 2]
    assert {(first.kind, second.kind) for first, second in pairs} > {("kill", "swap"), ("kill", "full")}
    assert all(first.target != second.target for first, second in pairs if first.kind == second.kind)


def test_two_faults_of_a_round_do_not_both_end_the_same_process():
    for faults in islice(schedule(7, SHORT, 6.0), 1000):
        ended = [fault.target for fault in faults if KINDS[fault.kind].ends]
        assert len(ended) == len(set(ended))


def test_a_fault_says_what_happens_when_and_for_how_long():
    assert str(Fault("kill", "edge1", 0.5, 1.25)) == "kill edge1 at 0.50 s for 1.25 s"
    assert str(Fault("clock", "room1", 0.5, 1.25, 3600)) == "clock room1 (3600) at 0.50 s for 1.25 s"
    assert str(Fault("swap", "edge1", 0.5, 0.0)) == "swap edge1 at 0.50 s"


@pytest.mark.parametrize("back", [3600.0, 1e9])
def test_the_clock_of_a_running_process_can_be_set_back(tmp_path, back):
    code = "import sys, time\nfor _ in sys.stdin: print(time.time(), time.time_ns(), flush=True)"
    process = Process(Program("clocked", (sys.executable, "-c", code)), tmp_path, Hosts(tmp_path))
    out = tmp_path / "clocked.out"

    def asked():
        before = out.read_text()
        process.command("now")
        until(lambda: out.read_text() != before)
        seconds, nanoseconds = out.read_text().splitlines()[-1].split()
        assert abs(float(seconds) - int(nanoseconds) / 1e9) < 1
        return float(seconds)

    process.start()
    try:
        assert abs(asked() - time.time()) < 60
        process.set_clock(-back)
        assert abs(asked() - (time.time() - back)) < 60
    finally:
        process.destroy()
