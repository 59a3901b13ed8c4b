"""A process that a fault test starts and kills: one of several edges of a flow, at a server elsewhere.

It prints one line of JSON whenever the partitions that it runs change.
"""

import json
import sys
import threading

from pratipad_nb import Flow, FlowOptions


class Tag:
    def process(self, payload):
        return payload | {"tagged": True}


def main():
    url, certs, name, partitions = sys.argv[1:]
    flow = Flow(
        "Push ~> Tag ~> Output",
        name=name,
        namespace={"Tag": Tag},
        server=url,
        certs=certs,
        options=FlowOptions(partitions=int(partitions), checkpoint_seconds=0.2),
    ).start()
    stop = threading.Event()
    threading.Thread(target=lambda: (sys.stdin.readline(), stop.set()), daemon=True).start()
    said = None
    while not stop.wait(0.05):
        runs = sorted(flow.partitions)
        if runs != said:
            print(json.dumps({"runs": runs}), flush=True)
            said = runs
    flow.stop()
    print(json.dumps({"stopped": True}), flush=True)


if __name__ == "__main__":
    main()
