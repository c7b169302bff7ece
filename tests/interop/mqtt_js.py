"""MQTT.js for Node.js: what mqtt_js.cjs does, while the broker is ended and started again."""

import json
import pathlib
import subprocess

from lab import expect
from report import test

COUNT, STEP = 4000, 1000


@test("MQTT.js: kill -9 and SIGTERM under a stream, 3.1.1", version=4, qos=1)
@test("MQTT.js: kill -9 and SIGTERM under a stream, 5.0", version=5, qos=1)
@test("MQTT.js: kill -9 and SIGTERM under a stream, QoS 2, 3.1.1", version=4, qos=2)
@test("MQTT.js: kill -9 and SIGTERM under a stream, QoS 2, 5.0", version=5, qos=2)
def restarted(lab, result, version, qos):
    larder = lab.larder()
    script = pathlib.Path(__file__).with_suffix(".cjs")
    command = ["node", script, *map(str, [larder.port, version, COUNT, STEP, qos])]
    node = lab.start(command, stdout=subprocess.PIPE, text=True)
    restarts, done = 0, None
    for line in node.stdout:
        said = json.loads(line)
        expect("error" not in said, said)
        done = said.get("done", done)
        if said.get("reached", COUNT) < COUNT:
            restarts += 1
            if restarts % 2:
                larder.crash()
            else:
                larder.stop()
                larder.start()
    expect(done and restarts == COUNT / STEP - 1, f"node ended after {restarts} restarts: {done}")
    result.add(range(COUNT), done["acknowledged"], done["arrivals"], ordered=False, once=qos == 2)
    present = done["sessionPresent"]
    expect(not present[0] and len(present) > restarts and all(present[1:]), f"Session Present: {present}")
