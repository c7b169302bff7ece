"""The command line clients of Mosquitto, as people use them."""

import json
import os
import queue
import signal
import subprocess
import threading
import time

from lab import HOST, PATIENCE, Failure, expect, wait_until
from report import test

VERSIONS = ["mqttv311", "mqttv5"]
OFTEN = '[sys]\ninterval = "1 s"'


def both_versions(name, **options):
    """A test with `version` as its argument."""

    def register(function):
        for version in reversed(VERSIONS):
            test(f"{name}, {version}", version=version, **options)(function)
        return function

    return register


class Pairs(dict):
    """A JSON object that remembers its order and what has the same name: User Properties."""

    def __init__(self, pairs):
        super().__init__(pairs)
        self.pairs = pairs


class Subscriber:
    """A mosquitto_sub that has its subscription; each message as it is in mosquitto_sub's JSON."""

    def __init__(self, lab, broker, *arguments):
        # Debug output tells when the SUBACK has come; a pipe alone would be written to in large pieces.
        command = ["stdbuf", "-oL", "mosquitto_sub", *address(broker), "-d", "-F", "MESSAGE %j", *arguments]
        self.process = lab.start(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        self.messages = queue.SimpleQueue()
        self.said = []
        self.subscribed = threading.Event()
        threading.Thread(target=self.read, daemon=True).start()
        if not self.subscribed.wait(PATIENCE):
            raise Failure(f"mosquitto_sub has no SUBACK: {self.said}")

    def read(self):
        for line in self.process.stdout:
            if line.startswith("MESSAGE "):
                self.messages.put(json.loads(line.removeprefix("MESSAGE "), object_pairs_hook=Pairs))
                continue
            self.said.append(line.strip())
            if line.startswith("Subscribed"):
                self.subscribed.set()

    def take(self, count):
        """The next so many messages."""
        taken = []
        try:
            while len(taken) < count:
                taken.append(self.messages.get(timeout=PATIENCE))
        except queue.Empty:
            raise Failure(f"{len(taken)} of {count} messages came; {self.said[-5:]}") from None
        return taken

    def nothing_more(self, seconds=0.3):
        try:
            raise Failure(f"came too much: {self.messages.get(timeout=seconds)}")
        except queue.Empty:
            pass


def address(broker):
    return ["-h", HOST, "-p", str(broker.port)]


def call(program, broker, *arguments, text=None):
    """Runs it to its end; its exit code and all that it said."""
    command = [program, *address(broker), *map(str, arguments)]
    done = subprocess.run(
        command, input=text, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=PATIENCE
    )
    return done.returncode, done.stdout


def publish(broker, *arguments, text=None):
    code, said = call("mosquitto_pub", broker, *arguments, text=text)
    expect(code == 0, f"mosquitto_pub {arguments} ended with {code}: {said}")


def lines(numbers):
    return "".join(f"{number}\n" for number in numbers)


def numbers_in(messages):
    return [int(message["payload"]) for message in messages]


@test("mosquitto: every version and QoS to every other")
def every_pair(lab, result):
    larder = lab.larder()
    kinds = [(version, qos) for version in VERSIONS for qos in (0, 1, 2)]
    for version, qos in kinds:
        subscriber = Subscriber(lab, larder, "-V", version, "-q", str(qos), "-t", "from/#")
        for number, (sender, sent) in enumerate(kinds):
            publish(larder, "-V", sender, "-q", sent, "-t", f"from/{sender}/{sent}", "-m", f"{number} grüße")
            [message] = subscriber.take(1)
            seen = message["topic"], message["payload"], message["qos"]
            due = f"from/{sender}/{sent}", f"{number} grüße", min(qos, sent)
            expect(seen == due, f"{version} at QoS {qos} got {seen}, not {due}")


@both_versions("mosquitto: 2,000 lines from stdin")
def many_small(lab, result, version):
    larder = lab.larder()
    # Without -c, more than a bounded queue of them would be dropped for a reader that is slower than the publisher.
    subscriber = Subscriber(lab, larder, "-V", version, "-i", "reader", "-c", "-q", "1", "-t", "lines")
    publish(larder, "-V", version, "-q", 1, "-t", "lines", "-l", text=lines(range(2000)))
    result.add(range(2000), range(2000), numbers_in(subscriber.take(2000)))
    expect(result.counts["doubled"] == 0, "a live link doubles nothing")


@test("mosquitto: wildcards")
def wildcards(lab, result):
    larder = lab.larder()
    topics = ["a", "a/b", "a/b/c", "a//c", "/a", "b/b/c"]
    for filters, due in [
        (["#"], topics),
        (["a/#"], ["a", "a/b", "a/b/c", "a//c"]),
        (["+"], ["a"]),
        (["+/+"], ["a/b", "/a"]),
        (["a/+/c"], ["a/b/c", "a//c"]),
        (["+/b/#"], ["a/b", "a/b/c", "b/b/c"]),
        (["a/b", "b/#"], ["a/b", "b/b/c"]),
    ]:
        options = [option for one in filters for option in ("-t", one)]
        subscriber = Subscriber(lab, larder, "-V", "mqttv5", "-q", "1", *options)
        for topic in [*topics, "b/end"]:
            publish(larder, "-q", 1, "-t", topic, "-m", topic)
        seen = [message["topic"] for message in subscriber.take(len(due))]
        expect(seen == due, f"{filters}: {seen}, not {due}")
        subscriber.process.kill()


@both_versions("mosquitto: -c over disconnects, kill -9 and SIGTERM")
def persistent(lab, result, version):
    larder = lab.larder()
    session = ["-V", version, "-i", "reader", "-c", "-q", 1, "-t", "kept/#"]
    expect(call("mosquitto_sub", larder, *session, "-E")[0] == 0, "the first subscription")

    def sent(first, last):
        publish(larder, "-V", version, "-q", 1, "-t", "kept/line", "-l", text=lines(range(first, last)))

    def read(count):
        code, said = call("mosquitto_sub", larder, *session, "-C", count)
        expect(code == 0, f"mosquitto_sub ended with {code}: {said}")
        arrivals.extend(int(line) for line in said.split())

    arrivals = []
    sent(0, 500)
    larder.crash()
    sent(500, 1000)
    read(300)
    larder.crash()
    read(100)
    expect(larder.stop() == 0, "SIGTERM is no failure")
    larder.start()
    sent(1000, 1500)
    larder.crash()
    # What was on its way to a client that left comes again.
    while not arrivals or arrivals[-1] < 1499:
        read(100 if len(set(arrivals)) <= 1400 else 1)
    result.add(range(1500), range(1500), arrivals)


@test("mosquitto: 5.0 properties")
def properties(lab, result):
    larder = lab.larder()
    subscribe = ["-V", "mqttv5", "-q", "1", "-t", "p/#", "-D", "subscribe", "subscription-identifier", "4711"]
    later, last = ["-i", "later", "-c", *subscribe], ["-i", "last", "-c", *subscribe]
    live = Subscriber(lab, larder, *subscribe)
    for session in later, last:
        expect(call("mosquitto_sub", larder, *session, "-E")[0] == 0, "a stored subscription")
    publish_with_properties(larder, "p/1")
    # A counter of seconds is seen to count after more than one.
    time.sleep(2.1)
    has_properties("live", live.take(1)[0], [60])
    has_properties("stored", Subscriber(lab, larder, *later).take(1)[0], range(50, 59))
    # How old a message is, is on disk to the minute.
    larder.crash()
    has_properties("after kill -9", Subscriber(lab, larder, *last).take(1)[0], range(50, 61))


USER_PROPERTIES = [("b", "1"), ("a", "2"), ("b", "1"), ("", "")]
PROPERTIES = {
    "content-type": "text/plain",
    "response-topic": "answers/here",
    "correlation-data": "four ty-two",
    "payload-format-indicator": 1,
}


def publish_with_properties(broker, topic):
    """All that there are, and a Message Expiry Interval of 60 s."""
    given = [("user-property", name, value) for name, value in USER_PROPERTIES]
    given += [(name, str(value)) for name, value in PROPERTIES.items()]
    given += [("message-expiry-interval", "60")]
    options = [part for one in given for part in ("-D", "publish", *one)]
    publish(broker, "-V", "mqttv5", "-q", 1, "-t", topic, "-m", "x", *options)


def has_properties(name, message, expiry):
    seen = message["properties"]
    due = PROPERTIES | {"subscription-identifier": 4711}
    expect({key: seen.get(key) for key in due} == due, f"{name}: {message}")
    expect(seen.get("message-expiry-interval") in expiry, f"{name}: {message}")
    users = seen.get("user-properties", Pairs([])).pairs
    expect(users == USER_PROPERTIES, f"{name}: {users}")


@test("mosquitto: a message that has expired does not come")
def expired(lab, result):
    larder = lab.larder()
    session = ["-V", "mqttv5", "-i", "reader", "-c", "-q", "1", "-t", "e"]
    expect(call("mosquitto_sub", larder, *session, "-E")[0] == 0, "the stored subscription")
    publish(larder, "-V", "mqttv5", "-q", 1, "-t", "e", "-m", "short", "-D", "publish", "message-expiry-interval", 1)
    publish(larder, "-V", "mqttv5", "-q", 1, "-t", "e", "-m", "long", "-D", "publish", "message-expiry-interval", 60)
    time.sleep(2.1)
    subscriber = Subscriber(lab, larder, *session)
    expect(subscriber.take(1)[0]["payload"] == "long", "the expired one came")
    subscriber.nothing_more()


@both_versions("mosquitto: 200 KiB, and more than packet_max")
def large(lab, result, version):
    larder = lab.larder()
    session = ["-V", version, "-i", "reader", "-c", "-q", 1, "-t", "file"]
    expect(call("mosquitto_sub", larder, *session, "-E")[0] == 0, "the stored subscription")
    fits, too_large = lab.directory / "fits", lab.directory / "large"
    fits.write_bytes(os.urandom(200 * 1024))
    too_large.write_bytes(os.urandom(300 * 1024))
    publish(larder, "-V", version, "-q", 1, "-t", "file", "-f", fits)
    code, said = call("mosquitto_pub", larder, "-V", version, "-q", 1, "-t", "file", "-f", too_large, "-d")
    if version == "mqttv5":
        # It has read the Maximum Packet Size of the CONNACK, and sends nothing.
        expect("PUBLISH" not in said, f"mosquitto_pub: {code}, {said}")
    else:
        expect(code != 0, f"mosquitto_pub: {code}, {said}")
    publish(larder, "-V", version, "-q", 1, "-t", "file", "-f", fits)
    larder.crash()
    options = [*address(larder), *map(str, session), "-C", "2", "-N"]
    done = subprocess.run(["mosquitto_sub", *options], stdout=subprocess.PIPE, timeout=PATIENCE)
    expect(done.stdout == 2 * fits.read_bytes(), f"{len(done.stdout)} bytes came, or others")


@both_versions("mosquitto: QoS 2, kill -9 between two bursts")
def exactly_once(lab, result, version):
    larder = lab.larder()
    arguments = ["-V", version, "-i", "reader", "-c", "-q", "2", "-t", "lines"]
    subscriber = Subscriber(lab, larder, *arguments)
    publish(larder, "-V", version, "-q", 2, "-t", "lines", "-l", text=lines(range(500)))
    arrivals = numbers_in(subscriber.take(500))
    larder.crash()
    publish(larder, "-V", version, "-q", 2, "-t", "lines", "-l", text=lines(range(500, 1000)))
    # mosquitto_sub comes back by itself, and takes up its session.
    arrivals += numbers_in(subscriber.take(500))
    subscriber.nothing_more()
    result.add(range(1000), range(1000), arrivals, once=True)


@both_versions("mosquitto: retained messages, kill -9, and their removal")
def retained(lab, result, version):
    larder = lab.larder()
    for number in range(50):
        publish(larder, "-V", version, "-q", number % 3, "-r", "-t", f"state/{number}", "-m", number)
    publish(larder, "-V", version, "-q", 1, "-r", "-t", "state/7", "-m", 700)
    publish(larder, "-V", version, "-q", 1, "-r", "-t", "state/8", "-n")
    due = sorted([*(number for number in range(50) if number not in (7, 8)), 700])
    seen = Subscriber(lab, larder, "-V", version, "-q", "2", "-t", "state/+").take(49)
    expect(sorted(numbers_in(seen)) == due, sorted(numbers_in(seen)))
    expect(all(message["retain"] for message in seen), "RETAIN 1 for a new subscription")
    larder.crash()
    seen = Subscriber(lab, larder, "-V", version, "-q", "1", "-t", "state/7").take(1)
    expect(numbers_in(seen) == [700], seen)
    # QoS 0 is written once a minute: of that a crash may leave less.
    kept = {number for number in due if number % 3 or number == 700}
    reader = Subscriber(lab, larder, "-V", version, "-i", "all", "-c", "-q", "1", "-t", "state/#")
    arrived = set()
    while not kept <= arrived:
        arrived |= set(numbers_in(reader.take(1)))
    expect(arrived <= set(due), f"came though it was replaced or removed: {arrived - set(due)}")


@both_versions("mosquitto: a Will, where the client is killed and where it ends")
def wills(lab, result, version):
    larder = lab.larder()
    watcher = Subscriber(lab, larder, "-V", version, "-q", "1", "-t", "gone/+")
    will = ["--will-topic", "gone/{}", "--will-payload", "farewell", "--will-qos", "1"]
    for name in ("killed", "polite"):
        arguments = [argument.format(name) for argument in will]
        client = Subscriber(lab, larder, "-V", version, "-i", name, "-t", "nothing", *arguments)
        # Told to end, mosquitto_sub says DISCONNECT; with 5.0, DISCONNECT with Will Message.
        client.process.send_signal(signal.SIGKILL if name == "killed" else signal.SIGTERM)
        if name == "killed" or version == "mqttv5":
            [message] = watcher.take(1)
            expect((message["topic"], message["payload"]) == (f"gone/{name}", "farewell"), message)
    watcher.nothing_more()


@test("mosquitto: a shared subscription is shared")
def shared(lab, result):
    larder = lab.larder()
    members = [
        Subscriber(lab, larder, "-V", version, "-i", f"member-{version}", "-c", "-q", "1", "-t", "$share/team/work/#")
        for version in VERSIONS
    ]
    publish(larder, "-q", 1, "-t", "work/x", "-l", text=lines(range(400)))
    arrivals = []
    wait_until(lambda: sum(member.messages.qsize() for member in members) >= 400, PATIENCE, "400 messages")
    for member in members:
        arrivals.append(numbers_in(member.take(member.messages.qsize())))
    expect(min(map(len, arrivals)) > 100, f"the members got {list(map(len, arrivals))}")
    result.add(range(400), range(400), sum(arrivals, []), ordered=False, once=True)


@test("mosquitto: $SYS")
def sys_topics(lab, result):
    larder = lab.larder(OFTEN)
    everything = Subscriber(lab, larder, "-t", "#")
    # Those that were there already come first, with RETAIN: -R does not print them.
    subscriber = Subscriber(lab, larder, "-R", "-t", "$SYS/#")
    seen = {message["topic"]: message["payload"] for message in subscriber.take(60)}
    expect(seen.get("$SYS/broker/clients/connected") == "2", seen)
    expect(seen.get("$SYS/broker/uptime") in [f"{seconds} seconds" for seconds in range(20)], seen)
    expect(float(seen.get("$SYS/broker/load/messages/received/1min")) > 0, seen)
    # Nobody else may speak for the broker; whether and how it is refused is the client's version's.
    call("mosquitto_pub", larder, "-V", "mqttv5", "-q", 1, "-t", "$SYS/broker/uptime", "-m", "fraud")
    payloads = [message["payload"] for message in subscriber.take(120)]
    expect("fraud" not in payloads, payloads)
    # A wildcard in front matches nothing that begins with $ [MQTT-4.7.2-1].
    everything.nothing_more(0)


@both_versions("mosquitto: a Unix socket")
def unix_socket(lab, result, version):
    path = lab.directory / "larder.sock"
    larder = lab.larder(f'[[listener]]\nbind = "unix:{path}"')
    subscriber = Subscriber(lab, larder, "-V", version, "--unix", str(path), "-q", "1", "-t", "u")
    for _ in range(2):
        publish(larder, "-V", version, "--unix", path, "-q", 1, "-t", "u", "-l", text=lines(range(100)))
        result.add(range(100), range(100), numbers_in(subscriber.take(100)))
        # The path of the killed one is in the way of the next.
        larder.crash()
        subscriber = Subscriber(lab, larder, "-V", version, "--unix", str(path), "-q", "1", "-t", "u")


@test("mosquitto: unsubscribe from a stored session")
def unsubscribe(lab, result):
    larder = lab.larder()
    session = ["-V", "mqttv5", "-i", "reader", "-c", "-q", "1"]
    expect(call("mosquitto_sub", larder, *session, "-t", "a", "-t", "b", "-E")[0] == 0, "subscribe")
    larder.crash()
    process = Subscriber(lab, larder, *session, "-t", "c", "-U", "a")
    wait_until(lambda: any("UNSUBACK" in line for line in process.said), PATIENCE, "UNSUBACK")
    process.process.terminate()
    process.process.wait()
    larder.crash()
    for topic in "abc":
        publish(larder, "-q", 1, "-t", topic, "-m", topic)
    process = Subscriber(lab, larder, *session, "-t", "d")
    seen = [message["topic"] for message in process.take(2)]
    expect(seen == ["b", "c"], seen)
    process.nothing_more()
