"""The brokers, the link that can be cut, and the directory of one test; all ended with it."""

import contextlib
import getpass
import pathlib
import random
import shutil
import signal
import socket
import subprocess
import tempfile
import threading
import time

HOST = "127.0.0.1"
# Starting and stopping a program, in seconds; a slow machine with others on it.
PATIENCE = 15


class Failure(Exception):
    """The test has failed, and the sentence says all."""


def expect(truth, sentence):
    if not truth:
        raise Failure(sentence)


def wait_until(condition, seconds, what):
    """Waits for what another thread or process does; `what` may be a function that tells how far it is."""
    deadline = time.monotonic() + seconds
    while not (value := condition()):
        if time.monotonic() > deadline:
            raise Failure(f"after {seconds} s still waiting for {what() if callable(what) else what}")
        time.sleep(0.01)
    return value


class Lab:
    """Gives a test its brokers, and ends them."""

    def __init__(self, binary, seed):
        self.binary = binary
        self.random = random.Random(seed)
        self.directory = pathlib.Path(tempfile.mkdtemp(prefix="larder-interop-"))
        self.stack = contextlib.ExitStack()
        self.ports = set()

    def larder(self, more="", *, name="larder", top=""):
        """A running larder; `top` is configuration before the listener, `more` after it."""
        broker = Larder(self, name, top, more)
        self.stack.callback(broker.kill)
        broker.start()
        return broker

    def mosquitto(self, more="", *, name="mosquitto"):
        """A running mosquitto; `more` is configuration of another listener."""
        broker = Mosquitto(self, name, more)
        self.stack.callback(broker.kill)
        broker.start()
        return broker

    def link(self, port):
        """A TCP proxy in front of this port."""
        link = Link(port)
        self.stack.callback(link.close)
        return link

    def start(self, command, **options):
        """Any other program."""
        process = subprocess.Popen(command, **options)
        self.stack.callback(end, process, signal.SIGKILL)
        return process

    def at_end(self, function, *arguments):
        self.stack.callback(function, *arguments)

    def free_port(self):
        """A port that nobody has, and nobody in this test will have."""
        while True:
            with socket.socket() as probe:
                probe.bind((HOST, 0))
                port = probe.getsockname()[1]
            if port not in self.ports:
                self.ports.add(port)
                return port

    def end(self):
        self.stack.close()

    def remove(self):
        shutil.rmtree(self.directory, ignore_errors=True)


class Broker:
    """A broker's process, which can be ended and started again on the same port and data."""

    def __init__(self, lab, name):
        self.name = name
        self.port = lab.free_port()
        self.directory = lab.directory / name
        self.directory.mkdir()
        self.log = self.directory / "log"
        self.process = None

    def start(self):
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(self.command(), stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        wait_until(self.answers, PATIENCE, f"{self.name} to listen")

    def answers(self):
        if self.process.poll() is not None:
            raise Failure(f"{self.name} ended with {self.process.returncode}: {self.last_lines()}")
        with socket.socket() as probe:
            return probe.connect_ex((HOST, self.port)) == 0

    def kill(self):
        """SIGKILL: what a power cut is to a process."""
        if self.process:
            end(self.process, signal.SIGKILL)

    def stop(self):
        """SIGTERM; the exit code."""
        end(self.process, signal.SIGTERM)
        return self.process.returncode

    def last_lines(self):
        return " | ".join(self.log.read_text(errors="replace").splitlines()[-5:])


class Larder(Broker):
    def __init__(self, lab, name, top, more):
        super().__init__(lab, name)
        self.binary = lab.binary
        self.config = self.directory / "larder.toml"
        self.configure(more, top)

    def configure(self, more, top=""):
        """Its configuration from its next start on."""
        self.config.write_text(
            f'data_dir = "{self.directory}/data"\n{top}\n[[listener]]\nbind = "{HOST}:{self.port}"\n{more}\n'
        )

    def command(self):
        return [self.binary, "run", "--config", self.config]

    def crash(self):
        """Ends it in the middle of whatever it does, and starts it again."""
        self.kill()
        self.start()


class Mosquitto(Broker):
    def __init__(self, lab, name, more):
        super().__init__(lab, name)
        self.config = self.directory / "mosquitto.conf"
        # It drops root's rights for those of `user`, which the directory belongs to; by default it drops the newest of
        # more than 1,000 queued messages.
        self.config.write_text(
            f"listener {self.port} {HOST}\nallow_anonymous true\nuser {getpass.getuser()}\n"
            f"persistence true\npersistence_location {self.directory}/\nautosave_interval 1\n"
            f"max_queued_messages 0\nset_tcp_nodelay true\n{more}"
        )

    def command(self):
        return ["mosquitto", "-c", self.config]

    def restart(self):
        """It keeps what it has acknowledged over SIGTERM, and would not over SIGKILL."""
        self.stop()
        self.start()


class Link:
    """A TCP proxy whose connections can be cut."""

    def __init__(self, target):
        self.target = target
        self.up = True
        self.lock = threading.Lock()
        self.sockets = set()
        self.listener = socket.create_server((HOST, 0))
        self.port = self.listener.getsockname()[1]
        threading.Thread(target=self.accept, daemon=True).start()

    def cut(self):
        """Ends what is connected, and whatever connects until it is mended."""
        self.up = False
        self.hang_up()

    def mend(self):
        self.up = True

    def close(self):
        self.cut()
        self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()

    def hang_up(self):
        with self.lock:
            for end in self.sockets:
                # It may have been closed by its peer just now.
                with contextlib.suppress(OSError):
                    end.shutdown(socket.SHUT_RDWR)

    def accept(self):
        while True:
            try:
                near, _ = self.listener.accept()
            except OSError:
                return
            try:
                if not self.up:
                    raise ConnectionError
                far = socket.create_connection((HOST, self.target), timeout=5)
                far.settimeout(None)
            except OSError:
                near.close()
                continue
            with self.lock:
                self.sockets |= {near, far}
            for source, sink in [(near, far), (far, near)]:
                source.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                threading.Thread(target=self.pump, args=(source, sink), daemon=True).start()
            if not self.up:
                self.hang_up()

    def pump(self, source, sink):
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                sink.sendall(data)
        for end in source, sink:
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
        with self.lock:
            self.sockets.discard(source)
        # The other pump closes the other one.
        source.close()


def end(process, how):
    if process.poll() is None:
        process.send_signal(how)
        try:
            process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            raise Failure(f"process {process.pid} did not end within {PATIENCE} s of {how.name}") from None


