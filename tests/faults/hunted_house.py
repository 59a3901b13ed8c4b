"""The flow of `rounds.py`, as a user gives it to `pratipad run`."""

from pratipad_nb import Flow


def tag(payload):
    return payload | {"tagged": True}


house = Flow("Push ~> tag ~> Output", name="house")
