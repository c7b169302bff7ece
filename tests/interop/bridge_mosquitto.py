"""A bridge with Debian's mosquitto as the cloud."""

import subprocess
import time

from bridging import CATCH_UP, FORWARD, RECEIVE, bridge, cross, streams_through_chaos, url
from flow import Publisher, Subscriber
from lab import HOST, PATIENCE, expect
from mosquitto_clients import has_properties, publish, publish_with_properties
from mosquitto_clients import Subscriber as MosquittoSub
from report import test


@test("bridge to mosquitto, 3.1.1: cuts, SIGTERM there, SIGKILL here", version=4, limit=120)
@test("bridge to mosquitto, 5.0: cuts, SIGTERM there, SIGKILL here", version=5, limit=120)
def chaos(lab, result, version):
    cloud = lab.mosquitto()
    link = lab.link(cloud.port)
    gateway = lab.larder(bridge(url(link.port), version=version, forward=FORWARD, receive=RECEIVE))

    def cut():
        link.cut()
        time.sleep(lab.random.uniform(0, 0.4))
        link.mend()

    things = {"cut": cut, "mosquitto restarted": cloud.restart, "larder killed": gateway.crash}
    streams_through_chaos(lab, result, gateway, cloud, things, counts=(3000, 1500), seconds=12, rate=250)


@test("bridge to mosquitto: a backlog while the cloud is away", limit=90)
def backlog(lab, result):
    cloud = lab.mosquitto()
    gateway = lab.larder(bridge(url(cloud.port), forward=FORWARD))
    above = Subscriber(cloud.port, "above", "site/sensors/#")
    cross(gateway.port, "first", "sensors/first", above, "site/sensors/first")
    cloud.stop()
    sensor = Publisher(gateway.port, "sensor", "sensors/1", range(5000), rate=4000)
    sensor.start()
    sensor.finish(CATCH_UP)
    gateway.crash()
    cloud.start()
    above.wait_for("site/sensors/1", range(5000), CATCH_UP)
    result.add(sensor.published, sensor.acknowledged, above.of("site/sensors/1"))


@test("bridge to mosquitto: 5.0 properties cross, Message Expiry goes on counting")
def properties(lab, result):
    cloud = lab.mosquitto()
    link = lab.link(cloud.port)
    gateway = lab.larder(bridge(url(link.port), forward=FORWARD, receive=RECEIVE))
    reader = ["-V", "mqttv5", "-q", "1", "-D", "subscribe", "subscription-identifier", "4711"]
    above = MosquittoSub(lab, cloud, *reader, "-t", "site/sensors/#")
    below = MosquittoSub(lab, gateway, *reader, "-t", "cmd/#")
    linked = Subscriber(cloud.port, "linked", "site/sensors/linked")
    cross(gateway.port, "first", "sensors/linked", linked, "site/sensors/linked")
    while above.take(1)[0]["topic"] != "site/sensors/linked":
        pass

    link.cut()
    for broker, topic in [(gateway, "sensors/1"), (cloud, "site/cmd/1")]:
        publish_with_properties(broker, topic)
        expires = ["-D", "publish", "message-expiry-interval", 1]
        publish(broker, "-V", "mqttv5", "-q", 1, "-t", topic, "-m", "late", *expires)
    time.sleep(2.1)
    link.mend()
    for subscriber, topic in [(above, "site/sensors/1"), (below, "cmd/1")]:
        [message] = [one for one in subscriber.take(1) if one["topic"] == topic]
        has_properties(topic, message, range(50, 59))
        subscriber.nothing_more()


@test("bridge to mosquitto, 5.0: one topic both ways does not go round")
def no_loop(lab, result):
    cloud = lab.mosquitto()
    gateway = lab.larder(bridge(url(cloud.port), forward=["both/#"], receive=["both/#"]))
    ends = {broker.name: Subscriber(broker.port, f"reader-{broker.name}", "both/#") for broker in (cloud, gateway)}
    for broker in cloud, gateway:
        other = gateway if broker is cloud else cloud
        topic = f"both/first/{broker.name}"
        cross(broker.port, f"first-{broker.name}", topic, ends[other.name], topic)
    for broker in cloud, gateway:
        topic = f"both/{broker.name}"
        publisher = Publisher(broker.port, f"writer-{broker.name}", topic, range(500), rate=2000)
        publisher.start()
        publisher.finish(CATCH_UP)
        for subscriber in ends.values():
            subscriber.wait_for(topic, range(500), CATCH_UP)
    # Time for what goes round to do so.
    time.sleep(0.5)
    for subscriber in ends.values():
        for topic in "both/mosquitto", "both/larder":
            result.add(range(500), range(500), subscriber.of(topic), what=topic)
    expect(result.counts["doubled"] == 0, f"{result.counts['doubled']} came twice over links that were never cut")


@test("bridge to mosquitto, 3.1.1: rules that go round are refused")
def loop_refused(lab, result):
    file = lab.directory / "round.toml"
    rules = bridge(url(lab.free_port()), version=4, forward=["both/#"], receive=["both/+/x"])
    file.write_text(f'data_dir = "{lab.directory}/data"\n[[listener]]\nbind = "{HOST}:{lab.free_port()}"\n{rules}')
    for command in "run", "check":
        done = subprocess.run(
            [lab.binary, command, "--config", file], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
            timeout=PATIENCE,
        )
        line = 1 + file.read_text().splitlines().index('forward = [{ filter = "both/#" }]')
        expect(done.returncode == 1, f"larder {command} ended with {done.returncode}")
        said = done.stderr.strip()
        for part in f"{file}:{line}", "both/#", "both/+/x", "No Local":
            expect(part in said, f"larder {command} says nothing of {part}: {said}")
        expect(len(said.splitlines()) == 1, f"more than one error: {said}")


@test("bridge to mosquitto, 3.1.1: what is retained on one side is retained on the other", version=4)
@test("bridge to mosquitto, 5.0: what is retained on one side is retained on the other", version=5)
def retained(lab, result, version):
    cloud, gateway = lab.mosquitto(), lab.larder()
    publish(cloud, "-r", "-q", 1, "-t", "site/cmd/before", "-m", "above")
    publish(gateway, "-r", "-q", 1, "-t", "sensors/before", "-m", "below")
    # The bridge comes later than what is retained already.
    gateway.stop()
    gateway.configure(bridge(url(cloud.port), version=version, forward=FORWARD, receive=RECEIVE))
    gateway.start()
    for broker, other, mine, theirs in [
        (gateway, cloud, "sensors", "site/sensors"),
        (cloud, gateway, "site/cmd", "cmd"),
    ]:
        side = "below" if broker is gateway else "above"
        watcher = MosquittoSub(lab, other, "-q", "1", "-t", f"{theirs}/#")
        expect(watcher.take(1)[0]["payload"] == side, "what was there already")
        publish(broker, "-r", "-q", 1, "-t", f"{mine}/now", "-m", side)
        expect(watcher.take(1)[0]["topic"] == f"{theirs}/now", "what came then")
        due = [f"{theirs}/before", f"{theirs}/now"]
        if version == 4 and broker is cloud:
            # A 3.1.1 client is not told of new messages that they are retained.
            due.pop()
        reader = MosquittoSub(lab, other, "-q", "1", "-t", f"{theirs}/#")
        seen = reader.take(len(due))
        expect(sorted(message["topic"] for message in seen) == due, seen)
        expect(all(message["retain"] for message in seen), seen)
        reader.nothing_more()
        publish(broker, "-r", "-q", 1, "-t", f"{mine}/now", "-n")
        watcher.take(1)
        MosquittoSub(lab, other, "-q", "1", "-t", f"{theirs}/now").nothing_more()
