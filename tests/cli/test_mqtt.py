"""A device that speaks MQTT, let in by commands alone; its side is an independent client's."""

from __future__ import annotations

import json
import queue
from typing import Any

import paho.mqtt.client as mqtt


def test_an_issued_folder_lets_an_mqtt_device_send_and_take_orders(shell: Any, free_tcp_port: int) -> None:
    server = shell.start("server", "--mqtt", f"127.0.0.1:{free_tcp_port}", "--json")
    assert json.loads(server.says("mqtt"))["mqtt"] == f"mqtts://127.0.0.1:{free_tcp_port}"
    shell("certs", "issue", "device", "lamp", "--flow", "house", "--mqtt")
    shell.house()
    shell.start("run", "house.py").says("house runs")

    orders: queue.Queue[bytes] = queue.Queue()
    listening: queue.Queue[bool] = queue.Queue()
    folder = shell.folder / "lamp-certs"
    lamp = mqtt.Client(mqtt.CallbackAPIVersion.VERSION2, "lamp", protocol=mqtt.MQTTv311)
    lamp.tls_set(str(folder / "ca.pem"), str(folder / "cert.pem"), str(folder / "key.pem"))
    lamp.on_message = lambda _client, _data, message: orders.put(message.payload)
    lamp.on_subscribe = lambda *_: listening.put(True)
    lamp.connect("127.0.0.1", free_tcp_port)
    lamp.loop_start()
    try:
        lamp.subscribe("pratipad/house/plain/lamp", qos=1)
        listening.get(timeout=10)
        lamp.publish("pratipad/house/up/lamp", json.dumps({"value": 21}), qos=1).wait_for_publish(10)
        (result,) = shell.json("cloud", "house", "-n", "1", "--timeout", "30")
        assert (result["device"], result["payload"]) == ("lamp", {"value": 42})
        shell.json("cloud", "house", "--send", '{"led": "on"}', "--to", "lamp")
        assert json.loads(orders.get(timeout=10)) == {"led": "on"}
    finally:
        lamp.disconnect()
        lamp.loop_stop()
