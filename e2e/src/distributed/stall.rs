//! What the machine itself does to time.

use std::fs;
use std::time::Duration;

/// How long, since the machine was started, something stood still because it waited for a core or for the disk: pressure
/// stall information of Linux, of the whole machine. `None` where the kernel does not count it.
pub(super) fn stalled() -> Option<Duration> {
    ["cpu", "io"].into_iter().map(|what| total(&fs::read_to_string(format!("/proc/pressure/{what}")).ok()?)).sum()
}

/// The sum of the line that tells of some, in `some avg10=0.00 avg60=0.00 avg300=0.00 total=MICROSECONDS`.
fn total(pressure: &str) -> Option<Duration> {
    let line = pressure.lines().find(|line| line.starts_with("some "))?;
    Some(Duration::from_micros(line.rsplit_once("total=")?.1.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_time_in_which_something_waited_is_read() {
        let pressure = "some avg10=95.52 avg60=93.48 avg300=59.32 total=277189996\nfull avg10=0.00 total=7\n";
        assert_eq!(total(pressure), Some(Duration::from_micros(277_189_996)));
        assert_eq!(total(""), None);
    }
}
