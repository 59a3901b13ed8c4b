"""Writing a `%%dataflow` cell with Tab: what completion offers, and that what is chosen lands in the cell."""

import pytest

pytestmark = pytest.mark.timeout(180)

CELLS = (
    "%load_ext pratipad_nb\nCentury = 100",
    (
        "class Celsius:\n    def process(self, reading):\n        return reading\n"
        "\n\ndef Calm(reading):\n    return reading"
    ),
    "",
)
POPUP = ".jp-Completer:not(.lm-mod-hidden)"


class Writer:
    """Who writes the last cell."""

    def __init__(self, opened):
        self.opened = opened
        opened.run_all()
        opened.cell(1).locator(".jp-InputPrompt", has_text="[2]:").wait_for()
        opened.cell(2).locator(".cm-content").click()

    @property
    def text(self):
        return "\n".join(self.opened.cell(2).locator(".cm-line").all_inner_texts())

    def types(self, text):
        self.opened.page.keyboard.insert_text(text)

    def offered(self, most):
        """Press Tab and return the popup's first offers; after them JupyterLab adds the words of the cell."""
        self.opened.page.keyboard.press("Tab")
        self.opened.page.locator(POPUP).wait_for()
        return [
            it.strip() for it in self.opened.page.locator(f"{POPUP} .jp-Completer-match").all_inner_texts()
        ][:most]

    def takes(self, offer):
        self.opened.page.locator(f"{POPUP} .jp-Completer-item", has_text=offer).first.click()
        self.opened.page.locator(POPUP).wait_for(state="detached")


def test_a_cell_is_written_by_completion_from_the_option_to_the_output(lab):
    opened = lab("editing", *CELLS)
    writer = Writer(opened)
    writer.types("%%dataflow typed --deliv")
    assert writer.offered(1) == ["--delivery"]
    writer.takes("--delivery")
    writer.types(" ")
    assert writer.offered(2) == ["durable", "fast"]
    writer.takes("fast")
    writer.types("\nP")  # on an empty line Tab indents
    assert writer.offered(2) == ["Pull", "Push"]
    writer.takes("Push")
    writer.types(" ")
    assert writer.offered(2) == ["<~>", "~>"]
    writer.takes("<~>")
    writer.types(" ")
    assert writer.offered(3) == ["Calm", "Celsius", "Output"]
    for theme in ("Light", "Dark"):
        opened.theme(f"JupyterLab {theme}")
        opened.shot(f"completion-{theme.lower()}")
    writer.takes("Celsius")
    writer.types(" ~> Output")
    assert writer.text == "%%dataflow typed --delivery fast\nPush <~> Celsius ~> Output"
    assert opened.errors == []
