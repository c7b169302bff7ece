//! `larder check`: what a configuration means, for a person to read before it runs.

use super::{EXIT_CONFIG, RunArguments, configuration};
use crate::budget::BudgetRow;
use crate::config::{
    BridgeConfig, ClassConfig, Config, QueueConfig, ShownDuration, ShownSize, WhenFull,
};
use larder_bridge::Rule;
use larder_packet::Version;
use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;

/// Reads a configuration, or the defaults, and prints it with its memory budget, which `budget` sums. Fails if the
/// configuration cannot be run, or needs more memory than its `memory_max`.
pub fn run(file: Option<PathBuf>, budget: impl FnOnce(&Config) -> Vec<BudgetRow>) -> ExitCode {
    let config = match configuration(RunArguments {
        config: file,
        ..RunArguments::default()
    }) {
        Ok(config) => config,
        Err(error) => {
            // Nobody is left to be told where standard error cannot be written.
            let _ = writeln!(io::stderr(), "larder: {error}");
            return ExitCode::from(EXIT_CONFIG);
        }
    };
    let rows = budget(&config);
    // A reader who has seen enough closes the pipe, as `head` does: no reason to fail.
    let _ = print(&mut io::stdout().lock(), &config, &rows);
    if sum(&rows) <= config.limits.memory_max {
        ExitCode::SUCCESS
    } else {
        ExitCode::from(EXIT_CONFIG)
    }
}

/// Prints a configuration and its memory budget.
///
/// # Errors
/// What `to` says.
pub fn print(to: &mut impl Write, config: &Config, rows: &[BudgetRow]) -> io::Result<()> {
    print_listeners(to, config)?;
    print_limits(to, config)?;
    print_store(to, config)?;
    for queue in &config.queues {
        print_queue(to, queue)?;
    }
    for bridge in &config.bridges {
        print_bridge(to, bridge)?;
    }
    print_rest(to, config)?;
    print_budget(to, config, rows)
}

fn print_listeners(to: &mut impl Write, config: &Config) -> io::Result<()> {
    writeln!(to, "Listeners")?;
    for listener in &config.listeners {
        let who = match (listener.anonymous, listener.bind.is_local()) {
            (true, true) => "anyone on this machine",
            (true, false) => "anyone who reaches it",
            (false, _) => "nobody without a password",
        };
        writeln!(to, "  {:<28}{who}", listener.bind.to_string())?;
    }
    Ok(())
}

fn print_limits(to: &mut impl Write, config: &Config) -> io::Result<()> {
    let limits = &config.limits;
    let keep_alive = match limits.keep_alive_max {
        Some(longest) => ShownDuration(longest).to_string(),
        None => "as the client wishes".to_owned(),
    };
    let rate =
        |limit: Option<String>| limit.map_or_else(|| "any".to_owned(), |limit| limit + " a second");
    let lines = [
        ("memory_max", ShownSize(limits.memory_max).to_string()),
        ("links", limits.links.to_string()),
        ("sessions", limits.sessions.to_string()),
        (
            "subscriptions_per_session",
            limits.subscriptions_per_session.to_string(),
        ),
        (
            "packet_max",
            ShownSize(limits.packet_max.into()).to_string(),
        ),
        ("receive_maximum", limits.receive_maximum.to_string()),
        (
            "session_expiry_max",
            ShownDuration(limits.session_expiry_max).to_string(),
        ),
        ("keep_alive_max", keep_alive),
        (
            "publish_rate",
            rate(limits.publish_rate.map(|messages| messages.to_string())),
        ),
        (
            "publish_bytes_rate",
            rate(
                limits
                    .publish_bytes_rate
                    .map(|bytes| ShownSize(bytes).to_string()),
            ),
        ),
    ];
    print_table(to, "Limits", &lines)
}

fn print_store(to: &mut impl Write, config: &Config) -> io::Result<()> {
    let store = &config.store;
    let lines = [
        ("data_dir", config.data_dir.display().to_string()),
        ("disk_max", ShownSize(store.disk_max).to_string()),
        (
            "session_disk_max",
            ShownSize(store.session_disk_max).to_string(),
        ),
        ("settle_wait", ShownDuration(store.settle_wait).to_string()),
        ("park_max", ShownDuration(store.park_max).to_string()),
    ];
    print_table(to, "Store", &lines)
}

fn print_queue(to: &mut impl Write, queue: &QueueConfig) -> io::Result<()> {
    let or = |none: &str, value: Option<String>| value.unwrap_or_else(|| none.to_owned());
    let mut lines = vec![
        ("max_bytes", ShownSize(queue.max_bytes).to_string()),
        (
            "max_messages",
            or(
                "as many as fit",
                queue.max_messages.map(|max| max.to_string()),
            ),
        ),
        (
            "max_age",
            or(
                "for ever",
                queue.max_age.map(|max| ShownDuration(max).to_string()),
            ),
        ),
        ("when_full", queue.when_full.name().to_owned()),
        (
            "qos0",
            if queue.qos0 { "queued" } else { "not queued" }.to_owned(),
        ),
        (
            "rate",
            or(
                "none",
                queue.rate.map(|rate| format!("{rate} messages a second")),
            ),
        ),
        (
            "rate_bytes",
            or(
                "none",
                queue
                    .rate_bytes
                    .map(|rate| format!("{} a second", ShownSize(rate))),
            ),
        ),
        ("share", shown_share(queue.share)),
    ];
    if queue.when_full == WhenFull::Reject {
        lines.push((
            "note",
            "a 3.1.1 publisher cannot be refused: its connection is closed, and it keeps the message".to_owned(),
        ));
    }
    print_table(to, &format!("Queue of {:?}", queue.client_id), &lines)?;
    for class in &queue.classes {
        print_class(to, queue, class)?;
    }
    Ok(())
}

fn print_class(to: &mut impl Write, queue: &QueueConfig, class: &ClassConfig) -> io::Result<()> {
    let or = |none: &str, value: Option<String>| value.unwrap_or_else(|| none.to_owned());
    let lines = [
        ("filters", class.filters.join(", ")),
        ("max_bytes", ShownSize(class.max_bytes).to_string()),
        (
            "max_messages",
            or(
                "as many as fit",
                class.max_messages.map(|max| max.to_string()),
            ),
        ),
        (
            "max_age",
            or(
                "for ever",
                class.max_age.map(|max| ShownDuration(max).to_string()),
            ),
        ),
        ("when_full", class.when_full.name().to_owned()),
        ("share", shown_share(class.share)),
        ("reserve", ShownSize(class.reserve).to_string()),
    ];
    let title = format!(
        "Class {:?} of the queue of {:?}",
        class.name, queue.client_id
    );
    print_table(to, &title, &lines)
}

fn shown_share(share: u8) -> String {
    format!("{share} % of the messages that leave")
}

fn print_bridge(to: &mut impl Write, bridge: &BridgeConfig) -> io::Result<()> {
    let version = match bridge.version {
        Version::V5 => "5 (MQTT 5.0)",
        Version::V311 => "4 (MQTT 3.1.1)",
    };
    let user = match (&bridge.username, &bridge.password) {
        (Some(username), Some(_)) => format!("{username:?}, with a password"),
        (Some(username), None) => format!("{username:?}, without a password"),
        (None, _) => "none".to_owned(),
    };
    let (min, max) = (
        ShownDuration(bridge.reconnect_min),
        ShownDuration(bridge.reconnect_max),
    );
    let lines = [
        ("url", bridge.urls.join(", then ")),
        ("TLS", tls(bridge)),
        ("version", version.to_owned()),
        ("client_id", format!("{:?}", bridge.client_id)),
        ("username", user),
        ("disk_max", ShownSize(bridge.disk_max).to_string()),
        ("window", bridge.window.to_string()),
        ("reconnect", format!("after {min}, later {max}")),
        (
            "return_after",
            ShownDuration(bridge.return_after).to_string(),
        ),
        ("keep_alive", ShownDuration(bridge.keep_alive).to_string()),
    ];
    print_table(to, &format!("Bridge {}", bridge.name), &lines)?;
    print_rules(to, "forward", &bridge.forward)?;
    print_rules(to, "receive", &bridge.receive)
}

/// How the cloud is verified, and what it is shown.
fn tls(bridge: &BridgeConfig) -> String {
    if !bridge.has_tls() {
        return "none: everything is in the clear".to_owned();
    }
    let tls = &bridge.tls;
    let trusts = match &tls.ca {
        Some(ca) => format!("trusts {}", ca.display()),
        None => "trusts the CAs of this system".to_owned(),
    };
    let shows = tls
        .cert
        .as_ref()
        .map(|cert| format!("shows {}", cert.display()));
    let name = tls
        .server_name
        .as_ref()
        .map(|name| format!("server_name {name}"));
    let alpn = tls.alpn.as_ref().map(|alpn| format!("alpn {alpn}"));
    let parts = [Some(trusts), shows, name, alpn];
    parts.into_iter().flatten().collect::<Vec<_>>().join(", ")
}

fn print_rules(to: &mut impl Write, direction: &str, rules: &[Rule]) -> io::Result<()> {
    for rule in rules {
        let arrives_as = rule.translate(&rule.filter);
        writeln!(
            to,
            "  {direction:<28}{} -> {arrives_as}, at most QoS {}",
            rule.filter, rule.qos as u8
        )?;
    }
    Ok(())
}

fn print_rest(to: &mut impl Write, config: &Config) -> io::Result<()> {
    let interval = match config.sys.interval {
        Some(interval) => ShownDuration(interval).to_string(),
        None => "never".to_owned(),
    };
    let level = config.log.level.to_string().to_lowercase();
    print_table(
        to,
        "Log and $SYS",
        &[("log.level", level), ("sys.interval", interval)],
    )
}

fn print_table(to: &mut impl Write, title: &str, lines: &[(&str, String)]) -> io::Result<()> {
    writeln!(to, "\n{title}")?;
    for (name, value) in lines {
        writeln!(to, "  {name:<28}{value}")?;
    }
    Ok(())
}

fn print_budget(to: &mut impl Write, config: &Config, rows: &[BudgetRow]) -> io::Result<()> {
    if rows.is_empty() {
        return Ok(());
    }
    writeln!(
        to,
        "\n{:<30}{:>12}{:>14}{:>16}",
        "Memory", "count", "bytes each", "bytes"
    )?;
    for row in rows {
        let bytes = row.count.saturating_mul(row.bytes);
        writeln!(
            to,
            "  {:<28}{:>12}{:>14}{bytes:>16}",
            row.owner, row.count, row.bytes
        )?;
    }
    let (sum, memory_max) = (sum(rows), config.limits.memory_max);
    writeln!(to, "  {:<28}{:>42}", "sum", sum)?;
    writeln!(to, "  {:<28}{memory_max:>42}", "memory_max")?;
    if sum > memory_max {
        let largest = rows.iter().max_by_key(|row| row.count * row.bytes);
        writeln!(
            to,
            "\nLarder would not start: the sum is {} bytes above limits.memory_max, and the largest part is for {}. \
             Raise it, or lower what the lines above name.",
            sum - memory_max,
            largest.map_or("", |row| &row.owner)
        )?;
    }
    Ok(())
}

fn sum(rows: &[BudgetRow]) -> u64 {
    rows.iter().fold(0, |sum, row| {
        sum.saturating_add(row.count.saturating_mul(row.bytes))
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use std::path::Path;

    fn printed(config: &Config, rows: &[BudgetRow]) -> String {
        let mut text = Vec::new();
        print(&mut text, config, rows).unwrap();
        String::from_utf8(text).unwrap()
    }

    fn row(owner: &str, count: u64, bytes: u64) -> BudgetRow {
        BudgetRow {
            owner: owner.to_owned(),
            count,
            bytes,
        }
    }

    #[test]
    fn a_bridge_is_shown_with_its_topics_on_both_sides_and_without_its_password() {
        let file = std::env::temp_dir().join(format!("larder-check-{}.toml", std::process::id()));
        let text = r#"
            [[bridge]]
            name = "cloud"
            url = ["mqtt://a", "mqtt://b"]
            client_id = "site42"
            username = "u"
            password = "geheim"
            forward = [{ filter = "sensors/#", remote_prefix = "site42/", qos = 0 }]
            receive = [{ filter = "site42/cmd/#", strip_prefix = "site42/" }]
        "#;
        std::fs::write(&file, text).unwrap();
        let config = Config::load(&file, 1 << 30);
        std::fs::remove_file(&file).unwrap();
        let text = printed(&config.unwrap(), &[]);
        for expected in [
            "127.0.0.1:1883              anyone on this machine\n",
            "\nBridge cloud\n",
            "mqtt://a, then mqtt://b\n",
            "\"u\", with a password\n",
            "  forward                     sensors/# -> site42/sensors/#, at most QoS 0\n",
            "  receive                     site42/cmd/# -> cmd/#, at most QoS 1\n",
            "  disk_max                    1 GiB\n",
        ] {
            assert!(text.contains(expected), "{expected:?} is not in\n{text}");
        }
        assert!(!text.contains("geheim"));
    }

    #[test]
    fn the_budget_is_summed_and_held_against_memory_max() {
        let config =
            Config::without_file(Vec::new(), Path::new("d").to_owned(), 4_000).unwrap_err();
        assert!(config.to_string().contains("memory_max"));
        let config = Config::without_file(Vec::new(), Path::new("d").to_owned(), 4 << 20).unwrap();
        let text = printed(
            &config,
            &[row("link inboxes", 1_000, 512), row("SQLite", 1, 500_000)],
        );
        let expected = "  link inboxes                        1000           512          512000\n";
        assert!(text.contains(expected), "{text}");
        assert!(
            text.contains(&format!("  sum{:>67}\n", 1_012_000)),
            "{text}"
        );
        assert!(!text.contains("would not start"));
        let text = printed(&config, &[row("link inboxes", 1_000, 2_048)]);
        assert!(
            text.contains("would not start: the sum is 475136 bytes above limits.memory_max, and the largest part is for link inboxes"),
            "{text}"
        );
    }
}
