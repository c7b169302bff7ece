//! Queues and their classes.

use super::*;

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
