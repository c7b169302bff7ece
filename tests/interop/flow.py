"""Publishers and subscribers that live through the ends of brokers and links, and remember what happened."""

import threading
import time

import paho.mqtt.client as paho
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

from lab import HOST, PATIENCE, expect

V311, V5 = paho.MQTTv311, paho.MQTTv5
# A lost link is to be tried again soon, for the tests have little time.
RECONNECT = 0.05


def client(name, version, *, stored=True):
    """A paho client; for a stored session with 5.0, connect with `session()`."""
    options = {"clean_session": not stored} if version != V5 else {}
    made = paho.Client(paho.CallbackAPIVersion.VERSION2, client_id=name, protocol=version, **options)
    made.reconnect_delay_set(RECONNECT, 4 * RECONNECT)
    return made


def session(version, **more):
    """The options of `connect` for a stored session."""
    if version != V5:
        return {}
    properties = Properties(PacketTypes.CONNECT)
    properties.SessionExpiryInterval = 3600
    for key, value in more.items():
        setattr(properties, key, value)
    return {"clean_start": False, "properties": properties}


class Publisher(threading.Thread):
    """Publishes the numbers of a range at QoS 1, so many a second; what was not acknowledged when a link ended is
    published again on the next one.

    One thread connects and publishes: with paho's own thread beside it, a new message may overtake those that paho
    publishes again after CONNACK, and the order would not be the broker's.
    """

    WINDOW = 20

    def __init__(self, port, name, topic, numbers, *, version=V5, rate=400):
        super().__init__(daemon=True)
        self.name_, self.topic, self.numbers = name, topic, numbers
        self.interval = 1 / rate
        self.published, self.acknowledged, self.refused = [], set(), []
        self.by_mid = {}
        self.ready = False
        self.stopping = False
        self.fault = None
        self.client = client(name, version)
        self.client.on_connect = self.on_connect
        self.client.on_disconnect = self.on_disconnect
        self.client.on_publish = self.on_publish
        self.connect = lambda: self.client.connect(HOST, port, **session(version))

    def run(self):
        try:
            self.publish_all()
        except Exception as fault:
            self.fault = fault

    def publish_all(self):
        left = iter(self.numbers)
        number = next(left, None)
        due = time.monotonic()
        linked = False
        while not self.stopping and (number is not None or self.unacknowledged()):
            if not linked:
                linked = self.link()
                continue
            if self.ready and number is not None and self.unacknowledged() < self.WINDOW and time.monotonic() >= due:
                sent = self.client.publish(self.topic, str(number), qos=1)
                self.by_mid[sent.mid] = number
                self.published.append(number)
                number = next(left, None)
                # What a broken link has kept back is not made up for in a burst.
                due = max(due + self.interval, time.monotonic() - 10 * self.interval)
            linked = self.client.loop(min(0.05, max(0, due - time.monotonic()))) == paho.MQTT_ERR_SUCCESS
            self.ready = self.ready and linked
        self.client.disconnect()

    def link(self):
        try:
            self.connect()
            return True
        except OSError:
            time.sleep(RECONNECT)
            return False

    def unacknowledged(self):
        return len(self.published) - len(self.acknowledged) - len(self.refused)

    def on_connect(self, _client, _data, _flags, reason, _properties):
        self.ready = not reason.is_failure

    def on_disconnect(self, *_):
        self.ready = False

    def on_publish(self, _client, _data, mid, reason, _properties):
        number = self.by_mid.pop(mid)
        if reason.is_failure:
            self.refused.append((number, str(reason)))
        else:
            self.acknowledged.add(number)

    def finish(self, seconds):
        """Waits until everything is acknowledged."""
        self.join(seconds)
        if self.fault:
            raise self.fault
        so_far = f"{len(self.acknowledged)} of {len(self.numbers)} acknowledged to {self.name_}"
        expect(not self.is_alive(), f"after {seconds} s {so_far}")
        expect(not self.refused, f"refused to {self.name_}: {self.refused[:3]}")


class Subscriber:
    """A client of a stored session that remembers what came, in its order, by topic."""

    def __init__(self, port, name, topic_filter, *, version=V5):
        self.arrivals = {}
        self.present = []
        self.lock = threading.Lock()
        subscribed = threading.Event()
        self.client = client(name, version)

        def on_connect(client, _data, flags, reason, _properties):
            if reason.is_failure:
                return
            self.present.append(flags.session_present)
            # The broker has to remember the subscription: it is made once.
            if len(self.present) == 1:
                client.subscribe(topic_filter, qos=1)

        def on_message(_client, _data, message):
            with self.lock:
                self.arrivals.setdefault(message.topic, []).append(int(message.payload))

        self.client.on_connect = on_connect
        self.client.on_subscribe = lambda *_: subscribed.set()
        self.client.on_message = on_message
        self.client.connect(HOST, port, **session(version))
        self.client.loop_start()
        expect(subscribed.wait(PATIENCE), f"{name} has no SUBACK")

    def of(self, topic):
        with self.lock:
            return list(self.arrivals.get(topic, []))

    def wait_for(self, topic, numbers, seconds):
        """Until all of these have come, or the time is over: what is missing then is told by the report."""
        due, deadline = set(numbers), time.monotonic() + seconds
        while time.monotonic() < deadline and not due <= set(self.of(topic)):
            time.sleep(0.05)

    def close(self):
        self.client.disconnect()
        self.client.loop_stop()

    def never_forgotten(self):
        """That every connection after the first one found its session."""
        expect(self.present[0] is False and all(self.present[1:]), f"Session Present: {self.present}")


class Chaos(threading.Thread):
    """Does one of these things after another, at random moments, until told to end; each at least once."""

    def __init__(self, random, things, *, pause=(0.2, 1.0), seconds):
        super().__init__(daemon=True)
        self.random, self.things, self.pause = random, things, pause
        self.deadline = time.monotonic() + seconds
        self.done = dict.fromkeys(things, 0)
        self.stopping = threading.Event()
        self.fault = None

    def run(self):
        try:
            while time.monotonic() < self.deadline:
                # All once, in a random order, and again: none is forgotten.
                for name in self.random.sample(sorted(self.things), len(self.things)):
                    if self.stopping.wait(self.random.uniform(*self.pause)):
                        return
                    self.things[name]()
                    self.done[name] += 1
        except Exception as fault:
            self.fault = fault

    def finish(self):
        self.join(self.deadline - time.monotonic() + 2 * PATIENCE)
        if self.fault:
            raise self.fault
        expect(not self.is_alive(), "the chaos does not end")
        return ", ".join(f"{count} × {name}" for name, count in self.done.items())

    def stop(self):
        """Nothing is started any more when this returns."""
        self.stopping.set()
        self.join(2 * PATIENCE)
