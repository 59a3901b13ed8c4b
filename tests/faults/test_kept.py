"""The README's numbers are those of the kept run, in which nothing went wrong."""

import re
import sys
from pathlib import Path

sys.path.append(str(Path(__file__).parent))
from kept import heading, keep, line_in, shown_in

LINE = "seed 7: 200 rounds in 9 s, 1,000 receipts, 10 orders; faults: 3 kill; lost 0, doubled 0"


def test_the_readme_shows_the_line_of_the_kept_run():
    assert shown_in() == line_in()


def test_in_the_kept_run_nothing_was_lost_doubled_reordered_or_inexact():
    found = dict(
        re.findall(r"((?:orders |answers |wrong )?[a-z]+) (\d+)(?:,|;)", line_in().partition("; lost")[2])
    )
    assert set(found.values()) == {"0"}
    assert line_in().partition("; ")[2].count(" 0,") >= 7


def test_a_run_is_kept_in_the_log_and_in_the_readme_and_the_readme_is_otherwise_as_it_was(tmp_path):
    log, readme = tmp_path / "hunt.txt", tmp_path / "README.md"
    readme.write_text("# A\n\n<!-- hunt -->\n```\nan older line\n```\n\n```\ncode\n```\n")
    keep([heading(7, 200, ""), "round 1: kill edge1: 0.5 s", LINE], log, readme)
    assert log.read_text().startswith("make hunt ROUNDS=200 SEED=7  # Python 3.")
    assert (line_in(log), shown_in(readme)) == (LINE, LINE)
    assert readme.read_text().startswith("# A\n\n<!-- hunt -->\n```\nseed 7: 200 rounds in 9 s")
    assert readme.read_text().endswith("\n```\n\n```\ncode\n```\n")
