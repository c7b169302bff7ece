"""paho-mqtt for Python, with its own thread, as people use it."""

import queue
import threading
import time

from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.subscribeoptions import SubscribeOptions

from flow import V5, V311, client, session
from lab import HOST, PATIENCE, Failure, expect, wait_until
from report import test


class Client:
    """A paho client with its thread running, and queues of what it is told."""

    def __init__(self, lab, broker, name, version=V5, *, stored=True, **properties):
        self.connects, self.disconnects = queue.SimpleQueue(), queue.SimpleQueue()
        self.subacks, self.messages = queue.SimpleQueue(), queue.SimpleQueue()
        self.acknowledged = set()
        self.client = client(name, version, stored=stored)
        self.client.on_connect = lambda _c, _d, flags, reason, told: self.connects.put((flags, reason, told))
        self.client.on_disconnect = lambda _c, _d, _flags, reason, _p: self.disconnects.put(reason)
        self.client.on_subscribe = lambda _c, _d, _mid, reasons, _p: self.subacks.put(reasons)
        self.client.on_message = lambda _c, _d, message: self.messages.put(message)
        self.client.on_publish = lambda _c, _d, mid, reason, _p: reason.is_failure or self.acknowledged.add(mid)
        options = session(version, **properties) if stored else {}
        self.connect = lambda: self.client.connect(HOST, broker.port, **options)
        lab.at_end(self.stop)

    def start(self):
        self.connect()
        self.client.loop_start()
        return self.connected()

    def connected(self):
        flags, reason, told = self.connects.get(timeout=PATIENCE)
        expect(not reason.is_failure, f"CONNACK: {reason}")
        return flags, told

    def subscribe(self, *arguments, **options):
        self.client.subscribe(*arguments, **options)
        return [reason.value for reason in self.subacks.get(timeout=PATIENCE)]

    def take(self, count):
        taken = []
        try:
            while len(taken) < count:
                taken.append(self.messages.get(timeout=PATIENCE))
        except queue.Empty:
            raise Failure(f"{len(taken)} of {count} messages came") from None
        return taken

    def stop(self):
        self.client.disconnect()
        self.client.loop_stop()


# With 5.0 paho sends all that it holds at once when it is connected again, more than Receive Maximum if that is more,
# and is disconnected for it: the program has to hold back.
@test("paho: kill -9 three times under a stream, 3.1.1", version=V311, backlog=3000, qos=1)
@test("paho: kill -9 three times under a stream, 5.0", version=V5, backlog=60, qos=1)
@test("paho: kill -9 three times under a stream, QoS 2, 3.1.1", version=V311, backlog=60, qos=2)
@test("paho: kill -9 three times under a stream, QoS 2, 5.0", version=V5, backlog=60, qos=2)
def killed(lab, result, version, backlog, qos):
    larder = lab.larder()
    reader, writer = Client(lab, larder, "reader", version), Client(lab, larder, "writer", version)
    flags, _ = reader.start()
    expect(not flags.session_present, "a session before there was one")
    expect(reader.subscribe("stream/#", qos=qos) == [qos], "SUBACK")
    writer.start()
    sent = {}
    for number in range(3000):
        wait_until(lambda: number - len(writer.acknowledged) < backlog, PATIENCE, f"room for number {number}")
        sent[writer.client.publish("stream/n", str(number), qos=qos).mid] = number
        if number % 1000 == 500:
            larder.crash()
        time.sleep(0.0005)
    wait_until(lambda: len(writer.acknowledged) == 3000, 30, lambda: f"{len(writer.acknowledged)} of 3000 acknowledged")
    arrivals = [int(message.payload) for message in reader.take(3000)]
    while len(set(arrivals)) < 3000:
        arrivals += [int(message.payload) for message in reader.take(1)]
    wait_until(lambda: reader.connects.qsize() >= 3, PATIENCE, "three connections")
    while not reader.connects.empty():
        expect(reader.connected()[0].session_present, "Session Present after kill -9")
    # paho's thread publishes the old ones again while ours publishes new ones: the order is not the broker's.
    result.add(sent.values(), {sent[mid] for mid in writer.acknowledged}, arrivals, ordered=False, once=qos == 2)


@test("paho: clean_session ends the session, 3.1.1", version=V311)
@test("paho: clean_start ends the session, 5.0", version=V5)
def clean(lab, result, version):
    larder = lab.larder()
    reader = Client(lab, larder, "reader", version)
    reader.start()
    reader.subscribe("kept", qos=1)
    reader.stop()
    reader = Client(lab, larder, "reader", version)
    expect(reader.start()[0].session_present, "the session was forgotten")
    # It would come back by itself, and take the session over.
    reader.stop()
    larder.crash()
    again = Client(lab, larder, "reader", version, stored=False)
    expect(not again.start()[0].session_present, "the session was not ended")
    again.stop()
    larder.crash()
    expect(not Client(lab, larder, "reader", version).start()[0].session_present, "the session came back")


@test("paho: takeover tells 0x8E")
def takeover(lab, result):
    larder = lab.larder()
    first, second = Client(lab, larder, "one"), Client(lab, larder, "one")
    # One that comes back by itself would take the session over in its turn.
    first.client._reconnect_on_failure = False
    first.start()
    first.subscribe("t", qos=1)
    expect(second.start()[0].session_present, "the session was not taken over")
    reason = first.disconnects.get(timeout=PATIENCE)
    expect(reason.value == 0x8E, f"the first one was told {reason}")
    second.client.publish("t", "x", qos=1)
    expect(second.take(1)[0].payload == b"x", "the subscription")


@test("paho: SIGTERM tells 0x8B")
def shutting_down(lab, result):
    larder = lab.larder()
    one = Client(lab, larder, "one")
    one.start()
    expect(larder.stop() == 0, "exit code")
    reason = one.disconnects.get(timeout=PATIENCE)
    expect(reason.value == 0x8B, f"told {reason}")


@test("paho: Receive Maximum both ways")
def receive_maximum(lab, result):
    larder = lab.larder(top="[limits]\nreceive_maximum = 10")
    reader = Client(lab, larder, "reader", ReceiveMaximum=5)
    reader.client.manual_ack_set(True)
    reader.start()
    reader.subscribe("r", qos=1)
    writer = Client(lab, larder, "writer")
    # paho does not keep to what the CONNACK says by itself.
    writer.client.max_inflight_messages_set(10)
    _, told = writer.start()
    expect(told.ReceiveMaximum == 10, told)
    for number in range(200):
        writer.client.publish("r", str(number), qos=1)
    wait_until(lambda: len(writer.acknowledged) == 200, PATIENCE, "200 acknowledgements")
    expect(writer.disconnects.empty(), "the link ended")

    arrivals = []
    unacknowledged = reader.take(5)
    while unacknowledged:
        time.sleep(0.2 if len(arrivals) < 10 else 0)
        expect(len(arrivals) > 10 or reader.messages.empty(), "more than Receive Maximum came")
        message = unacknowledged.pop(0)
        arrivals.append(int(message.payload))
        reader.client.ack(message.mid, message.qos)
        if len(arrivals) + len(unacknowledged) < 200:
            unacknowledged += reader.take(1)
    result.add(range(200), range(200), arrivals)


@test("paho: 5.0 properties and subscription options")
def properties(lab, result):
    larder = lab.larder()
    one, other = Client(lab, larder, "one"), Client(lab, larder, "other")
    one.start()
    other.start()
    identified = Properties(PacketTypes.SUBSCRIBE)
    identified.SubscriptionIdentifier = 268_435_455
    expect(one.subscribe("p/#", options=SubscribeOptions(qos=1, noLocal=True), properties=identified) == [1], "SUBACK")
    expect(other.subscribe([("p/#", SubscribeOptions(qos=1)), ("p/+", SubscribeOptions(qos=0))]) == [1, 0], "SUBACK")

    given = Properties(PacketTypes.PUBLISH)
    given.UserProperty = [("z", "1"), ("a", "2"), ("z", "1")]
    given.ContentType = "application/cbor"
    given.ResponseTopic = "answers/ä"
    given.CorrelationData = bytes(range(256))
    given.PayloadFormatIndicator = 0
    given.MessageExpiryInterval = 4_294_967_295
    one.client.publish("p/own", "own", qos=1)
    # Two filters of one session match: one copy with the highest QoS, or a copy for each [MQTT-3.3.4-2].
    [message] = other.take(1)
    expect((message.topic, message.qos) == ("p/own", 1), f"{message.topic} came with QoS {message.qos}")
    other.client.publish("p/x", b"\x00\xff", qos=1, properties=given)

    [message] = one.take(1)
    expect(message.payload == b"\x00\xff", "No Local, or the payload")
    seen = message.properties
    for name in ["UserProperty", "ContentType", "ResponseTopic", "CorrelationData", "MessageExpiryInterval"]:
        expect(getattr(seen, name) == getattr(given, name), f"{name}: {getattr(seen, name, None)}")
    expect(seen.SubscriptionIdentifier == [268_435_455], seen)


@test("paho: request and response")
def request_response(lab, result):
    larder = lab.larder()
    server, asker = Client(lab, larder, "server"), Client(lab, larder, "asker")

    def answer(client, _data, message):
        answered = Properties(PacketTypes.PUBLISH)
        answered.CorrelationData = message.properties.CorrelationData
        client.publish(message.properties.ResponseTopic, message.payload[::-1], qos=1, properties=answered)

    server.client.on_message = answer
    server.start()
    server.subscribe("ask/#", qos=1)
    asker.start()
    asker.subscribe("answers/asker", qos=1)
    for number in range(300):
        asked = Properties(PacketTypes.PUBLISH)
        asked.ResponseTopic, asked.CorrelationData = "answers/asker", str(number).encode()
        asker.client.publish("ask/reverse", f"{number:05}", qos=1, properties=asked)
    answers = asker.take(300)
    for message in answers:
        number = int(message.properties.CorrelationData)
        expect(message.payload.decode() == f"{number:05}"[::-1], f"{number}: {message.payload}")
    result.add(range(300), range(300), [int(message.properties.CorrelationData) for message in answers])


@test("paho: keep alive holds an idle link", limit=30)
def keep_alive(lab, result):
    larder = lab.larder()
    one = client("one", V5)
    ended = threading.Event()
    one.on_disconnect = lambda *_: ended.set()
    one.connect(HOST, larder.port, keepalive=1, **session(V5))
    one.loop_start()
    lab.at_end(one.loop_stop)
    expect(not ended.wait(4), "the link of a client that sends PINGREQ was ended")
    one.disconnect()
