//! Configurations as a person would write them, and what is said of the wrong ones.

#![allow(clippy::unwrap_used)]

mod bridges;
mod queues;

use super::*;
use larder_packet::Qos;

const MACHINE: u64 = 1 << 30;
const EXAMPLE: &str = include_str!("../../systemd/larder.toml");

fn load(text: &str) -> Result<Config, ConfigError> {
    Config::from_text(Path::new("larder.toml"), text, MACHINE)
}

/// The one error of a text.
fn error(text: &str) -> String {
    load(text).unwrap_err().to_string()
}

#[test]
fn an_empty_file_is_the_defaults() {
    let config = load("").unwrap();
    assert_eq!(config.data_dir, Path::new("/var/lib/larder"));
    let bind = Bind::Tcp("127.0.0.1:1883".parse().unwrap());
    assert_eq!(
        config.listeners,
        [Listener {
            bind,
            anonymous: true
        }]
    );
    assert_eq!(config.limits.memory_max, 128 << 20);
    assert_eq!(config.store.session_disk_max, 256 << 20);
    assert_eq!(config.sys.interval, Some(Duration::from_secs(10)));
    assert_eq!(config.log.level, LevelFilter::Info);
    assert_eq!(
        Config::from_text(Path::new("x"), "", 64 << 20)
            .unwrap()
            .limits
            .memory_max,
        24 << 20
    );
}

#[test]
fn a_whole_file() {
    let config = load(
        r#"
        data_dir = "/data"
        [[listener]]
        bind = "unix:/run/larder.sock"
        [[listener]]
        bind = "0.0.0.0:1883"
        anonymous = true
        [limits]
        memory_max = "24 MiB"
        links = 10
        keep_alive_max = "20 min"
        publish_rate = 100
        publish_bytes_rate = "64 KiB"
        [store]
        disk_max = "64 MiB"
        [[bridge]]
        name = "cloud"
        url = ["mqtt://a.example", "mqtt://[::1]:1884"]
        version = 4
        client_id = "site42"
        username = "u"
        password = "p"
        forward = [{ filter = "sensors/#", remote_prefix = "site42/", qos = 0 }]
        receive = [{ filter = "site42/cmd/#", strip_prefix = "site42/" }]
        [sys]
        interval = "0 s"
        "#,
    )
    .unwrap();
    assert_eq!(
        config.listeners[0].bind,
        Bind::Unix("/run/larder.sock".into())
    );
    assert!(config.listeners.iter().all(|listener| listener.anonymous));
    assert_eq!(config.limits.links, 10);
    assert_eq!(
        config.limits.keep_alive_max,
        Some(Duration::from_secs(1_200))
    );
    assert_eq!(config.limits.publish_rate, Some(100));
    assert_eq!(config.limits.publish_bytes_rate, Some(64 << 10));
    assert_eq!(config.sys.interval, None);
    let bridge = &config.bridges[0];
    assert_eq!(bridge.urls, ["mqtt://a.example", "mqtt://[::1]:1884"]);
    assert_eq!(bridge.version, Version::V311);
    assert_eq!(bridge.password, Some(Password("p".into())));
    assert_eq!(bridge.disk_max, 32 << 20);
    assert_eq!(bridge.forward[0].translate("sensors/a"), "site42/sensors/a");
    assert_eq!(bridge.forward[0].qos, Qos::AtMostOnce);
    assert_eq!(bridge.receive[0].translate("site42/cmd/x"), "cmd/x");
    assert_eq!(bridge.receive[0].qos, Qos::AtLeastOnce);
    assert!(!format!("{config:?}").contains("\"p\""));
}

#[test]
fn a_fault_is_told_with_its_line_its_key_and_what_to_do() {
    assert_eq!(
        error("data_dir = \"/d\"\n\n[limits]\nmemory_max = \"48 MB\"\n"),
        "larder.toml:4: limits.memory_max: \"48 MB\" is not a size; write for example \"48 MiB\" (units: B, KiB, MiB, GiB)"
    );
    assert_eq!(
        error("[store]\nsettle_wait = 20"),
        "larder.toml:2: store.settle_wait: invalid type: integer `20`, expected a duration in quotes with its unit, \
         for example \"20 ms\""
    );
    assert_eq!(
        error("[log]\nlevl = \"info\""),
        "larder.toml:2: log.levl: unknown field `levl`, expected `level`"
    );
    assert_eq!(
        error("[listener]\nbind = \"127.0.0.1:1883\""),
        "larder.toml:1: listener: invalid type: map, expected a table in double brackets, such as [[listener]] or \
         [[bridge]]"
    );
    assert_eq!(
        error("[limits]\nlinks = \n"),
        "larder.toml:2: string values must be quoted, expected literal string"
    );
    assert_eq!(
        error("[limits]\nlinks = 0"),
        "larder.toml:2: limits.links: 0 is out of range; choose 1 to 1000000"
    );
}

#[test]
fn limits_must_fit_to_each_other() {
    let cases = [
        (
            "[limits]\nmemory_max = \"2 GiB\"",
            "larder.toml:2: limits.memory_max: this machine has no more than 1 GiB",
        ),
        (
            "[limits]\nmemory_max = \"1 MiB\"\npacket_max = \"2 MiB\"",
            "larder.toml:3: limits.packet_max: limits.packet_max (2 MiB) must be smaller than limits.memory_max (1 MiB)",
        ),
        (
            "[limits]\nmemory_max = \"1 KiB\"",
            "larder.toml:2: limits.memory_max: limits.packet_max (256 KiB) must be smaller",
        ),
        (
            "[limits]\npacket_max = \"1 B\"",
            "larder.toml:2: limits.packet_max: 1 B is out of range; choose 1 KiB to",
        ),
        (
            "[limits]\nreceive_maximum = 65536",
            "larder.toml:2: limits.receive_maximum: 65536 is out of range",
        ),
        (
            "[limits]\nsession_expiry_max = \"1500 ms\"",
            "larder.toml:2: limits.session_expiry_max: must be whole seconds",
        ),
        (
            "[limits]\npublish_rate = 0",
            "larder.toml:2: limits.publish_rate: 0 is out of range; choose 1 to 1000000",
        ),
        (
            "[limits]\npublish_bytes_rate = \"64 B\"",
            "larder.toml:2: limits.publish_bytes_rate: 64 B is out of range; choose 1 KiB to 1 GiB",
        ),
        (
            "[limits]\nkeep_alive_max = \"19 h\"",
            "larder.toml:2: limits.keep_alive_max: 19 h is out of range; choose 1 s to",
        ),
        (
            "[store]\ndisk_max = \"1 MiB\"",
            "larder.toml:2: store.disk_max: store.session_disk_max (128 KiB) must hold at least one packet of \
             limits.packet_max (256 KiB)",
        ),
        (
            "[store]\nsession_disk_max = \"1 KiB\"",
            "larder.toml:2: store.session_disk_max: store.session_disk_max (1 KiB) must hold",
        ),
        (
            "[store]\nsession_disk_max = \"3 GiB\"",
            "larder.toml:2: store.session_disk_max: store.session_disk_max (3 GiB) must be at most store.disk_max (2 GiB)",
        ),
        (
            "[store]\nsettle_wait = \"2 s\"",
            "larder.toml:2: store.settle_wait: 2 s is out of range; choose 0 ms to 1 s",
        ),
        (
            "[log]\nlevel = \"loud\"",
            "larder.toml:2: log.level: \"loud\" is not a level; choose one of",
        ),
        (
            "data_dir = \"here\"",
            "larder.toml:1: data_dir: must begin with /",
        ),
    ];
    for (text, expected) in cases {
        let error = error(text);
        assert!(error.starts_with(expected), "{error}\nis not\n{expected}");
    }
}

#[test]
fn listeners_must_be_usable() {
    let long = format!("[[listener]]\nbind = \"unix:/{}\"", "x".repeat(107));
    let cases = [
        ("[[listener]]", "larder.toml:1: listener: has no address"),
        (
            "[[listener]]\nbind = \"1883\"",
            "larder.toml:2: listener.bind: \"1883\" is not an address; write for",
        ),
        (
            "[[listener]]\nbind = \"unix:\"",
            "larder.toml:2: listener.bind: \"unix:\" names no socket",
        ),
        (
            "[[listener]]\nbind = \"unix:a\"",
            "larder.toml:2: listener.bind: the path must begin with /",
        ),
        (
            &long,
            "larder.toml:2: listener.bind: the path of the Unix socket has 108 bytes",
        ),
        (
            "[[listener]]\nbind = \"0.0.0.0:1883\"",
            "larder.toml:2: listener.bind: nobody could connect, for this version knows no passwords; set anonymous = \
             true if the network is yours",
        ),
        (
            "[[listener]]\nbind = \"[::1]:1883\"\nanonymous = false",
            "larder.toml:3: listener.anonymous: nobody could connect",
        ),
        (
            "[[listener]]\nbind = \"127.0.0.1:1\"\n[[listener]]\nbind = \"127.0.0.1:1\"",
            "larder.toml:4: listener.bind: 127.0.0.1:1 has a [[listener]] already",
        ),
    ];
    for (text, expected) in cases {
        let error = error(text);
        assert!(error.starts_with(expected), "{error}\nis not\n{expected}");
    }
}

#[test]
fn a_file_that_cannot_be_read_is_named() {
    let error = Config::load(Path::new("/does/not/exist.toml"), MACHINE)
        .unwrap_err()
        .to_string();
    assert_eq!(
        error,
        "/does/not/exist.toml: there is no such file; name the configuration with --config"
    );
}

#[test]
fn the_command_line_has_the_last_word_on_listeners() {
    let bind = |text: &str| text.parse::<Bind>().unwrap();
    let mut config = Config::without_file(
        vec![bind("[::1]:1884"), bind("unix:here.sock")],
        "d".into(),
        MACHINE,
    )
    .unwrap();
    assert_eq!(config.data_dir, Path::new("d"));
    assert_eq!(config.listeners.len(), 2);
    assert!(config.listeners.iter().all(|listener| listener.anonymous));

    let open = config
        .listen_on(vec![bind("0.0.0.0:1883")])
        .unwrap_err()
        .to_string();
    assert!(
        open.starts_with("--listen 0.0.0.0:1883: nobody could connect"),
        "{open}"
    );
    assert!(
        config
            .listen_on(vec![bind("127.0.0.1:1"), bind("127.0.0.1:1")])
            .is_err()
    );
    assert_eq!(config.listeners.len(), 2);

    let mut config = load("[[listener]]\nbind = \"0.0.0.0:1883\"\nanonymous = true").unwrap();
    config.listen_on(vec![bind("0.0.0.0:1883")]).unwrap();
    assert!(config.listeners[0].anonymous);
}

/// The example shows a default as a commented line, `#key = value`, without a space.
fn example_with_all_keys() -> String {
    let active = |line: &str| {
        let line = line
            .strip_prefix('#')
            .filter(|rest| !rest.starts_with([' ', '#']))
            .unwrap_or(line);
        format!("{line}\n")
    };
    // It names files that are on no developer's machine.
    let files = ["#password_file ", "#ca ", "#cert ", "#key "];
    EXAMPLE
        .lines()
        .filter(|line| !files.iter().any(|file| line.starts_with(file)))
        .map(active)
        .collect()
}

#[test]
fn the_example_is_the_defaults() {
    assert_eq!(load(EXAMPLE).unwrap(), load("").unwrap());
    let full = load(&example_with_all_keys()).unwrap();
    let defaults = load("").unwrap();
    assert_eq!(full.listeners[0], defaults.listeners[0]);
    assert_eq!(
        Limits {
            keep_alive_max: None,
            publish_rate: None,
            publish_bytes_rate: None,
            ..full.limits
        },
        defaults.limits
    );
    assert_eq!(
        (full.store, full.log, full.sys),
        (defaults.store, defaults.log, defaults.sys)
    );
    let least = load(
        "[[bridge]]\nname = \"cloud\"\nurl = \"mqtt://a\"\nclient_id = \"c\"\nforward = [{ filter = \"a\" }]",
    );
    let (full, least) = (&full.bridges[0], &least.unwrap().bridges[0]);
    let optional = |bridge: &BridgeConfig| {
        (
            bridge.version,
            bridge.disk_max,
            bridge.window,
            bridge.reconnect_min,
            bridge.reconnect_max,
            bridge.return_after,
            bridge.keep_alive,
        )
    };
    assert_eq!(optional(full), optional(least));
}

#[test]
fn the_example_has_every_key() {
    // What the reader of the file knows, it tells whoever uses a key that it does not know.
    let tables = [
        "",
        "[[listener]]",
        "[limits]",
        "[store]",
        "[[queue]]",
        "[[bridge]]",
        "[log]",
        "[sys]",
    ];
    let of_rules =
        ["[[bridge.forward]]", "[[bridge.receive]]"].map(|table| format!("[[bridge]]\n{table}"));
    for table in tables
        .into_iter()
        .chain(of_rules.iter().map(String::as_str))
    {
        let error = error(&format!("{table}\nno_such_key = 1"));
        let keys: Vec<&str> = error.split('`').skip(3).step_by(2).collect();
        assert!(!keys.is_empty(), "{error}");
        for key in keys {
            let written = [format!("{key} = "), format!("[{key}]")];
            assert!(
                written.iter().any(|written| EXAMPLE.contains(written)),
                "{table} {key}"
            );
        }
    }
}
