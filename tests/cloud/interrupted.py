"""A program that takes and loops while Ctrl-C comes at random; prints what it got, in order, as JSON."""

from __future__ import annotations

import json
import os
import random
import signal
import sys
import threading
from pathlib import Path
from types import FrameType

import pratipad_nb
from pratipad_nb import Cloud, Device, Flow
from pratipad_nb.testing import memory_server

TOTAL = 30_000
PACKAGE = str(Path(pratipad_nb.__file__).parent)
random_moments = random.Random(int(sys.argv[2]))
armed, ended = threading.Event(), threading.Event()
interrupts = 0


def interrupt(_signal: int, frame: FrameType | None) -> None:
    """Raise `KeyboardInterrupt` anywhere in the package or its calls; this program keeps its own books."""
    global interrupts
    while frame is not None and armed.is_set():
        if frame.f_code.co_filename.startswith(PACKAGE):
            interrupts += 1
            raise KeyboardInterrupt
        frame = frame.f_back


def interrupt_at_random() -> None:
    while not ended.wait(random_moments.uniform(0, 0.001)):
        if armed.is_set():
            os.kill(os.getpid(), signal.SIGINT)


def same(payload: int) -> int:
    return payload


def read(handle: Flow | Cloud, got: list[int], most: int) -> None:
    """Get messages by a take and by a loop until there are `most`, or Ctrl-C has come."""
    armed.set()
    try:
        taken = handle.take(min(random_moments.randint(1, 60), most - len(got)), timeout=20)
        got += [message.payload for message in taken]
        left = min(random_moments.randint(0, 400), most - len(got))
        if left:
            for message in handle:
                got.append(message.payload)
                left -= 1
                if not left:
                    break
    except KeyboardInterrupt:
        pass
    except RuntimeError as error:  # the standard library's own condition, cut off between two steps
        if not isinstance(error.__context__, KeyboardInterrupt):
            raise
    finally:
        armed.clear()


def main() -> None:
    got: list[int] = []
    signal.signal(signal.SIGINT, interrupt)
    thread = threading.Thread(target=interrupt_at_random)
    with memory_server() as url, Flow("Push ~> same ~> Output", server=url) as flow:
        with Device("room1").connect(flow) as device:
            for number in range(TOTAL):
                device.push(number)
        flow.settled()
        thread.start()
        if sys.argv[1] == "flow":
            while len(got) < TOTAL:
                read(flow, got, TOTAL)
        else:
            while len(got) < TOTAL:  # a new handle of the name now and then
                most = min(TOTAL, len(got) + 3000)
                with Cloud(flow) as cloud:
                    while len(got) < most:
                        read(cloud, got, most)
        ended.set()
        thread.join()
    print(json.dumps({"interrupts": interrupts, "got": got}))


main()
