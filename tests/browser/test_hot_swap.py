"""Changing a flow while it runs, as one does it in a notebook: a cell is written anew and run again."""

import ast
import re

import pytest
from patience import until

pytestmark = pytest.mark.timeout(180)

SETUP = "%load_ext pratipad_nb\nimport itertools\nfrom pratipad_nb import Device\ncame = []"
FIRST = "def P1(reading):\n    return reading"
SECOND = """class P2:
    def __init__(self):
        self.seen = 0

    def process(self, reading):
        self.seen += 1
        return {"n": reading["n"], "seen": self.seen, "by": "old"}

    def snapshot(self):
        return self.seen

    def restore(self, seen):
        self.seen = seen"""
FLOW = "%%dataflow changing\nPush <~> P1 <~> P2 <~> Output"
DEVICE = """readings = ({"n": n} for n in itertools.count(1))
device = Device("room1", read=readings, every=0.05).connect(changing)"""
SHOW = """came += changing.take(changing.stats().delivered - len(came))
print([message.payload["n"] for message in came] == list(range(1, len(came) + 1)))
print(*(message.payload for message in came[-3:]), sep="\\n")"""
#: Notes of each picture that appears whether it is a dark one once its first frame has been painted.
WATCH_NEW_PICTURES = """() => {
  window.painted = [];
  const inside = (node) => node.querySelector &&
    (node.matches(".pratipad") ? node : node.querySelector(".pratipad"));
  new MutationObserver((changes) => {
    for (const picture of changes.flatMap((change) => [...change.addedNodes]).map(inside).filter(Boolean)) {
      const paint = () => window.painted.push(picture.classList.contains("pp-dark"));
      requestAnimationFrame(() => setTimeout(paint));
    }
  }).observe(document.body, { childList: true, subtree: true });
}"""
RECEIPT = re.compile(r"\w+: .*\b(\d+) messages? in flight\b.*?([\d.]+) ms.*\blost 0\b.*\bdoubled 0\b")


def delivered(root):
    found = re.search(r"([\d,]+) delivered", root.locator("[data-key=Output]").text_content())
    return int(found[1].replace(",", "")) if found else 0


def printed(opened, number):
    return opened.cell(number).locator(".jp-OutputArea").inner_text()


def test_a_cell_that_is_run_again_swaps_its_processor_and_the_numbers_go_on(lab):
    opened = lab("hot-swap", SETUP, FIRST, SECOND, FLOW, DEVICE, SHOW, height=1500)
    opened.run_all()
    root = opened.page.locator(".pratipad").first
    until(lambda: delivered(root) > 40)
    opened.run(5)
    opened.cell(5).get_by_text("'by': 'old'").first.wait_for()
    before = delivered(root)

    opened.write(2, SECOND.replace("old", "new"))
    opened.run(2)
    opened.cell(2).get_by_text("lost 0").wait_for()
    receipt = printed(opened, 2)
    assert RECEIPT.search(receipt), receipt
    until(lambda: delivered(root) > before + 40)
    opened.run(5)
    opened.cell(5).get_by_text("'by': 'new'").first.wait_for()
    inorder, *rows = printed(opened, 5).strip().splitlines()
    assert inorder == "True"  # none is missing, doubled or overtaken
    for row in map(ast.literal_eval, rows):
        assert row["seen"] == row["n"]  # what the old one had counted was carried over
    for theme in ("Light", "Dark"):
        opened.theme(f"JupyterLab {theme}")
        opened.shot(f"hot-swap-{theme.lower()}")
    assert opened.errors == []


def test_a_changed_notation_changes_the_running_flow_and_its_picture(lab):
    cells = [cell.replace("changing", "growing") for cell in (SETUP, FIRST, SECOND, FLOW, DEVICE, SHOW)]
    opened = lab("new-notation", *cells, height=1500)
    opened.run_all()
    root = opened.page.locator(".pratipad").first
    until(lambda: delivered(root) > 20)

    opened.write(3, cells[3].replace("P2 <~> Output", "P2 <~> P3 <~> Output"))
    opened.write(1, FIRST + "\ndef P3(reading):\n    return reading | {'third': True}")
    opened.run(1)
    opened.run(3)
    opened.cell(3).get_by_text("lost 0").wait_for()
    assert RECEIPT.search(printed(opened, 3))
    before = delivered(root)
    root.locator("[data-key=P3]").wait_for()
    until(lambda: delivered(root) > before + 20)
    assert root.locator(".pp-badge").inner_text().strip() == "running"
    opened.shot("new-notation")
    opened.run(5)
    opened.cell(5).get_by_text("'third': True").first.wait_for()
    assert printed(opened, 5).startswith("True")

    opened.theme("JupyterLab Dark")
    opened.page.evaluate(WATCH_NEW_PICTURES)
    opened.write(3, cells[3].replace("P2", "P22"))
    opened.run(3)
    opened.cell(3).get_by_text("NotationError").first.wait_for()
    opened.cell(3).locator("[data-key=P3]").wait_for()  # the picture of what runs on stays
    opened.page.evaluate("window.jupyterapp.shell.activateById('pratipad-dataflows')")
    opened.page.locator(".pnb-flow[data-flow=growing]").get_by_text("running").wait_for()
    opened.shot("new-notation-refused")
    assert opened.page.evaluate("window.painted") == [True]  # in the page's theme from its first frame on
    assert opened.errors == []
