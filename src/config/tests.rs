//! Configurations as a person would write them, and what is said of the wrong ones.

#![allow(clippy::unwrap_used)]

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

/// The one error of a bridge, whose other lines are right: they come before `line`, and leave out its key.
fn bridge_error(line: &str) -> String {
    let key = line.split_once(' ').unwrap().0;
    let right = [
        ("name", r#"name = "cloud""#),
        ("url", r#"url = "mqtt://a""#),
        ("client_id", r#"client_id = "c""#),
        ("forward", r#"forward = [{ filter = "a/#" }]"#),
    ];
    let others: Vec<&str> = right
        .iter()
        .filter(|(name, _)| *name != key)
        .map(|(_, line)| *line)
        .collect();
    let error = error(&format!("[[bridge]]\n{}\n{line}\n", others.join("\n")));
    let place = format!("larder.toml:{}: bridge.", others.len() + 2);
    error
        .strip_prefix(&place)
        .unwrap_or_else(|| panic!("{error}"))
        .to_owned()
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
fn a_bridge_must_be_usable() {
    let cases = [
        (r#"name = "a/b""#, r#"name: "a/b" is no name"#),
        (
            r#"url = "ssl://a""#,
            "url: \"ssl://a\": the scheme for TLS is mqtts://",
        ),
        (
            r#"url = "http://a""#,
            "url: \"http://a\": the scheme is not known; use mqtt:// or mqtts://",
        ),
        (
            r#"url = ["mqtt://a", "wss://a"]"#,
            "url: \"wss://a\": WebSocket is not supported",
        ),
        (
            r#"url = "mqtt://u:p@a""#,
            "url: \"mqtt://u:p@a\": the user name and the password have keys",
        ),
        (r#"url = "a:1883""#, "url: \"a:1883\": is no address"),
        (
            r#"url = "mqtt://a:0""#,
            "url: \"mqtt://a:0\": is no address",
        ),
        (
            r#"url = "mqtt://a/b""#,
            "url: \"mqtt://a/b\": is no address",
        ),
        (
            r#"url = "mqtt://[a]""#,
            "url: \"mqtt://[a]\": is no address",
        ),
        (r#"url = []"#, "url: has no url; write for example"),
        (
            r#"url = 7"#,
            "url: invalid type: integer `7`, expected an address such as",
        ),
        (
            r#"version = 3"#,
            "version: 3 is no version; write 5 (MQTT 5.0) or 4 (MQTT 3.1.1)",
        ),
        (r#"client_id = """#, "client_id: must have 1 to 65535 bytes"),
        (r#"password = "x""#, "password: a password needs a username"),
        (
            r#"password_file = "/does/not/exist""#,
            "password_file: /does/not/exist cannot be read: No such file",
        ),
        (r#"forward = [{ qos = 1 }]"#, "forward: has no filter"),
        (
            r#"forward = [{ filter = "a/#/b" }]"#,
            "forward.filter: forward rule `a/#/b`: not a topic filter",
        ),
        (
            r#"forward = [{ filter = "$share/g/a" }]"#,
            "forward.filter: forward rule `$share/g/a`: a shared subscription cannot be bridged",
        ),
        (
            r#"forward = [{ filter = "a", qos = 2 }]"#,
            "forward.qos: forward rule `a`: qos 2 does not cross a bridge; use 1",
        ),
        (
            r#"forward = [{ filter = "a", qos = 3 }]"#,
            "forward.qos: 3 is no QoS",
        ),
        (
            r##"forward = [{ filter = "a", remote_prefix = "#/" }]"##,
            "forward: forward rule `a`: a prefix must not contain",
        ),
        (
            r#"forward = [{ filter = "a", strip_prefix = "b" }]"#,
            "forward.strip_prefix: forward rule `a`: the filter does not begin",
        ),
        (
            r##"forward = [{ filter = "#", remote_prefix = "a" }]"##,
            "forward: forward rule `#`: with its prefixes it becomes `a#`",
        ),
        (
            r#"forward = [{ filter = "a", local_prefix = "a/" }]"#,
            "forward.local_prefix: unknown field `local_prefix`",
        ),
        (
            r##"receive = [{ filter = "$SYS/#" }]"##,
            "receive: what the cloud sends would come as \"$SYS/#\"",
        ),
        (
            r#"disk_max = "1 KiB""#,
            "disk_max: disk_max (1 KiB) must hold at least one packet",
        ),
        (
            r#"disk_max = "3 GiB""#,
            "disk_max: disk_max (3 GiB) must be at most store.disk_max (2 GiB)",
        ),
        (
            r#"window = 0"#,
            "window: 0 is out of range; choose 1 to 1024",
        ),
        (
            r#"reconnect_min = "2 min""#,
            "reconnect_min: reconnect_min (2 min) must be at most reconnect_max (1 min)",
        ),
        (
            r#"keep_alive = "1 s""#,
            "keep_alive: 1 s is out of range; choose 5 s to 65535 s",
        ),
    ];
    for (line, expected) in cases {
        let error = bridge_error(line);
        assert!(error.starts_with(expected), "{error}\nis not\n{expected}");
    }
    assert!(error("[[bridge]]\nname = \"a\"\n").starts_with("larder.toml:1: bridge: has no url;"));
    assert!(
        error("[[bridge]]\nname = \"a\"\nurl = \"mqtt://a\"\nclient_id = \"c\"\nforward = []")
            .starts_with("larder.toml:1: bridge: carries nothing;")
    );
}

#[test]
fn what_tls_is_made_with_is_checked_where_it_stands() {
    let bridge = |url: &str, line: &str| {
        format!(
            "[[bridge]]\nname = \"a\"\nurl = \"{url}\"\nclient_id = \"c\"\nforward = [{{ filter = \"f\" }}]\n{line}\n"
        )
    };
    for (url, line, expected) in [
        (
            "mqtt://a",
            "ca = \"ca.pem\"",
            "larder.toml:6: bridge.ca: is for TLS, and no url begins with mqtts://",
        ),
        (
            "mqtts://a",
            "ca = \"nowhere/ca.pem\"",
            "larder.toml:6: bridge.ca: nowhere/ca.pem cannot be read: No such file",
        ),
        (
            "mqtts://a",
            "server_name = \"a b\"",
            "larder.toml:6: bridge.server_name: \"a b\" is neither a host name nor an IP address",
        ),
        (
            "mqtts://a",
            "alpn = \"\"",
            "larder.toml:6: bridge.alpn: must have 1 to 255 bytes",
        ),
    ] {
        let error = error(&bridge(url, line));
        assert!(error.starts_with(expected), "{error}");
    }
}

#[test]
fn bridges_must_not_get_in_each_others_way() {
    let bridge = |name: &str, client_id: &str| {
        format!(
            "[[bridge]]\nname = \"{name}\"\nurl = \"mqtt://a\"\nclient_id = \"{client_id}\"\nforward = [{{ filter = \
             \"a\" }}]\n"
        )
    };
    assert!(load(&(bridge("a", "1") + &bridge("b", "2"))).is_ok());
    let same_name = error(&(bridge("a", "1") + &bridge("a", "2")));
    assert!(
        same_name.starts_with("larder.toml:7: bridge.name: \"a\" is the name of another bridge"),
        "{same_name}"
    );
    let same_client = error(&(bridge("a", "1") + &bridge("b", "1")));
    assert!(
        same_client.starts_with("larder.toml:9: bridge.client_id: \"1\" is the client_id of"),
        "{same_client}"
    );
    let no_session = error(&("[limits]\nsessions = 1\n".to_owned() + &bridge("a", "1")));
    assert!(
        no_session.starts_with("larder.toml:3: bridge: each bridge needs a session"),
        "{no_session}"
    );
}

#[test]
fn without_no_local_a_loop_is_refused() {
    let bridge = |version| {
        format!(
            r##"
            [[bridge]]
            name = "cloud"
            url = "mqtt://a"
            client_id = "c"
            version = {version}
            forward = [{{ filter = "sensors/#", remote_prefix = "site/" }}]
            receive = [{{ filter = "site/#", strip_prefix = "site/" }}]
            "##
        )
    };
    assert!(load(&bridge(5)).is_ok());
    let error = error(&bridge(4));
    assert!(
        error.starts_with("larder.toml:7: bridge.forward: forward rule `sensors/#` publishes"),
        "{error}"
    );
}

#[test]
fn a_password_file_is_read_beside_the_configuration_without_its_last_newline() {
    let dir = std::env::temp_dir().join(format!("larder-config-{}", std::process::id()));
    fs::create_dir_all(&dir).unwrap();
    fs::write(dir.join("secret"), "p w\n\r\n").unwrap();
    let text = r#"
        [[bridge]]
        name = "cloud"
        url = "mqtt://a"
        client_id = "c"
        username = "u"
        password_file = "secret"
        forward = [{ filter = "a" }]
    "#;
    fs::write(dir.join("larder.toml"), text).unwrap();
    let loaded = Config::load(&dir.join("larder.toml"), MACHINE);
    let twice = Config::from_text(
        &dir.join("larder.toml"),
        &text.replace("username", "password = \"x\"\nusername"),
        MACHINE,
    );
    fs::remove_dir_all(&dir).unwrap();
    assert_eq!(
        loaded.unwrap().bridges[0].password,
        Some(Password("p w\n".into()))
    );
    assert!(
        twice
            .unwrap_err()
            .to_string()
            .contains("bridge.password_file: password says it already")
    );
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

#[test]
fn queues_have_policies_by_client() {
    let config = load(
        r#"
        [[queue]]
        client_id = "pump-1"
        max_bytes = "2 MiB"
        max_messages = 500
        max_age = "7 days"
        when_full = "reject"
        qos0 = true
        rate = 20
        rate_bytes = "64 KiB"
        share = 100
        [[queue]]
        client_id = "pump-*"
        "#,
    )
    .unwrap();
    let [first, second] = &config.queues[..] else {
        panic!("{:?}", config.queues)
    };
    assert_eq!(
        (first.max_bytes, first.max_messages, first.max_age),
        (2 << 20, Some(500), Some(Duration::from_secs(7 * 86_400)))
    );
    assert_eq!((first.when_full, first.qos0), (WhenFull::Reject, true));
    assert_eq!((first.rate, first.rate_bytes), (Some(20), Some(64 << 10)));
    assert_eq!(first.share, 100);
    let defaults = QueueConfig {
        client_id: "pump-*".to_owned(),
        max_bytes: 256 << 20,
        max_messages: None,
        max_age: None,
        when_full: WhenFull::DropOldest,
        qos0: false,
        rate: None,
        rate_bytes: None,
        share: 5,
        order: Order::Fifo,
        classes: Vec::new(),
    };
    assert_eq!(*second, defaults);
}

#[test]
fn queues_keep_classes_apart() {
    let config = load(
        r##"
        [[queue]]
        client_id = "cloud"
        max_bytes = "2 MiB"
        classes = [
          { name = "alarms", filters = ["alarm/#", "+/alarm"], max_messages = 9, max_age = "1 day", when_full = "reject", order = "live-first", share = 90, reserve = "1 MiB" },
          { name = "rest", filters = ["#"], when_full = "keep-latest" },
        ]
        "##,
    )
    .unwrap();
    let [alarms, rest] = &config.queues[0].classes[..] else {
        panic!("{:?}", config.queues)
    };
    assert_eq!(
        *alarms,
        ClassConfig {
            name: "alarms".to_owned(),
            filters: vec!["alarm/#".to_owned(), "+/alarm".to_owned()],
            max_bytes: 2 << 20,
            max_messages: Some(9),
            max_age: Some(Duration::from_secs(86_400)),
            when_full: WhenFull::Reject,
            share: 90,
            order: Order::LiveFirst,
            reserve: 1 << 20,
        }
    );
    assert_eq!(
        (rest.max_messages, rest.max_age, rest.share, rest.reserve),
        (None, None, 5, 0)
    );
    assert_eq!(rest.when_full, WhenFull::KeepLatest);
}

#[test]
fn a_wrong_class_says_what_is_right() {
    let right = r#"{ name = "a", filters = ["a/#"] }"#;
    let many = [right; LANES_MAX + 1]
        .iter()
        .enumerate()
        .map(|(index, class)| class.replace("name = \"a\"", &format!("name = \"a{index}\"")))
        .collect::<Vec<_>>()
        .join(", ");
    for (classes, expected) in [
        (r#"{ filters = ["a"] }"#, "has no name"),
        (r#"{ name = "a b", filters = ["a"] }"#, "\"a b\" is no name"),
        (r#"{ name = "a" }"#, "has no filters"),
        (
            r#"{ name = "a", filters = ["a/#/b"] }"#,
            "\"a/#/b\" is no Topic Filter",
        ),
        (
            r#"{ name = "a", filters = ["$share/g/a"] }"#,
            "\"$share/g/a\" is no Topic Filter",
        ),
        (
            r#"{ name = "a", filters = ["a"], reserve = "1500 MiB" }"#,
            "the reserves of all classes together (1500 MiB) must be at most half",
        ),
        (
            r#"{ name = "a", filters = ["a"], max_bytes = "1 KiB" }"#,
            "max_bytes (1 KiB) must hold",
        ),
        (
            &format!("{right}, {right}"),
            "there are two classes \"a\" in one queue",
        ),
        (
            r#"{ name = "a", filters = ["a"], share = 101 }"#,
            "larder.toml:3: queue.classes.share: ",
        ),
        (
            r#"{ name = "a", filters = ["a"], share = 91 },
            { name = "b", filters = ["b"] }"#,
            "larder.toml:4: queue.classes: the shares of all classes so far, and that of what is in none, are 101 percent",
        ),
        (
            r#"{ name = "a", filters = ["a"], order = "newest-first" }, { name = "b", filters = ["b"], order = "newest-first" }, { name = "c", filters = ["c"], order = "live-first" }"#,
            "takes 8 queues",
        ),
        (
            &many,
            "takes 8 queues for each client beside its own, and there are at most 7",
        ),
    ] {
        let error = error(&format!(
            "[[queue]]\nclient_id = \"c\"\nclasses = [{classes}]"
        ));
        assert!(error.contains(expected), "{error}\n{expected}");
    }
}

#[test]
fn a_wrong_queue_says_what_is_right() {
    for (text, expected) in [
        ("max_messages = 5", "larder.toml:1: queue: has no client_id"),
        (
            "client_id = \"a\"\nmax_messages = 0",
            "larder.toml:3: queue.max_messages: ",
        ),
        (
            "client_id = \"a\"\nmax_bytes = \"1 KiB\"",
            "larder.toml:3: queue.max_bytes: ",
        ),
        (
            "client_id = \"a\"\nmax_bytes = \"1 TiB\"",
            "larder.toml:3: queue.max_bytes: ",
        ),
        (
            "client_id = \"a\"\nmax_age = \"1 s\"",
            "larder.toml:3: queue.max_age: ",
        ),
        (
            "client_id = \"a\"\nwhen_full = \"explode\"",
            "larder.toml:3: queue.when_full: \"explode\" is not known; choose one of drop-oldest, keep-latest, drop-newest, reject",
        ),
        (
            "client_id = \"a\"\nshare = 101",
            "larder.toml:3: queue.share: ",
        ),
        ("client_id = \"a\"\nrate = 0", "larder.toml:3: queue.rate: "),
        (
            "client_id = \"a\"\norder = \"lifo\"",
            "larder.toml:3: queue.order: \"lifo\" is not known; choose one of fifo, live-first, newest-first",
        ),
        (
            "client_id = \"a\"\nwhen_full = \"keep-latest\"\norder = \"newest-first\"",
            "larder.toml:4: queue.order: \"newest-first\" does not go with when_full = \"keep-latest\"",
        ),
        (
            "client_id = \"a\"\nrate_bytes = 0",
            "larder.toml:3: queue.rate_bytes: ",
        ),
        (
            "client_id = \"a*\"\n[[queue]]\nclient_id = \"ab\"",
            "larder.toml:4: queue.client_id: \"ab\" is never reached, for \"a*\" above names the same clients",
        ),
        (
            "client_id = \"a\"\n[[queue]]\nclient_id = \"a\"",
            "larder.toml:4: queue.client_id: \"a\" is never reached",
        ),
    ] {
        let error = error(&format!("[[queue]]\n{text}"));
        assert!(error.starts_with(expected), "{error}\n{expected}");
    }
}
