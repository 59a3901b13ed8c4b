"""The five minutes of the README, typed into a notebook as they stand there."""

import re
from pathlib import Path

README = (Path(__file__).parents[2] / "README.md").read_text()
FIVE_MINUTES = README.partition("## Five minutes")[2].partition("\n## ")[0]


def test_the_five_minutes_of_the_readme_do_what_they_say(shell, until):
    define, flow, use, outside = re.findall(r"```python\n(.*?)```", FIVE_MINUTES, re.DOTALL)
    shell.ok(define)
    shell.ok(flow)
    *lines, stop, close = use.splitlines()
    for line in lines[:2]:
        ran = shell.ok(line)
    assert [set(message.payload) >= {"cpu_percent", "busy"} for message in ran.value] == [True] * 3
    for line in lines[2:]:
        ran = shell.ok(line)
    computer, device = shell.names["computer"], shell.names["device"]
    until(lambda: computer.stats().devices["desk"].orders_run == 1)
    assert (computer.stats().dead, device.error) == (0, "")
    shell.ok(stop)
    shell.ok(close)
    shell.ok(outside)
    assert shell.names["computer"].state == "stopped"
