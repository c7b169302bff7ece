//! TLS towards the cloud: who gets through, and what an owner is told of those who do not.

#![allow(
    clippy::disallowed_methods,
    reason = "a test waits with a clock of its own"
)]
#![allow(clippy::unwrap_used)]

mod authority;
mod bench;
mod server;

use authority::{Authority, Identity, leaf};
use bench::{Bench, tls};
use rcgen::{BasicConstraints, ExtendedKeyUsagePurpose, IsCa, KeyUsagePurpose, date_time_ymd};
use server::{Behaviour, Server, TLS12, TLS13};
use std::fs;
use std::os::unix::fs::PermissionsExt;

/// Larder's small TLS knows 1.3 alone, and shows one certificate.
const SMALL: bool = cfg!(not(feature = "tls"));
const VERSIONS: &[server::Version] = if SMALL { &[TLS13] } else { &[TLS12, TLS13] };
const TOO_OLD: &str = if SMALL {
    "does not speak TLS 1.3"
} else {
    "speaks neither TLS 1.2 nor 1.3"
};

/// What a server that is not the cloud shows, and what is said of it.
struct Attack {
    name: &'static str,
    identity: Identity,
    said: &'static str,
}

fn attack(name: &'static str, identity: Identity, said: &'static str) -> Attack {
    Attack {
        name,
        identity,
        said,
    }
}

/// All are for `localhost`, and none may pass for the cloud with a CA that is trusted.
fn attacks(trusted: &Authority) -> Vec<Attack> {
    let of = |params| trusted.issue(params);
    let between = |change: &dyn Fn(&mut rcgen::CertificateParams)| {
        let mut params = authority::ca("between");
        change(&mut params);
        trusted.between(params)
    };
    let mut expired = leaf("localhost");
    expired.not_after = date_time_ymd(2020, 2, 29);
    let mut early = leaf("localhost");
    early.not_before = date_time_ymd(2100, 3, 1);
    let mut client = leaf("localhost");
    client.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    let mut cipher = leaf("localhost");
    cipher.key_usages = vec![KeyUsagePurpose::KeyEncipherment];
    let mut as_ca = leaf("localhost");
    as_ca.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let mut nameless = leaf("localhost");
    nameless.subject_alt_names.clear();

    let signing_leaf = {
        // Without Key Usage only the basic constraints forbid it.
        let mut params = leaf("localhost");
        params.key_usages.clear();
        trusted.between(params)
    };
    let mute_ca = between(&|params| params.key_usages = vec![KeyUsagePurpose::CrlSign]);
    let last_ca = between(&|params| params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0)));
    let narrow_ca = between(&|params| {
        params.name_constraints = Some(rcgen::NameConstraints {
            permitted_subtrees: vec![rcgen::GeneralSubtree::DnsName("example".into())],
            excluded_subtrees: Vec::new(),
        });
    });
    let broken_ca = {
        let mut between = between(&|_| {});
        *between.chain[0].last_mut().unwrap() ^= 1;
        between
    };
    let mut broken = of(leaf("localhost"));
    *broken.chain[0].last_mut().unwrap() ^= 1;
    let mut keyless = of(leaf("localhost"));
    keyless.key = of(leaf("localhost")).key;
    let mut bare = of(leaf("localhost"));
    bare.chain.clear();
    let namesake = Authority::new("trusted").issue(leaf("localhost"));

    vec![
        attack(
            "expired",
            of(expired),
            "was valid until 2020-02-29 00:00 UTC, and the clock of this machine says 2",
        ),
        attack(
            "not yet valid",
            of(early),
            "is not valid before 2100-03-01 00:00 UTC, and the clock",
        ),
        attack(
            "wrong name",
            of(leaf("other.example")),
            "is for other.example: set server_name or mend url",
        ),
        attack(
            "no name",
            of(nameless),
            "is for no name at all: set server_name",
        ),
        attack(
            "wrong address",
            of(leaf("127.0.0.2")),
            "is for 127.0.0.2: set server_name",
        ),
        attack(
            "unknown CA",
            Authority::new("unknown").issue(leaf("localhost")),
            "is signed by none of the CAs in `ca`",
        ),
        attack(
            "a CA's namesake",
            namesake,
            "has a signature that is broken",
        ),
        attack(
            "self-signed",
            Identity::self_signed(leaf("localhost")),
            "is signed by none of the CAs in `ca`",
        ),
        attack(
            "a leaf that signs",
            signing_leaf.issue(leaf("localhost")),
            "is signed by a certificate that may not do that",
        ),
        attack(
            "a CA that may not sign",
            mute_ca.issue(leaf("localhost")),
            "is signed by a certificate that may not do that",
        ),
        attack(
            "a path too long",
            last_ca
                .between(authority::ca("more"))
                .issue(leaf("localhost")),
            "is signed by a certificate that may not do that (PathLen",
        ),
        attack(
            "a name out of bounds",
            narrow_ca.issue(leaf("localhost")),
            "is signed by a certificate that may not do that (NameConstraint",
        ),
        attack("for clients", of(client), "is not for servers"),
        attack(
            "a key for ciphers only",
            of(cipher),
            "has a key that may not be used for TLS",
        ),
        attack("a CA as a server", of(as_ca), "is the certificate of a CA"),
        attack(
            "a broken signature",
            broken,
            "has a signature that is broken",
        ),
        attack(
            "a broken signature between",
            broken_ca.issue(leaf("localhost")),
            "has a signature that is broken",
        ),
        attack(
            "another's key",
            keyless,
            "does not prove that it has the key",
        ),
        attack("no certificate", bare, "shows no certificate"),
    ]
}

#[test]
fn nobody_else_gets_through_with_tls_1_3() {
    refuses_all(TLS13);
}

#[test]
fn nobody_else_gets_through_with_tls_1_2() {
    refuses_all(TLS12);
}

fn refuses_all(version: server::Version) {
    let trusted = Authority::new("trusted");
    let bench = Bench::new(&trusted);
    for Attack {
        name,
        identity,
        said,
    } in attacks(&trusted)
    {
        let server = Server::tls(&identity, &[version], None, Behaviour::Serve);
        let told = bench.refused(tls(), &server);
        assert_eq!(server.heard(), 0, "{name} has heard the bridge");
        if !VERSIONS.contains(&version) {
            assert!(told.contains(TOO_OLD), "{name}: {told}");
            continue;
        }
        assert!(told.contains(said), "{name}: {told}");
        let whose = if name == "no certificate" || name == "another's key" {
            "cloud: localhost "
        } else {
            "cloud: the certificate of localhost "
        };
        assert!(told.starts_with(whose), "{name}: {told}");
    }
}

#[test]
fn what_is_no_tls_or_an_old_one_is_told_as_such() {
    let trusted = Authority::new("trusted");
    let bench = Bench::new(&trusted);
    // Records of TLS 1.1: a ServerHello with a cipher of then, and an alert for the version.
    let mut hello = vec![22, 3, 2, 0, 42, 2, 0, 0, 38, 3, 2];
    hello.extend([7; 32]);
    hello.extend([0, 0, 0x2f, 0]);
    for (bytes, said) in [
        (hello, TOO_OLD),
        (vec![21, 3, 2, 0, 2, 2, 70], TOO_OLD),
        (
            b"HTTP/1.1 400 Bad Request\r\n\r\n".to_vec(),
            "does not speak TLS on this port",
        ),
        (
            vec![22, 3, 3, 0, 122, 2, 0, 0],
            "cut off in the middle of TLS",
        ),
        (Vec::new(), "cut off in the middle of TLS"),
        (
            vec![22, 3, 3, 0xff, 0xff, 2, 0, 0],
            "TLS with localhost failed",
        ),
    ] {
        let server = Server::bytes(bytes);
        let told = bench.refused(tls(), &server);
        assert!(told.contains(said), "{told}\nsays nothing of\n{said}");
        assert!(told.starts_with("cloud: "), "{told}");
    }
}

#[test]
fn the_cloud_gets_through() {
    let trusted = Authority::new("trusted");
    let bench = Bench::new(&trusted);
    let direct = trusted.issue(leaf("localhost"));
    let far = trusted
        .between(authority::ca("one"))
        .between(authority::ca("two"))
        .issue(leaf("localhost"));
    let address = trusted.issue(leaf("127.0.0.1"));
    let named = trusted.issue(leaf("cloud.example"));
    let mut as_named = tls();
    as_named.server_name = Some("cloud.example".into());
    for version in VERSIONS {
        for (identity, host, tls) in [
            (&direct, "localhost", tls()),
            (&far, "localhost", tls()),
            (&address, "127.0.0.1", tls()),
            (&named, "localhost", as_named.clone()),
        ] {
            let server = Server::tls(identity, &[*version], None, Behaviour::Serve);
            bench.linked(tls, host, &server);
            assert!(server.heard() > 0);
        }
    }
    let server = Server::tls(&named, &[TLS12, TLS13], None, Behaviour::Serve);
    bench.linked(as_named, "localhost", &server);
    assert_eq!(server.asked_for(), Some("cloud.example".to_owned()));
}

#[test]
fn a_bridge_shows_its_certificate_where_it_is_wanted() {
    let trusted = Authority::new("trusted");
    let ours = Authority::new("ours");
    let bench = Bench::new(&trusted);
    let cloud = trusted.issue(leaf("localhost"));
    let mut shown = leaf("gateway");
    shown.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    let stranger = Authority::new("theirs").issue(shown.clone());
    let known = if SMALL {
        ours.issue(shown)
    } else {
        ours.between(authority::ca("plant")).issue(shown)
    };
    for version in VERSIONS {
        let server = Server::tls(&cloud, &[*version], Some(&ours), Behaviour::Serve);
        bench.linked(bench.showing(&known), "localhost", &server);

        let server = Server::tls(&cloud, &[*version], Some(&ours), Behaviour::Serve);
        let told = bench.refused(tls(), &server);
        assert!(told.contains("want") && told.contains("`cert`"), "{told}");
        let told = bench.refused(bench.showing(&stranger), &server);
        assert!(told.contains("does not accept"), "{told}");
        assert_eq!(server.heard(), 0);
    }
}

#[test]
fn alpn_is_asked_for() {
    let trusted = Authority::new("trusted");
    let bench = Bench::new(&trusted);
    let cloud = trusted.issue(leaf("localhost"));
    let server = Server::tls(&cloud, &[TLS13], None, Behaviour::Alpn("mqtt"));
    let asking = |alpn: &str| {
        let mut tls = tls();
        tls.alpn = Some(alpn.into());
        tls
    };
    bench.linked(asking("mqtt"), "localhost", &server);
    let told = bench.refused(asking("x-other"), &server);
    assert!(told.contains("know the protocol in `alpn`"), "{told}");
}

#[test]
fn a_stream_that_is_cut_off_ends_the_link_and_is_told() {
    let trusted = Authority::new("trusted");
    let bench = Bench::new(&trusted);
    let cloud = trusted.issue(leaf("localhost"));
    for version in VERSIONS {
        for behaviour in [Behaviour::CutInRecord, Behaviour::CutWithoutNotice] {
            let server = Server::tls(&cloud, &[*version], None, behaviour);
            let told = bench.refused(tls(), &server);
            assert!(told.contains("cut off in the middle of TLS"), "{told}");
        }
        let server = Server::tls(&cloud, &[*version], None, Behaviour::Close);
        let told = bench.refused(tls(), &server);
        assert!(told.contains("closed by the server"), "{told}");
        for behaviour in [Behaviour::Garbage, Behaviour::CloseWithoutSeal] {
            let server = Server::tls(&cloud, &[*version], None, behaviour);
            let told = bench.refused(tls(), &server);
            assert!(told.contains("TLS with localhost failed"), "{told}");
        }
    }
}

#[test]
fn new_keys_end_a_link_at_most() {
    let trusted = Authority::new("trusted");
    let bench = Bench::new(&trusted);
    let cloud = trusted.issue(leaf("localhost"));
    let server = Server::tls(&cloud, &[TLS13], None, Behaviour::NewKeys);
    if SMALL {
        let told = bench.refused(tls(), &server);
        assert!(told.starts_with("cloud: TLS "), "{told}");
    } else {
        bench.linked(tls(), "localhost", &server);
    }
}

#[test]
fn a_clock_that_stands_in_the_past_is_not_believed() {
    let trusted = Authority::new("trusted");
    let bench = Bench::new(&trusted);
    let mut params = leaf("localhost");
    params.not_before = date_time_ymd(2100, 1, 1);
    params.not_after = date_time_ymd(2100, 12, 31);
    let cloud = trusted.issue(params);
    let server = Server::tls(&cloud, &[TLS13], None, Behaviour::Serve);
    let told = bench.refused(tls(), &server);
    assert!(told.contains("is not valid before 2100-01-01"), "{told}");
    bench.floor.set(4_110_000_000);
    bench.linked(tls(), "localhost", &server);
    bench.floor.set(4_200_000_000);
    let told = bench.refused(tls(), &server);
    assert!(
        told.contains("the clock of this machine says 2103-02-04 02:40 UTC"),
        "{told}"
    );
}

#[test]
fn files_that_change_are_used_by_the_next_connection() {
    let (old, new) = (Authority::new("old"), Authority::new("new"));
    let bench = Bench::new(&old);
    let cloud = new.issue(leaf("localhost"));
    let server = Server::tls(&cloud, &[TLS13], None, Behaviour::Serve);
    let bridge = bench.start(tls(), "localhost", &server);
    let told = bench.waits(&bridge);
    assert!(
        told.contains("is signed by none of the CAs in `ca`"),
        "{told}"
    );
    fs::remove_file(bench.ca()).unwrap();
    let told = bench.waits_for(&bridge, "cannot be read");
    assert!(told.starts_with("cloud: ca: "), "{told}");
    bench.trust(&new);
    bench.is_linked(&bridge);
    bridge.stop();
}

#[test]
fn what_cannot_be_used_is_refused_before_anything_starts() {
    let trusted = Authority::new("trusted");
    let bench = Bench::new(&trusted);
    let ours = trusted.issue(leaf("gateway"));
    let right = bench.showing(&ours);
    assert_eq!(bench.checked(&right), Ok(()));
    let (cert, key) = (right.cert.clone().unwrap(), right.key.clone().unwrap());
    let expect = |tls: &larder_bridge::Tls, key: &str, said: &str| {
        let fault = bench.checked(tls).unwrap_err();
        assert!(fault.key == key && fault.fault.contains(said), "{fault}");
    };

    fs::set_permissions(&key, fs::Permissions::from_mode(0o644)).unwrap();
    expect(&right, "key", "is open to others (mode 0644): chmod 640");
    fs::set_permissions(&key, fs::Permissions::from_mode(0o640)).unwrap();
    assert_eq!(bench.checked(&right), Ok(()));

    let mut tls = right.clone();
    tls.key = None;
    expect(&tls, "cert", "needs its `key`");
    let mut tls = right.clone();
    tls.cert = None;
    expect(&tls, "key", "needs its `cert`");
    let mut tls = right.clone();
    tls.cert = Some(key.clone());
    expect(&tls, "cert", "has no certificate in PEM");
    let mut tls = right.clone();
    tls.key = Some(bench.file("chain", &fs::read_to_string(&cert).unwrap()));
    expect(&tls, "key", "has no private key in PEM");
    tls.key = Some(bench.file("other", &trusted.issue(leaf("gateway")).key.serialize_pem()));
    expect(&tls, "key", "does not belong to the first certificate");
    tls.key = Some(bench.file(
        "locked",
        "-----BEGIN ENCRYPTED PRIVATE KEY-----\nMIIB\n-----END ENCRYPTED PRIVATE KEY-----\n",
    ));
    expect(&tls, "key", "is encrypted");
    let mut tls = right.clone();
    tls.server_name = Some("a b".into());
    expect(&tls, "server_name", "neither a host name nor an IP address");
    let mut tls = right.clone();
    tls.alpn = Some(String::new());
    expect(&tls, "alpn", "must have 1 to 255 bytes");
    fs::write(bench.ca(), "nothing").unwrap();
    expect(&right, "ca", "has no certificate in PEM");
}
