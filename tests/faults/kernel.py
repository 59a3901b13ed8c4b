"""A process that fault tests start and kill: a flow with its embedded server, as a kernel would run it.

It prints one line of JSON for each thing that happened, so that the test can wait for it.
"""

import json
import sys
import threading
import time

from pratipad_nb import Device, Flow


class Tag:
    def process(self, payload):
        return payload | {"tagged": True}


def say(**facts):
    print(json.dumps(facts), flush=True)


def main():
    home, first, count = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    flow = Flow("Push ~> Tag ~> Output", name="house", namespace={"Tag": Tag}, home=home).start()
    device = Device("room1").connect(flow)
    say(started=True, url=flow.endpoint.url)

    receipts = []

    def push():
        for number in range(first, first + count):
            receipts.append((number, device.push({"n": number})))  # noqa: PERF401 - seen growing by the other thread

    threading.Thread(target=push, daemon=True).start()
    confirmed = first - 1
    while True:
        while len(receipts) > confirmed - first + 1 and receipts[confirmed - first + 1][1].done:
            confirmed += 1
        say(confirmed=confirmed)
        if confirmed == first + count - 1:
            break
        time.sleep(0.02)
    say(done=True)
    for line in sys.stdin:
        if line.strip() == "stop":
            break
    device.close()
    flow.stop()
    say(stopped=True)


if __name__ == "__main__":
    main()
