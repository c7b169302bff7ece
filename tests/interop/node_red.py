"""Node-RED with a flow of its own MQTT nodes, as its users draw it."""

import json
import os
import pathlib
import subprocess

from lab import HOST, PATIENCE, Failure, expect, wait_until
from mosquitto_clients import Subscriber, numbers_in, publish
from report import test

START = 40


def flow(port, version):
    """Takes what comes below red/in, adds 1000 to it, and publishes it below red/out, at QoS 2."""
    return [
        {"id": "tab", "type": "tab", "label": "interop"},
        {
            "id": "broker", "type": "mqtt-broker", "name": "larder", "broker": HOST, "port": str(port),
            "clientid": "node-red", "autoConnect": True, "usetls": False, "protocolVersion": str(version),
            "keepalive": "60", "cleansession": False, "autoUnsubscribe": False, "sessionExpiry": "3600",
            "birthTopic": "red/state", "birthPayload": "here", "birthQos": "1", "birthRetain": "false",
        },
        {
            "id": "in", "type": "mqtt in", "z": "tab", "broker": "broker", "topic": "red/in/+", "qos": "2",
            "datatype": "auto-detect", "wires": [["add"]],
        },
        {
            "id": "add", "type": "function", "z": "tab", "wires": [["out"]], "outputs": 1,
            "func": "return {payload: Number(msg.payload) + 1000, topic: 'red/out/' + msg.topic.split('/')[2]};",
        },
        {"id": "out", "type": "mqtt out", "z": "tab", "broker": "broker", "topic": "", "qos": "2", "wires": []},
    ]


@test("Node-RED: a flow, over kill -9, 3.1.1", version=4, limit=120)
@test("Node-RED: a flow, over kill -9, 5.0", version=5, limit=120)
def a_flow(lab, result, version):
    larder = lab.larder()
    state = Subscriber(lab, larder, "-i", "state", "-c", "-q", "1", "-t", "red/state")
    reader = Subscriber(lab, larder, "-i", "reader", "-c", "-q", "2", "-t", "red/out/#")
    directory = lab.directory / "node-red"
    directory.mkdir()
    (directory / "flows.json").write_text(json.dumps(flow(larder.port, version)))
    (directory / "settings.js").write_text(
        "module.exports = {flowFile: 'flows.json', uiHost: '127.0.0.1', mqttReconnectTime: 200,"
        " httpAdminRoot: false, httpNodeRoot: false, disableEditor: true, telemetry: {enabled: false}};"
    )
    program = pathlib.Path(os.environ["NODE_PATH"]) / "node-red" / "red.js"
    with (directory / "log").open("wb") as log:
        node = lab.start(
            ["node", program, "--userDir", directory, "--port", str(lab.free_port())],
            stdin=subprocess.DEVNULL, stdout=log, stderr=log,
        )

    def is_there():
        if node.poll() is not None:
            raise Failure(f"Node-RED ended: {(directory / 'log').read_text()[-500:]}")
        return not state.messages.empty()

    wait_until(is_there, START, "Node-RED's birth message")
    for number in range(100):
        publish(larder, "-q", 2, "-t", "red/in/a", "-m", number)
    arrivals = numbers_in(reader.take(100))
    state.messages.get()
    larder.crash()
    wait_until(is_there, PATIENCE, "Node-RED to come back")
    for number in range(100, 200):
        publish(larder, "-q", 2, "-t", "red/in/a", "-m", number)
    arrivals += numbers_in(reader.take(100))
    reader.nothing_more()
    result.add(range(1000, 1200), range(1000, 1200), arrivals, once=True)
    expect(reader.process.poll() is None, "mosquitto_sub ended")
