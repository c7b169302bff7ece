//! The table: medians of all rounds, as Markdown.

use crate::broker::Kind;
use crate::measure::{Effort, Sample};
use crate::rows::{Figure, Row};
use crate::tally::Faults;
use std::collections::BTreeMap;
use std::fmt::Write;
use std::time::Duration;

pub(crate) const HEAD: &str = "\
| row | unit | Larder | mosquitto | ratio | best peer's | relay | CPU µs a message | ratio | system % | busy % | waited % | fdatasync ms | lost, doubled, disordered |
| --- | --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | --- |";

pub(crate) const LEGEND: &str = "\
ratio: Larder ÷ mosquitto. best peer's: the best of Mosquitto 2.1.2, NanoMQ 0.25, rumqttd 0.20 and FlashMQ 1.26 ÷ mosquitto, as measured
once. relay: the same bytes without MQTT. CPU: of the broker, Larder / mosquitto / relay; system: the part of Larder's in the kernel.
busy: Larder on its core / the generator on the other. waited: they wanted it and other programs had it: what spoils a rate. *: the
generator was the limit. fdatasync: the median on this disk before each run. The last column: Larder; mosquitto, of all rounds.";

/// All samples of a row: by broker, for each round, for each figure.
pub(crate) type Samples = BTreeMap<Kind, Vec<Vec<Sample>>>;

/// A line for each of the row's figures.
pub(crate) fn lines(row: &Row, samples: &Samples, sync_times: &[Duration]) -> String {
    let mut text = String::new();
    for (index, figure) in row.figures.iter().enumerate() {
        let column: BTreeMap<Kind, Vec<Sample>> = samples
            .iter()
            .map(|(&kind, rounds)| (kind, rounds.iter().map(|round| round[index]).collect()))
            .collect();
        line(row, figure, &column, sync_times, &mut text);
    }
    text
}

fn line(
    row: &Row,
    figure: &Figure,
    column: &BTreeMap<Kind, Vec<Sample>>,
    sync_times: &[Duration],
    text: &mut String,
) {
    let value = |kind| median(column.get(&kind)?.iter().map(|sample| sample.value));
    let effort = |kind, part: fn(&Effort) -> f64| {
        let efforts = column.get(&kind)?.iter().filter_map(|sample| sample.effort);
        median(efforts.map(|effort| part(&effort)))
    };
    let ratio = |ours: Option<f64>, theirs: Option<f64>| Some(ours? / theirs?);
    let shown = |kind| {
        let samples = column.get(&kind).map_or(&[][..], Vec::as_slice);
        let efforts = samples.iter().filter_map(|sample| sample.effort);
        let limited = efforts.filter(Effort::is_limited_by_generator).count();
        let mark = if limited * 2 > samples.len() { "*" } else { "" };
        value(kind).map_or_else(String::new, |value| {
            format!("{}{mark}", number(value, figure.decimals))
        })
    };
    let faults = |kind| {
        let samples = column.get(&kind).map_or(&[][..], Vec::as_slice);
        let mut sum = Faults::default();
        samples.iter().for_each(|sample| sum.add(sample.faults));
        format!("{}, {}, {}", sum.lost, sum.doubled, sum.disordered)
    };
    let (ours, theirs) = (Kind::Larder, Kind::Mosquitto);
    let cpu = |kind| effort(kind, |effort| effort.cpu);
    let percent = |part| cell(effort(ours, part).map(|part| part * 100.0), 0);
    let both = |of_broker, of_generator| {
        let (of_broker, of_generator) = (percent(of_broker), percent(of_generator));
        joined(&[of_broker, of_generator])
    };
    let sync = median(sync_times.iter().map(|time| time.as_secs_f64() * 1e3));
    // Writing to a String does not fail.
    let _ = writeln!(
        text,
        "| {} {} | {} | {} | {} | {} | {} | {} | {} | {} | {} | {} | {} | {} | {}; {} |",
        row.name,
        figure.label,
        figure.unit,
        shown(ours),
        shown(theirs),
        cell(ratio(value(ours), value(theirs)), 2),
        cell(figure.best, 2),
        shown(Kind::Relay),
        joined(&[ours, theirs, Kind::Relay].map(|kind| cell(cpu(kind), 3))),
        cell(ratio(cpu(ours), cpu(theirs)), 3),
        percent(|effort| effort.system),
        both(|effort| effort.broker_busy, |effort| effort.generator_busy),
        both(
            |effort| effort.broker_waited,
            |effort| effort.generator_waited
        ),
        cell(sync, 2),
        faults(ours),
        faults(theirs),
    );
}

/// What there is, with slashes between.
fn joined(cells: &[String]) -> String {
    let there: Vec<&str> = cells.iter().map(String::as_str).collect();
    there.join(" / ").trim_matches([' ', '/']).to_owned()
}

fn cell(value: Option<f64>, decimals: usize) -> String {
    value.map_or_else(String::new, |value| number(value, decimals))
}

/// With commas between thousands.
fn number(value: f64, decimals: usize) -> String {
    let text = format!("{value:.decimals$}");
    let (whole, fraction) = text.split_once('.').unwrap_or((&text, ""));
    let mut shown = String::new();
    for (index, digit) in whole.chars().enumerate() {
        if index > 0 && (whole.len() - index) % 3 == 0 && digit.is_ascii_digit() {
            shown.push(',');
        }
        shown.push(digit);
    }
    if !fraction.is_empty() {
        shown.push('.');
        shown.push_str(fraction);
    }
    shown
}

fn median(values: impl Iterator<Item = f64>) -> Option<f64> {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    match values.len() {
        0 => None,
        len if len % 2 == 0 => Some((values[middle - 1] + values[middle]) / 2.0),
        _ => Some(values[middle]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_readable() {
        assert_eq!(number(1_602_981.4, 0), "1,602,981");
        assert_eq!(number(0.7449, 3), "0.745");
        assert_eq!(number(999.0, 0), "999");
    }

    #[test]
    fn a_median_is_the_middle() {
        assert_eq!(median([3.0, 1.0, 2.0].into_iter()), Some(2.0));
        assert_eq!(median([4.0, 1.0].into_iter()), Some(2.5));
        assert_eq!(median([].into_iter()), None);
    }
}
