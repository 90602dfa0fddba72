//! Tells when files may have changed.

use std::convert::Infallible;
use std::path::Path;

use dispatcher_core::limits::{FILE_REREAD_INTERVAL, FILE_SETTLE_ROUNDS_MAX, FILE_SETTLE_TIME};
use notify::event::{AccessKind, AccessMode};
use notify::{Event, EventKind, RecommendedWatcher, RecursiveMode, Watcher};
use tokio::sync::mpsc;
use tokio::time::{MissedTickBehavior, interval, timeout};

/// Watches a path: from now on something is received whenever it is worth reading again, after a change, once the files
/// are left alone, or after a while. If the system cannot tell of changes, says why; they are then found a little later.
pub(super) fn spawn(path: &Path) -> (mpsc::Receiver<()>, Option<notify::Error>) {
    let (changes, error) = Changes::of(path);
    let (sender, receiver) = mpsc::channel(1);
    tokio::spawn(changes.run(sender));
    (receiver, error)
}

/// Changes of a folder or a file.
struct Changes {
    _watcher: Option<RecommendedWatcher>,
    told: mpsc::Receiver<()>,
    reread: tokio::time::Interval,
}

impl Changes {
    fn of(path: &Path) -> (Self, Option<notify::Error>) {
        let (sender, told) = mpsc::channel(1);
        let (watcher, error) = match watch(path, sender) {
            Ok(watcher) => (Some(watcher), None),
            Err(error) => (None, Some(error)),
        };
        let mut reread = interval(FILE_REREAD_INTERVAL);
        reread.set_missed_tick_behavior(MissedTickBehavior::Delay);
        (Self { _watcher: watcher, told, reread }, error)
    }

    /// Runs until nobody listens any more.
    async fn run(mut self, sender: mpsc::Sender<()>) -> Option<Infallible> {
        loop {
            self.next().await;
            sender.send(()).await.ok()?;
        }
    }

    async fn next(&mut self) {
        tokio::select! {
            Some(()) = self.told.recv() => {}
            _ = self.reread.tick() => return,
        }
        for _ in 0..FILE_SETTLE_ROUNDS_MAX {
            if !matches!(timeout(FILE_SETTLE_TIME, self.told.recv()).await, Ok(Some(()))) {
                return;
            }
        }
    }
}

fn watch(path: &Path, sender: mpsc::Sender<()>) -> notify::Result<RecommendedWatcher> {
    let mut watcher = notify::recommended_watcher(move |event: notify::Result<Event>| {
        if event.is_ok_and(|event| changes_content(event.kind)) {
            // A change that has not been looked at yet stands for this one too.
            let _ = sender.try_send(());
        }
    })?;
    // Editors replace a file rather than write it, and only its folder hears of that.
    let (folder, mode) = match path.parent() {
        Some(parent) if path.is_file() => (parent, RecursiveMode::NonRecursive),
        _ => (path, RecursiveMode::Recursive),
    };
    watcher.watch(folder, mode)?;
    Ok(watcher)
}

/// Reading a file is an event too; taking it for a change would never end.
fn changes_content(kind: EventKind) -> bool {
    !matches!(kind, EventKind::Access(access) if access != AccessKind::Close(AccessMode::Write))
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::time::Duration;

    use super::*;

    #[tokio::test]
    async fn a_replaced_file_is_noticed_and_a_read_one_is_not() {
        assert!(!changes_content(EventKind::Access(AccessKind::Open(AccessMode::Any))));
        assert!(changes_content(EventKind::Access(AccessKind::Close(AccessMode::Write))));

        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("a.yaml");
        fs::write(&file, "one").unwrap();
        let (mut changes, error) = Changes::of(&file);
        assert!(error.is_none(), "{error:?}");
        fs::write(folder.path().join("b"), "two").unwrap();
        fs::rename(folder.path().join("b"), &file).unwrap();
        timeout(Duration::from_secs(30), changes.told.recv()).await.expect("the change was not told");
    }
}
