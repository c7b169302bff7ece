"""A bridge with Debian's mosquitto as the cloud, over TLS with certificates on both sides."""

import subprocess
import time

from bridging import FORWARD, RECEIVE, bridge, cross, streams_through_chaos
from flow import Subscriber
from lab import HOST, PATIENCE, expect, wait_until
from report import test


class Authority:
    """A CA and what it has signed, as files."""

    def __init__(self, directory):
        self.directory = directory
        directory.mkdir(exist_ok=True)
        self.ca = directory / "ca.pem"
        self.openssl("req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", 2,
                     "-subj", "/CN=authority", "-keyout", directory / "ca.key", "-out", self.ca)

    def issue(self, name, *, alternative, usage, key_kind=("ec", "-pkeyopt", "ec_paramgen_curve:P-256")):
        """A certificate and its key, which only their owner can read."""
        certificate, key, request = (self.directory / f"{name}.{end}" for end in ("pem", "key", "csr"))
        extensions = self.directory / f"{name}.ext"
        extensions.write_text(
            f"basicConstraints=CA:FALSE\nkeyUsage=digitalSignature\nextendedKeyUsage={usage}\n"
            f"subjectAltName={alternative}\n"
        )
        self.openssl("req", "-newkey", *key_kind, "-nodes", "-subj", f"/CN={name}", "-keyout", key, "-out", request)
        self.openssl("x509", "-req", "-in", request, "-CA", self.ca, "-CAkey", self.directory / "ca.key",
                     "-CAcreateserial", "-days", 2, "-extfile", extensions, "-out", certificate)
        key.chmod(0o600)
        return certificate, key

    def openssl(self, *arguments):
        subprocess.run(["openssl", *map(str, arguments)], check=True, capture_output=True, timeout=PATIENCE)


class Cloud:
    """A mosquitto that speaks in the clear with the tests, and TLS with the bridge."""

    def __init__(self, lab, version):
        self.authority = Authority(lab.directory / "cloud-authority")
        certificate, key = self.authority.issue(
            "cloud", alternative=f"IP:{HOST}", usage="serverAuth", key_kind=["rsa:2048"]
        )
        self.tls_port = lab.free_port()
        self.mosquitto = lab.mosquitto(
            more=f"listener {self.tls_port} {HOST}\nallow_anonymous true\ncafile {self.authority.ca}\n"
            f"certfile {certificate}\nkeyfile {key}\nrequire_certificate true\n"
            f"tls_version {version}\n"
        )

    def keys(self, authority=None):
        """What the bridge says of TLS."""
        authority = authority or self.authority
        certificate, key = authority.issue("gateway", alternative="DNS:gateway", usage="clientAuth")
        return f'ca = "{self.authority.ca}"\ncert = "{certificate}"\nkey = "{key}"'


def url(port):
    return f"mqtts://{HOST}:{port}"


@test("bridge to mosquitto, TLS 1.2 and 3.1.1: cuts, SIGTERM there, SIGKILL here", tls="tlsv1.2", version=4, limit=90)
@test("bridge to mosquitto, TLS 1.3 and 5.0: cuts, SIGTERM there, SIGKILL here", tls="tlsv1.3", version=5, limit=90)
def chaos(lab, result, tls, version):
    cloud = Cloud(lab, tls)
    link = lab.link(cloud.tls_port)
    more = bridge(url(link.port), version=version, forward=FORWARD, receive=RECEIVE, more=cloud.keys())
    gateway = lab.larder(more)

    def cut():
        link.cut()
        time.sleep(lab.random.uniform(0, 0.4))
        link.mend()

    things = {"cut": cut, "mosquitto restarted": cloud.mosquitto.restart, "larder killed": gateway.crash}
    streams_through_chaos(lab, result, gateway, cloud.mosquitto, things, counts=(1500, 700), seconds=6, rate=250)


@test("bridge to mosquitto, TLS 1.3: a certificate that it does not know, then one that it knows")
def renewed(lab, result):
    cloud = Cloud(lab, "tlsv1.3")
    stranger = Authority(lab.directory / "stranger")
    keys = cloud.keys(stranger)
    gateway = lab.larder(bridge(url(cloud.tls_port), version=4, forward=FORWARD, more=keys))
    said = "does not accept"
    wait_until(lambda: said in gateway.log.read_text(), PATIENCE, gateway.last_lines)
    expect("linked to the cloud" not in gateway.log.read_text(), "it has a link without a right certificate")
    # The next connection has what is in the files then.
    certificate, key = cloud.authority.issue("gateway", alternative="DNS:gateway", usage="clientAuth")
    for new, old in (certificate, "gateway.pem"), (key, "gateway.key"):
        new.replace(stranger.directory / old)
    above = Subscriber(cloud.mosquitto.port, "above", "site/sensors/#")
    cross(gateway.port, "sensor", "sensors/1", above, "site/sensors/1")
    result.note = "links after its files were replaced"
