"""What the tests of a bridge have in common: its configuration, and one stream up and one down through chaos."""

from flow import Chaos, Publisher, Subscriber
from lab import expect

# The whole way back to order after the last harm, in seconds.
CATCH_UP = 40


def bridge(*urls, version=5, name="cloud", forward=(), receive=(), more=""):
    """A [[bridge]] as larder.toml has it. A rule is a dict, or a filter alone."""

    def rules(key, given):
        written = []
        for rule in given:
            rule = {"filter": rule} if isinstance(rule, str) else rule
            written.append("{ " + ", ".join(f'{part} = "{value}"' for part, value in rule.items()) + " }")
        return f"{key} = [{', '.join(written)}]\n" if written else ""

    listed = ", ".join(f'"{url}"' for url in urls)
    return (
        f'[[bridge]]\nname = "{name}"\nurl = [{listed}]\nversion = {version}\nclient_id = "gateway-{name}"\n'
        f'reconnect_min = "50 ms"\nreconnect_max = "400 ms"\n{more}\n'
        + rules("forward", forward) + rules("receive", receive)
    )


def url(port):
    return f"mqtt://127.0.0.1:{port}"


# What the streams below need of a bridge.
FORWARD = [{"filter": "sensors/#", "remote_prefix": "site/"}]
RECEIVE = [{"filter": "site/cmd/#", "strip_prefix": "site/"}]


def streams_through_chaos(lab, result, gateway, cloud, things, *, counts, seconds, rate, pause=(0.2, 0.9)):
    """Two sensors at the gateway, one command stream at the cloud, subscribers with stored sessions at the other ends;
    meanwhile these things happen, for so many seconds. Nothing acknowledged may be missing."""
    ups, downs = counts
    above = Subscriber(cloud.port, "above", "site/sensors/#")
    below = Subscriber(gateway.port, "below", "cmd/#")
    # The cloud knows the bridge's session from its first connection on: what was published before that is nobody's.
    cross(gateway.port, "first-up", "sensors/first", above, "site/sensors/first")
    cross(cloud.port, "first-down", "site/cmd/first", below, "cmd/first")

    flows = [
        (Publisher(gateway.port, "sensor-4", "sensors/4", range(ups), version=4, rate=rate), above, "site/sensors/4"),
        (Publisher(gateway.port, "sensor-5", "sensors/5", range(ups), version=5, rate=rate), above, "site/sensors/5"),
        (Publisher(cloud.port, "master", "site/cmd/go", range(downs), version=5, rate=rate), below, "cmd/go"),
    ]
    chaos = Chaos(lab.random, things, pause=pause, seconds=seconds)
    chaos.start()
    lab.at_end(chaos.stop)
    for publisher, _, _ in flows:
        publisher.start()
        lab.at_end(setattr, publisher, "stopping", True)
    happened = chaos.finish()
    for publisher, subscriber, topic in flows:
        publisher.finish(CATCH_UP)
        subscriber.wait_for(topic, publisher.acknowledged, CATCH_UP)
    for publisher, subscriber, topic in flows:
        result.add(publisher.published, publisher.acknowledged, subscriber.of(topic), what=topic)
    result.note = happened
    for subscriber in above, below:
        subscriber.never_forgotten()
        subscriber.close()
    strange = set(above.arrivals) | set(below.arrivals)
    expect(len(strange) == 5, f"topics that came: {sorted(strange)}")


def cross(port, name, topic, subscriber, arrives_as):
    """Publishes until one has come through."""
    for number in range(100):
        publisher = Publisher(port, name, topic, [number])
        publisher.start()
        publisher.finish(CATCH_UP)
        subscriber.wait_for(arrives_as, [number], 0.2)
        if subscriber.of(arrives_as):
            return
    raise AssertionError(f"{topic} does not arrive as {arrives_as}")
