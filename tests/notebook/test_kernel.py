"""A real kernel alone has these: the side panel's comm, pictures in outputs, front ends' errors."""

import os
import queue
import time
import uuid

import pytest
from jupyter_client.manager import KernelManager

from pratipad_nb.notebook.panel import TARGET

pytestmark = [pytest.mark.timeout(120), pytest.mark.filterwarnings("ignore::DeprecationWarning")]


class Kernel:
    """A kernel and its client."""

    def __init__(self, client):
        self.client = client

    def run(self, source, seconds=30):
        """Run a cell and return its outputs' contents, by type."""
        asked = self.client.execute(source)
        return self._until(
            lambda m: m["msg_type"] == "status" and m["content"]["execution_state"] == "idle", asked, seconds
        )

    def _until(self, last, asked, seconds):
        found, end = [], time.monotonic() + seconds
        while True:
            message = self.client.get_iopub_msg(timeout=max(0.1, end - time.monotonic()))
            if message["parent_header"].get("msg_id") != asked:
                continue
            if last(message):
                return found
            if message["msg_type"] in ("stream", "display_data", "execute_result", "error"):
                found.append((message["msg_type"], message["content"]))

    def send(self, kind, **content):
        message = self.client.session.msg(kind, content)
        self.client.shell_channel.send(message)

    def hears(self, comm_id, condition, seconds=10.0):
        """Return the data of the first message on a comm that fits."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            try:
                message = self.client.get_iopub_msg(timeout=1)
            except queue.Empty:
                continue
            content = message["content"]
            if (
                message["msg_type"] == "comm_msg"
                and content["comm_id"] == comm_id
                and condition(content["data"])
            ):
                return content["data"]
        raise AssertionError(f"nothing that fits in {seconds:g} s")


@pytest.fixture(scope="module")
def kernel(tmp_path_factory):
    folder = tmp_path_factory.mktemp("kernel")
    private = {
        "PRATIPAD_HOME": str(folder / "state"),
        "IPYTHONDIR": str(folder / "ipython"),
        "JUPYTER_RUNTIME_DIR": str(folder / "runtime"),
        "NO_COLOR": "1",
    }
    manager = KernelManager(connection_file=str(folder / "kernel.json"))
    manager.start_kernel(env=os.environ | private, cwd=str(folder))
    client = manager.blocking_client()
    client.start_channels()
    try:
        client.wait_for_ready(timeout=60)
        kernel = Kernel(client)
        assert kernel.run("%load_ext pratipad_nb") == []
        kernel.run("class Celsius:\n    def process(self, x): return x")
        kernel.run("def fails(x): raise ValueError(x)")
        yield kernel
    finally:
        client.stop_channels()
        manager.shutdown_kernel(now=True)


def test_a_picture_and_a_line_of_text_are_kept_with_the_live_view(kernel):
    ((_, shown),) = [
        o for o in kernel.run("%%dataflow house\nPush ~> Celsius ~> Output") if o[0] == "display_data"
    ]
    assert {"application/vnd.jupyter.widget-view+json", "image/png", "text/plain"} <= set(shown["data"])
    assert shown["data"]["text/plain"] == "house: Push ~> Celsius ~> Output"
    kernel.run("house.stop()")


def test_a_flow_that_is_a_cells_value_is_seen_to_run(kernel):
    kernel.run("%%dataflow valued\nPush ~> Celsius ~> Output")
    ((kind, shown),) = kernel.run("valued")
    assert kind == "display_data"
    assert "application/vnd.jupyter.widget-view+json" in shown["data"]
    kernel.run("valued.stop()")


def test_a_mistake_is_a_true_error_output_without_frames(kernel):
    ((kind, shown),) = kernel.run("%%dataflow garden\nPush ~> Celsus ~> Output")
    assert (kind, shown["ename"]) == ("error", "NotationError")
    assert "^^^^^^" in "\n".join(shown["traceback"])
    assert not any("site-packages" in line or "pratipad_nb/" in line for line in shown["traceback"])


def test_an_error_of_a_call_is_a_true_error_output_with_the_cells_line_alone(kernel):
    kernel.run("%%dataflow house\nPush ~> Celsius ~> Output")
    ((kind, shown),) = kernel.run("house.take(100, timeout=.2)")
    assert (kind, shown["ename"]) == ("error", "WaitTimeout")
    text = "\n".join(shown["traceback"])
    assert "house.take(" in text
    assert "got 0 of 100 messages" in text
    assert "pratipad_nb/" not in text
    assert "concurrent" not in text
    kernel.run("house.stop()")


def test_the_side_panel_hears_of_the_flows_and_stops_one(kernel):
    kernel.run("%%dataflow house\nPush ~> Celsius ~> Output")
    comm = uuid.uuid4().hex
    kernel.send("comm_open", comm_id=comm, target_name=TARGET, data={})
    (entry,) = kernel.hears(comm, lambda data: data["flows"])["flows"]
    assert (entry["name"], entry["state"], entry["notation"]) == (
        "house",
        "running",
        "Push ~> Celsius ~> Output",
    )
    assert (entry["rate"], entry["delivered"], entry["connected"], entry["trouble"]) == (0.0, 0, 0, "")
    kernel.send("comm_msg", comm_id=comm, data={"do": "stop", "name": "nobody"})
    kernel.send("comm_msg", comm_id=comm, data={"do": "stop", "name": "house"})
    assert kernel.hears(comm, lambda data: not data["flows"]) == {"flows": []}
    kernel.send("comm_close", comm_id=comm, data={})
    printed = kernel.run(
        "import threading, time\ntime.sleep(1.2)\n"
        "print([t.name for t in threading.enumerate() if 'panel' in t.name])"
    )
    assert printed == [("stream", {"name": "stdout", "text": "[]\n"})]


def test_what_can_be_kept_shows_itself(kernel):
    kernel.run("%%dataflow house\nPush ~> Celsius ~> Output")
    kernel.run(
        "from pratipad_nb import Device\n"
        "with Device('room1').connect(house) as d: d.push({'c': '<b>'}).wait(10)\n"
        "house.settled()"
    )
    for source, kinds in (
        ("house.plot()", {"image/png", "text/plain"}),
        ("house.picture()", {"image/png", "text/plain"}),
        ("house.panel()", {"application/vnd.jupyter.widget-view+json", "text/plain"}),
        ("house['Celsius'].show()", {"text/html", "text/plain"}),
        ("house.shadow()", {"text/html", "text/plain"}),
    ):
        (shown,) = [content["data"] for kind, content in kernel.run(source) if kind == "execute_result"]
        assert set(shown) == kinds, source
    kernel.run("house.stop()")


def test_a_source_is_found_in_the_cell_that_defined_it_also_after_a_swap(kernel):
    kernel.run("%%dataflow house\nPush ~> Celsius ~> Output")
    kernel.run("class Celsius:\n    # newer\n    def process(self, x): return 2 * x")
    assert kernel.run("print(house['Celsius'].source.rstrip(), end='')") == [
        (
            "stream",
            {"name": "stdout", "text": "class Celsius:\n    # newer\n    def process(self, x): return 2 * x"},
        )
    ]
    kernel.run("house.stop()")
