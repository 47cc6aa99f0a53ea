//! What commands print: data on stdout as a table or as JSON, everything else on stderr.

use crate::exit::{Failure, Outcome};
use clap::ValueEnum;
use comfy_table::{Table, presets};
use serde::Serialize;
use std::{io::Write as _, time::Duration};

/// The form of data on stdout.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub enum Format {
    /// For people.
    #[default]
    Table,
    /// For programs: one document, or one per line for logs and usage records
    Json,
}

/// Prints `data` as JSON, or what `table` makes of it.
pub fn print<T: Serialize>(format: Format, data: &T, table: impl FnOnce(&T) -> String) -> Outcome<()> {
    let text = match format {
        Format::Table => table(data),
        Format::Json => serde_json::to_string_pretty(data)
            .map_err(|error| Failure::failed("the answer cannot be written as JSON", &error))?,
    };
    line(&text)
}

/// Prints one line of data. A closed pipe (`| head`) is the reader's wish and no failure.
pub fn line(text: &str) -> Outcome<()> {
    bytes(format!("{text}\n").as_bytes())
}

/// Prints bytes of data as they are.
pub fn bytes(data: &[u8]) -> Outcome<()> {
    let mut stdout = std::io::stdout().lock();
    match stdout.write_all(data).and_then(|()| stdout.flush()) {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => {
            Err(Failure::failed("stdout cannot be written", &error))
        }
        _ => Ok(()),
    }
}

/// Says something to the person, on stderr.
pub fn say(text: impl AsRef<str>) {
    anstream::eprintln!("{}", text.as_ref());
}

/// A table without lines, as `kubectl` and `docker` print them.
pub fn table<const N: usize>(head: [&str; N], rows: impl IntoIterator<Item = [String; N]>) -> String {
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_header(head);
    for row in rows {
        table.add_row(row);
    }
    table.lines().map(|line| line.trim_end().to_owned()).collect::<Vec<_>>().join("\n")
}

/// Bytes for people: `1.5 MiB`.
pub fn size(bytes: u64) -> String {
    const UNITS: [&str; 5] = ["B", "KiB", "MiB", "GiB", "TiB"];
    let mut value = bytes as f64;
    let mut unit = 0;
    while value >= 1024.0 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    if unit == 0 { format!("{bytes} B") } else { format!("{value:.1} {}", UNITS[unit]) }
}

/// A duration for people: `3.2 ms`, `1.5 s`.
pub fn duration(duration: Duration) -> String {
    let seconds = duration.as_secs_f64();
    match seconds {
        s if s < 0.001 => format!("{:.0} µs", s * 1e6),
        s if s < 1.0 => format!("{:.1} ms", s * 1e3),
        s if s < 120.0 => format!("{s:.1} s"),
        s if s < 7_200.0 => format!("{:.0} min", s / 60.0),
        s if s < 172_800.0 => format!("{:.0} h", s / 3_600.0),
        s => format!("{:.0} d", s / 86_400.0),
    }
}

/// Milliseconds since 1970, now.
pub fn now_ms() -> u64 {
    std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .map_or(0, |since| u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}

/// How long ago a moment was.
pub fn age(at_ms: u64) -> String {
    duration(Duration::from_millis(now_ms().saturating_sub(at_ms)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_and_durations_read_well() {
        assert_eq!(size(512), "512 B");
        assert_eq!(size(1536), "1.5 KiB");
        assert_eq!(duration(Duration::from_micros(250)), "250 µs");
        assert_eq!(duration(Duration::from_millis(12)), "12.0 ms");
        assert_eq!(duration(Duration::from_secs(90)), "90.0 s");
    }
}
