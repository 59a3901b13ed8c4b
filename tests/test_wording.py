"""Texts of others: what becomes of their control characters, wherever they are shown."""

import json
import logging
import subprocess
import sys
from io import StringIO

import grimp
import pytest
from rich.console import Console

from pratipad_nb import Device, Flow, preview
from pratipad_nb.cli.exits import said
from pratipad_nb.cli.patient_output import print_patiently
from pratipad_nb.cli.rate_rows import device_line, status_line
from pratipad_nb.cli.top import drawn
from pratipad_nb.errors import ServerError
from pratipad_nb.notebook import scene
from pratipad_nb.notebook.inspector import Inspection, told
from pratipad_nb.notebook.text import text_picture
from pratipad_nb.testing import memory_server
from pratipad_nb.wording import in_words, printable, printable_json

#: Clears a terminal, in ASCII and in Latin-1; forges a line; turns the text's order.
EVIL = "\x1b[2Jx\x9b2J\r\nforged\u202e\u2066\u2028"
HARMLESS = r"\x1b[2Jx\x9b2J\r\nforged\u202e\u2066\u2028"


def is_harmless(text):
    return all(character.isprintable() or character in "\n\t" for character in text)


def fails(payload):
    print(payload)
    raise ValueError(payload)


def test_control_characters_are_escaped_as_in_python_and_all_others_stay():
    assert printable(EVIL) == HARMLESS
    assert printable("a\n\tb\x1b", lines=True) == "a\n\tb\\x1b"
    assert printable("\ud800") == r"\ud800"
    assert printable("Zürich, 雨, 👨‍👩‍👧, \\x1b") == "Zürich, 雨, 👨‍👩‍👧, \\x1b"


def test_json_stays_the_same_values():
    values = [{EVIL: [EVIL, "雨", "\x7f", 1]}, "plain"]
    lines = b"".join(json.dumps(each, ensure_ascii=False).encode() + b"\n" for each in values)
    shown = printable_json(lines).decode()
    assert is_harmless(shown)
    assert "雨" in shown
    assert list(map(json.loads, shown.splitlines())) == values


def test_no_error_brings_control_characters_with_it():
    assert str(ServerError(f"it said {EVIL}")) == f"it said {HARMLESS}".replace(r"\n", "\n")
    assert is_harmless(in_words(ValueError(EVIL)))


def test_whatever_shows_a_message_a_failure_or_a_device_shows_no_control_character(until, capsys):
    def reads():
        raise ValueError(EVIL)

    with (
        memory_server() as url,
        Flow(
            "Push <~> [same, fails] <~> Output",
            server=url,
            name="house",
            namespace={"same": lambda payload: payload, "fails": fails},
        ) as flow,
        Device("room1").connect(flow) as device,
        Device("room2", read=reads, every=0.01).connect(flow),
    ):
        device.push(EVIL).wait(5)
        flow.settled()
        until(lambda: flow.stats().devices["room2"].error)
        stats, letters, samples = flow.stats(), flow.dead_letters(), flow["fails"].show()
        pages = [Inspection() for _ in range(3)]
        for page, key in zip(pages, ("devices", "fails", "Output"), strict=True):
            page.ask({"key": key})
        shown = [
            *(repr(x) + x._repr_html_() for x in (stats, stats.devices, letters, samples)),
            repr(letters[0]) + letters[0].error + letters[0].traceback,
            repr(flow["fails"].samples()),
            repr(flow.trace(letters[0].id)),
            repr(flow["fails"].log),
            text_picture(flow),
            *map(str, scene.numbers(stats)["processors"]["fails"]),
            *(json.dumps(page.look(flow), ensure_ascii=False) for page in pages),
            told(flow, {"do": "order", "payload": EVIL})["text"],
            repr(preview("Push ~> fails ~> Output", [EVIL], namespace={"fails": fails})),
            device_line(device),
        ]
    assert [text for text in shown if not is_harmless(text)] == []
    assert sum(r"\x1b" in text for text in shown) > 8
    said(f"it said {EVIL}")
    assert is_harmless(capsys.readouterr().err)


async def test_the_command_line_shows_no_control_character_and_no_markup(capfd):
    step = {"state": "running", "rate": 0.0, "emitted": 0, "waiting": 0, "failed": 0, "p50": 0.0, "p99": 0.0}
    edge = {"host": f"[/red]{EVIL}", "pid": 7, "state": "running", "rate": 0.0, "delivered": 0, "devices": 0}
    stats = {
        "name": "house", "state": "running", "rate": 0.0, "delivered": 0, "in_flight": 0, "waiting": 0,
        "dead": 0, "p50": 0.0, "p99": 0.0, "devices": {}, "error": EVIL, "blocked_by": [EVIL],
        "processors": {f"[b]{EVIL}": step}, "edges": [edge | {"blocked_by": [EVIL], "error": EVIL}] * 2,
    }  # fmt: skip
    screen = StringIO()
    Console(file=screen, width=400).print(drawn([stats], 400))
    assert is_harmless(screen.getvalue() + status_line(stats))
    assert "[b]\\x1b" in screen.getvalue()
    assert "[/red]\\x1b" in screen.getvalue()
    await print_patiently(json.dumps({"payload": EVIL}, ensure_ascii=False).encode() + b"\n")
    line = capfd.readouterr().out
    assert is_harmless(line)
    assert json.loads(line) == {"payload": EVIL}


def test_a_log_line_is_one_line_without_control_characters_and_its_traceback_harmless(caplog):
    log = logging.getLogger("pratipad_nb.runtime.devices.presence")
    try:
        raise ValueError("\x1b[2J\u202e")
    except ValueError as error:
        log.warning("a hello of %s: %d", EVIL, 3, exc_info=error)
    log.warning("%d of %s", 3, "room1")
    assert [record.getMessage() for record in caplog.records] == [f"a hello of {HARMLESS}: 3", "3 of room1"]
    assert is_harmless(caplog.text)
    assert "ValueError: \\x1b[2J\\u202e" in caplog.text
    assert caplog.records[1].args == (3, "room1")


@pytest.mark.parametrize(
    "set_up", ["", "logging.basicConfig()", "logging.getLogger('pratipad_nb').propagate = False"]
)
def test_a_program_gets_our_warnings_once_with_and_without_handlers_of_its_own(set_up):
    script = f"""import logging, pratipad_nb.errors; {set_up}
logging.getLogger("pratipad_nb.x").warning("\\x1b[2J")"""
    run = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=30
    )
    assert run.stderr.strip().removeprefix("WARNING:pratipad_nb.x:") == r"\x1b[2J"


def test_every_module_that_logs_comes_with_the_errors_which_make_its_lines_printable():
    graph = grimp.build_graph("pratipad_nb", include_external_packages=True)

    def comes_with_errors(name):
        return graph.chain_exists(name, "pratipad_nb.errors")

    ours = set(graph.find_modules_that_directly_import("logging")) - {"pratipad_nb.log_lines"}
    assert len(ours) > 20
    for name in ours:
        assert comes_with_errors(name) or all(
            map(comes_with_errors, graph.find_modules_that_directly_import(name))
        ), name
