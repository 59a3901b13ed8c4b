"""A process that a fault test starts and kills: an edge whose processors keep state, at a server elsewhere.

It prints one line of JSON once its flow runs.
"""

import json
import sys

from pratipad_nb import Flow, FlowOptions, Processor, Window


class Sums(Processor):
    """Adds up each device's numbers, and answers with the sum so far."""

    concurrency = 2

    def setup(self):
        self.sums = {}

    def process(self, payload, message):
        self.sums[message.device] = self.sums.get(message.device, 0) + payload["n"]
        return {"n": payload["n"], "sum": self.sums[message.device]}

    def snapshot(self):
        return self.sums

    def restore(self, sums):
        self.sums = sums


def main():
    url, certs, name = sys.argv[1:]
    Flow(
        "Push ~> Sums ~> Windows ~> Output",
        name=name,
        namespace={"Sums": Sums, "Windows": Window(count=7, key="sum", aggregate="sum")},
        server=url,
        certs=certs,
        options=FlowOptions(checkpoint_seconds=0.2),
    ).start()
    print(json.dumps({"runs": True}), flush=True)
    sys.stdin.readline()


if __name__ == "__main__":
    main()
