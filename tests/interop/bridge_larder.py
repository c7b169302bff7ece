"""A bridge with a second Larder as the cloud, and several bridges."""

import socket
import time

from bridging import CATCH_UP, FORWARD, RECEIVE, bridge, cross, streams_through_chaos, url
from flow import Publisher, Subscriber
from lab import HOST
from report import test


@test("bridge to a second Larder, 3.1.1: cuts, both under SIGKILL", version=4, limit=120)
@test("bridge to a second Larder, 5.0: cuts, both under SIGKILL", version=5, limit=120)
def chaos(lab, result, version):
    cloud = lab.larder(name="cloud")
    link = lab.link(cloud.port)
    gateway = lab.larder(bridge(url(link.port), version=version, forward=FORWARD, receive=RECEIVE), name="gateway")

    def both():
        cloud.kill()
        gateway.crash()
        time.sleep(lab.random.uniform(0, 0.3))
        cloud.start()

    things = {"cut": link.hang_up, "cloud killed": cloud.crash, "gateway killed": gateway.crash, "both killed": both}
    streams_through_chaos(lab, result, gateway, cloud, things, counts=(3000, 1500), seconds=12, rate=250)


@test("bridge: a list of addresses whose first ones give no link", limit=90)
def addresses(lab, result):
    cloud = lab.larder(name="cloud")
    # Nobody listens at the first, the second hangs up, the third is the cloud.
    hangs_up = lab.link(lab.free_port())
    urls = [url(lab.free_port()), url(hangs_up.port), url(cloud.port)]
    gateway = lab.larder(bridge(*urls, forward=FORWARD), name="gateway")
    above = Subscriber(cloud.port, "above", "site/sensors/#")
    cross(gateway.port, "first", "sensors/first", above, "site/sensors/first")
    sensor = Publisher(gateway.port, "sensor", "sensors/1", range(1000), rate=1000)
    sensor.start()
    time.sleep(0.3)
    cloud.crash()
    sensor.finish(CATCH_UP)
    above.wait_for("site/sensors/1", range(1000), CATCH_UP)
    result.add(sensor.published, sensor.acknowledged, above.of("site/sensors/1"))


@test("bridge: an address that accepts and says nothing", limit=90)
def silent(lab, result):
    cloud = lab.larder(name="cloud")
    with socket.create_server((HOST, 0)) as says_nothing:
        urls = [url(says_nothing.getsockname()[1]), url(cloud.port)]
        gateway = lab.larder(bridge(*urls, forward=FORWARD), name="gateway")
        above = Subscriber(cloud.port, "above", "site/sensors/#")
        sensor = Publisher(gateway.port, "sensor", "sensors/1", range(1000), rate=1000)
        sensor.start()
        sensor.finish(CATCH_UP)
        above.wait_for("site/sensors/1", range(1000), CATCH_UP)
        result.add(sensor.published, sensor.acknowledged, above.of("site/sensors/1"))


@test("bridge: three in one configuration, one cloud away", limit=120)
def several(lab, result):
    near, far, late = lab.larder(name="near"), lab.mosquitto(name="far"), lab.larder(name="late")
    gateway = lab.larder(
        bridge(url(near.port), name="near", forward=["sensors/#"], receive=["cmd/#"])
        + bridge(url(far.port), name="far", version=4, forward=["sensors/+"], receive=["orders/#"])
        + bridge(url(late.port), name="late", forward=[{"filter": "sensors/1", "strip_prefix": "sensors/"}]),
        name="gateway",
        # The default memory_max has no room for 1,000 links and three bridges.
        top="[limits]\nlinks = 200",
    )
    ends = {broker: Subscriber(broker.port, f"above-{broker.name}", "#") for broker in (near, far, late)}
    topics = {near: "sensors/1", far: "sensors/1", late: "1"}
    late.kill()
    below = Subscriber(gateway.port, "below", "#")
    sensor = Publisher(gateway.port, "sensor", "sensors/1", range(1500), rate=1000)
    sensor.start()
    cross(near.port, "first-near", "cmd/near", below, "cmd/near")
    cross(far.port, "first-far", "orders/far", below, "orders/far")
    gateway.crash()
    sensor.finish(CATCH_UP)
    # One cloud that is away keeps nothing from the others.
    for broker in near, far:
        ends[broker].wait_for("sensors/1", range(1500), CATCH_UP)
    late.start()
    for broker, subscriber in ends.items():
        subscriber.wait_for(topics[broker], range(1500), CATCH_UP)
        result.add(sensor.published, sensor.acknowledged, subscriber.of(topics[broker]), what=broker.name)
