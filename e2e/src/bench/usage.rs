//! What processes use, as the kernel tells it in `/proc`.

use std::collections::HashMap;
use std::fs;
use std::time::Duration;

use anyhow::{Context, Result};

/// Ticks of the kernel's process times in a second: `USER_HZ`, which is 100 on every Linux that runs this.
const TICKS_PER_SECOND: u64 = 100;

/// One process as `/proc/PID/stat` tells it.
struct Stat {
    parent: u32,
    /// CPU time of it and of its children that have ended.
    ticks: u64,
}

/// CPU time of a process and all its descendants.
pub fn cpu_of_tree(root: u32) -> Result<Duration> {
    let mut processes = HashMap::new();
    for entry in fs::read_dir("/proc")? {
        let Ok(pid) = entry?.file_name().to_string_lossy().parse::<u32>() else { continue };
        // It may have ended since.
        if let Ok(text) = fs::read_to_string(format!("/proc/{pid}/stat")) {
            processes.insert(pid, parse(&text).context("the kernel's process times cannot be read")?);
        }
    }
    let belongs = |mut pid: u32| {
        while pid != root {
            match processes.get(&pid) {
                Some(stat) if stat.parent != 0 => pid = stat.parent,
                _ => return false,
            }
        }
        true
    };
    let ticks: u64 = processes.iter().filter(|(pid, _)| belongs(**pid)).map(|(_, stat)| stat.ticks).sum();
    Ok(Duration::from_millis(ticks * 1000 / TICKS_PER_SECOND))
}

/// Largest resident memory of a process so far.
pub fn peak_memory_mebibytes(pid: u32) -> Result<f64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).context("the kernel tells VmHWM")?;
    let kibibytes: f64 = line.trim().trim_end_matches(" kB").parse()?;
    Ok(kibibytes / 1024.0)
}

/// Fields of proc_pid_stat(5): 4 is the parent, 14 to 17 are user and system time, of itself and of ended children.
/// The second, the name, is in parentheses and may hold anything.
fn parse(stat: &str) -> Option<Stat> {
    let (_, rest) = stat.rsplit_once(')')?;
    let fields: Vec<&str> = rest.split_whitespace().collect();
    let parent = fields.get(1)?.parse().ok()?;
    let times = fields.get(11..15)?.iter().map(|ticks| ticks.parse::<u64>());
    Some(Stat { parent, ticks: times.sum::<Result<u64, _>>().ok()? })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_name_may_hold_spaces_and_parentheses() {
        let stat = parse("12 (a ) (b) S 7 12 12 0 -1 4194560 1 2 3 4 100 20 3 1 20 0 4 0 99").unwrap();
        assert_eq!((stat.parent, stat.ticks), (7, 124));
        assert!(parse("12 (a) S").is_none());
    }

    #[test]
    fn this_process_has_used_time_and_memory() {
        assert!(cpu_of_tree(std::process::id()).is_ok());
        assert!(peak_memory_mebibytes(std::process::id()).unwrap() > 1.0);
    }
}
