//! A wall clock for one process. Linux has namespaces for other clocks, and none for this one.

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};
use tempfile::TempDir;

const SOURCE: &str = include_str!("clock/wall.c");
/// Names the file with the seconds to add; see the source.
const AHEAD: &str = "HARBORHOOK_TEST_WALL_CLOCK";

/// A wall clock that can be set while processes go by it: those that are started with [`Self::environment`] and ask the
/// C library for the time. Their other clocks are those of the machine.
#[derive(Debug)]
pub struct WallClock {
    folder: TempDir,
    ahead: File,
}

impl WallClock {
    /// One that is right.
    pub fn new() -> Result<Self> {
        let folder = tempfile::tempdir()?;
        compile(folder.path())?;
        let ahead = File::create(folder.path().join("ahead"))?;
        let clock = Self { folder, ahead };
        clock.set_ahead(0)?;
        Ok(clock)
    }

    /// From now on it is so many seconds ahead of the machine's; behind, if negative.
    pub fn set_ahead(&self, seconds: i64) -> Result<()> {
        self.ahead.write_all_at(&seconds.to_ne_bytes(), 0).context("the clock cannot be set")
    }

    /// What a process has to find in its environment.
    pub fn environment(&self) -> [(&'static str, PathBuf); 2] {
        let file = |name| self.folder.path().join(name);
        [("LD_PRELOAD", file("wall.so")), (AHEAD, file("ahead"))]
    }
}

fn compile(folder: &Path) -> Result<()> {
    fs::write(folder.join("wall.c"), SOURCE)?;
    let compiled = Command::new("cc")
        .args(["-O1", "-shared", "-fPIC", "-Wall", "-Werror", "-o", "wall.so", "wall.c"])
        .current_dir(folder)
        .output()
        .context("cc does not start; apt-get install gcc libc6-dev")?;
    if !compiled.status.success() {
        bail!("the clock does not compile\n{}", String::from_utf8_lossy(&compiled.stderr));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_that_goes_by_it_sees_it_set_and_the_machine_does_not() {
        const HOUR: i64 = 3_600;
        let clock = WallClock::new().unwrap();
        let date = |environment: &[(&str, PathBuf)]| {
            let mut date = Command::new("date");
            date.arg("+%s").envs(environment.iter().cloned());
            String::from_utf8(date.output().unwrap().stdout).unwrap().trim().parse::<i64>().unwrap()
        };
        for ahead in [0, HOUR, -HOUR] {
            clock.set_ahead(ahead).unwrap();
            let (by_it, really) = (date(&clock.environment()), date(&[]));
            assert!((by_it - really - ahead).abs() < 60, "{by_it} {really}");
        }
    }
}
