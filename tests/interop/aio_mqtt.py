"""aiomqtt: paho under asyncio, connected again in the loop that its documentation shows."""

import asyncio

import aiomqtt

from flow import V5, session
from lab import HOST, PATIENCE, expect
from report import test

COUNT = 1000


@test("aiomqtt: kill -9 under a stream, 3.1.1", version=aiomqtt.ProtocolVersion.V311)
@test("aiomqtt: kill -9 under a stream, 5.0", version=aiomqtt.ProtocolVersion.V5)
def killed(lab, result, version):
    larder = lab.larder()
    arrivals, published, acknowledged = [], set(), set()

    # What waits for an acknowledgement when a link ends is told so only by the timeout.
    def connection(name):
        if version == aiomqtt.ProtocolVersion.V5:
            options = session(V5)
        else:
            options = {"clean_session": False}
        return aiomqtt.Client(HOST, larder.port, identifier=name, protocol=version, timeout=2, **options)

    async def read(subscribed):
        while len(set(arrivals)) < COUNT:
            try:
                async with connection("reader") as client:
                    await client.subscribe("aio/#", qos=1)
                    subscribed.set()
                    async for message in client.messages:
                        arrivals.append(int(message.payload))
                        if len(set(arrivals)) == COUNT:
                            return
            except aiomqtt.MqttError:
                await asyncio.sleep(0.05)

    async def write():
        while len(acknowledged) < COUNT:
            try:
                async with connection("writer") as client:
                    for number in range(COUNT):
                        if number not in acknowledged:
                            published.add(number)
                            await client.publish("aio/n", str(number), qos=1)
                            acknowledged.add(number)
            except aiomqtt.MqttError:
                await asyncio.sleep(0.05)

    async def harm():
        for reached in (COUNT // 4, COUNT // 2):
            while len(acknowledged) < reached:
                await asyncio.sleep(0.01)
            await asyncio.to_thread(larder.crash)

    async def all_of_it():
        subscribed = asyncio.Event()

        async def write_then():
            await subscribed.wait()
            await write()

        await asyncio.gather(read(subscribed), write_then(), harm())

    asyncio.run(asyncio.wait_for(all_of_it(), 45))
    result.add(published, acknowledged, arrivals)


@test("aiomqtt: the examples of its documentation")
def examples(lab, result):
    larder = lab.larder()

    async def publish_and_subscribe():
        async with aiomqtt.Client(HOST, larder.port) as reader:
            await reader.subscribe("temperature/#")
            await reader.subscribe("humidity/+/inside")
            async with aiomqtt.Client(HOST, larder.port) as writer:
                await writer.publish("temperature/outside", payload=28.4)
                await writer.publish("humidity/cellar/inside", payload=0.38)
            seen = {}
            async for message in reader.messages:
                seen[str(message.topic)] = float(message.payload)
                if len(seen) == 2:
                    return seen

    seen = asyncio.run(asyncio.wait_for(publish_and_subscribe(), PATIENCE))
    expect(seen == {"temperature/outside": 28.4, "humidity/cellar/inside": 0.38}, seen)
