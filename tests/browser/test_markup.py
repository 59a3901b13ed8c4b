"""Texts of others that are markup or script are text on the page; `test_saved` has what is saved of it."""

import pytest

from .markup import EVIL, PART, is_text_alone

pytestmark = pytest.mark.timeout(180)

CELLS = (
    f"""%load_ext pratipad_nb
from IPython.display import display
from pratipad_nb import Device, Processor, preview
from pratipad_nb.device import Led
EVIL = {EVIL!r}""",
    """class Fails(Processor):
    def __init__(self, words):
        self.words = words
    def process(self, reading):
        print(reading)
        raise ValueError(EVIL)

def Same(reading):
    return reading

def reads():
    raise ValueError(EVIL)

class Broken(Processor):
    def setup(self):
        raise ValueError(EVIL)
    def process(self, reading):
        return reading""",
    f"%%dataflow markup --delivery fast\nPush <~> Same <~> Fails(words='{EVIL}') <~> Output",
    """device = Device('room1', receive=print).connect(markup)
silent = Device('room2', read=reads, every=0.05).connect(markup)
device.push({EVIL: EVIL}).wait(10)
markup.settled()
Led(name=EVIL)""",
    """letters = markup.dead_letters()
for each in (markup.stats(), markup.stats().devices, letters, markup['Same'].show(), markup['Fails'].show(),
             markup['Same'].frame(), markup.trace(letters[0].id),
             preview("Push ~> Same ~> Output", [EVIL], namespace={'Same': Same})):
    display(each)""",
    """try:
    markup.send({'to': EVIL}, to=EVIL)
except Exception:
    get_ipython().showtraceback()""",
    "%%dataflow broken\nPush ~> Broken ~> Output",
)


def test_markup_in_texts_of_others_is_shown_as_text(lab):
    opened = lab("markup", *CELLS, height=1600)
    opened.run_all()
    page, root = opened.page, opened.page.locator(".pratipad").first
    root.locator("[data-key=Fails]").get_by_text("failed").wait_for()
    opened.cell(3).locator(".pp-led", has_text=EVIL).wait_for()
    for key in ("Output", "devices", "Fails", "Same"):
        root.locator(f"[data-key={key}]").click()
        root.locator(".pp-inspect", has_text=PART).wait_for()
        opened.shot(f"markup-{key}")
    root.locator("tr[data-id]").first.click()
    root.locator(".pp-way", has_text=PART).wait_for()
    for number in (4, 5, 6):
        opened.cell(number).scroll_into_view_if_needed()
        opened.cell(number).locator(".jp-OutputArea", has_text=PART).wait_for()
        opened.shot(f"markup-cell{number}")
    page.evaluate("window.jupyterapp.shell.activateById('pratipad-dataflows')")
    page.locator(".pnb-flow code", has_text=EVIL).wait_for()
    assert is_text_alone(page)
    assert opened.errors == []
