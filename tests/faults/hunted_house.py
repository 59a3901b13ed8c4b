"""The flow of `rounds.py`, as a user gives it to `pratipad run`."""

import random
import time

from pratipad_nb import Flow


def tag(payload):
    time.sleep(
        random.expovariate(2000)
    )  # so that some messages are always in flight, and a kill finds them there
    return payload | {"tagged": True}


house = Flow("Push ~> tag ~> Output", name="house")
