//! Bridges: what they need, and what is refused.

use super::*;

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
