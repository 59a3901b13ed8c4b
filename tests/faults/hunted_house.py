"""The flow of the hunt, as a user gives it to `pratipad run`, and a line to the hunter.

The environment says with how many instances the flow begins (`HUNT_CONCURRENCY`). The hunter writes commands
to stdin, a line each: `swap` runs the processors' cell again, `concurrency 3` runs it with three instances,
`retry` retries the dead letters. A command that fails is tried again, for the hunter may have taken the
server away.
"""

import os
import random
import sys
import threading
import time
from pathlib import Path

from states import REPLY_EVERY

from pratipad_nb import Flow, FlowOptions, Keyed, PratipadError, reply

NOTATION = "Push <~> Tally <~> fragile <~> Output"
#: What a poisoned message lacks; while this file is there, `fragile` can deal with it.
MENDED = Path("mended")
#: How long a command is tried, in seconds.
PATIENCE = 20.0


def cell(instances):
    """Return the processors as a cell defines them: other classes each time."""

    def fragile(payload):
        # So that some messages are always in flight, and a kill finds them there.
        time.sleep(random.expovariate(2000))
        if payload["poisoned"] and not MENDED.exists():
            raise ValueError("a poisoned message")
        return payload

    class Tally:
        """Counts and adds up each device's results: the state that has to be exact."""

        concurrency = instances

        def __init__(self):
            self.totals = {}

        def process(self, payload, message):
            count, total = self.totals.get(message.device, (0, 0))
            count, total = count + 1, total + payload["value"]
            self.totals[message.device] = (count, total)
            if payload["n"] % REPLY_EVERY == 0:
                reply({"answer": [payload["start"], payload["n"]]}, to=message)
            return payload | {"count": count, "total": total}

        def snapshot(self):
            return Keyed(self.totals)

        def restore(self, state):
            self.totals = dict(state)

    return {"fragile": fragile, "Tally": Tally}


class Commands:
    """Carries out the hunter's commands, one after the other."""

    def __init__(self, flow):
        self._flow = flow
        self._instances = int(os.environ["HUNT_CONCURRENCY"])

    def run(self):
        for line in sys.stdin:
            verb, *arguments = line.split()
            end = time.monotonic() + PATIENCE
            while not self._carried_out(verb, *arguments) and time.monotonic() < end:
                time.sleep(0.2)

    def _carried_out(self, verb, *arguments):
        if self._flow.state != "running":
            return False
        try:
            getattr(self, verb)(*arguments)
        except PratipadError as error:
            print(f"{verb}: {error}", flush=True)
            return False
        print(verb, *arguments, flush=True)
        return True

    def swap(self):
        self._flow.update(NOTATION, cell(self._instances))

    def concurrency(self, instances):
        self._flow.update(NOTATION, cell(int(instances)))
        self._instances = int(instances)

    def retry(self):
        self._flow.retry_dead_letters()


house = Flow(
    NOTATION,
    name="house",
    namespace=cell(int(os.environ["HUNT_CONCURRENCY"])),
    options=FlowOptions(partitions=4),
)
threading.Thread(target=Commands(house).run, daemon=True).start()
