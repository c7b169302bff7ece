"""gmqtt: an MQTT client of its own under asyncio."""

import asyncio

import gmqtt
from gmqtt.mqtt.constants import MQTTv50, MQTTv311

from lab import HOST, PATIENCE, expect
from report import test

COUNT = 300
# gmqtt does not wait where the Receive Maximum is reached: its program has to.
STEP = 20


class Client:
    """A gmqtt client whose messages wait in a queue."""

    def __init__(self, name, **properties):
        self.messages = asyncio.Queue()
        self.granted = asyncio.Queue()
        self.connects = asyncio.Queue()
        self.client = gmqtt.Client(name, clean_session=False, **properties)
        self.client.set_config({"reconnect_retries": -1, "reconnect_delay": 0.05})
        self.client.on_message = self.on_message
        self.client.on_subscribe = lambda _client, _mid, granted, _properties: self.granted.put_nowait(granted)
        self.client.on_connect = lambda *_: self.connects.put_nowait(True)

    async def on_message(self, _client, topic, payload, qos, properties):
        self.messages.put_nowait((topic, payload, qos, properties))
        return 0

    async def connect(self, larder, version):
        await self.client.connect(HOST, larder.port, version=version)
        await asyncio.wait_for(self.connects.get(), PATIENCE)

    async def subscribe(self, topic, qos):
        self.client.subscribe(topic, qos=qos)
        granted = await asyncio.wait_for(self.granted.get(), PATIENCE)
        expect(tuple(granted) == (qos,), f"granted {granted}")

    async def take(self):
        return await asyncio.wait_for(self.messages.get(), PATIENCE)


@test("gmqtt: QoS 1 and 2, a restart between, 3.1.1", version=MQTTv311)
@test("gmqtt: QoS 1 and 2, a restart between, 5.0", version=MQTTv50)
def streams(lab, result, version):
    larder = lab.larder()
    expiry = {"session_expiry_interval": 3600} if version == MQTTv50 else {}

    async def run():
        arrivals = []
        for qos in (1, 2):
            reader, writer = Client(f"reader-{qos}", **expiry), Client(f"writer-{qos}", **expiry)
            await reader.connect(larder, version)
            await reader.subscribe(f"gmqtt/{qos}", qos)
            await writer.connect(larder, version)
            for begin in range(0, COUNT, STEP):
                numbers = {2 * number + qos - 1 for number in range(begin, begin + STEP)}
                for number in sorted(numbers):
                    writer.client.publish(f"gmqtt/{qos}", str(number), qos=qos)
                while numbers - set(arrivals):
                    topic, payload, got, _ = await reader.take()
                    expect((topic, got) == (f"gmqtt/{qos}", qos), f"{topic} at QoS {got}")
                    arrivals.append(int(payload))
                if begin == COUNT // 2:
                    await asyncio.to_thread(larder.crash)
                    for client in (reader, writer):
                        await asyncio.wait_for(client.connects.get(), PATIENCE)
            await writer.client.disconnect()
            await reader.client.disconnect()
        return arrivals

    arrivals = asyncio.run(asyncio.wait_for(run(), 50))
    result.add(range(2 * COUNT), range(2 * COUNT), arrivals, ordered=False)


@test("gmqtt: 5.0 properties")
def properties(lab, result):
    larder = lab.larder()

    async def run():
        reader, writer = Client("reader", session_expiry_interval=60), Client("writer", session_expiry_interval=60)
        await reader.connect(larder, MQTTv50)
        reader.client.subscribe("p/+", qos=1, subscription_identifier=7)
        await asyncio.wait_for(reader.granted.get(), PATIENCE)
        await writer.connect(larder, MQTTv50)
        writer.client.publish(
            "p/x", "x", qos=1, content_type="text/plain", response_topic="r", correlation_data=b"1",
            message_expiry_interval=100, user_property=[("z", "1"), ("a", "2"), ("z", "1")],
        )
        _, _, _, seen = await reader.take()
        await writer.client.disconnect()
        await reader.client.disconnect()
        return seen

    seen = asyncio.run(asyncio.wait_for(run(), 30))
    expect(seen["user_property"] == [("z", "1"), ("a", "2"), ("z", "1")], seen)
    for name, due in [("content_type", ["text/plain"]), ("response_topic", ["r"]), ("subscription_identifier", [7])]:
        expect(seen[name] == due, f"{name}: {seen[name]}")
    expect(98 <= seen["message_expiry_interval"][0] <= 100, seen)
