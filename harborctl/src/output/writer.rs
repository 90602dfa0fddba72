//! Writes lines from a thread of its own: whoever prints never waits for whoever reads.

use std::io::{self, Write};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::sync::{Arc, OnceLock};
use std::thread;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::sync::mpsc::error::TryRecvError;

/// Where text goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stream {
    /// Data.
    Stdout,
    /// What is said to a person.
    Stderr,
}

/// Text of whole lines on its way.
#[derive(Debug)]
pub(super) struct Piece {
    /// Where it goes.
    pub(super) stream: Stream,
    /// The text.
    pub(super) text: String,
}

/// A bounded queue of pieces and the thread that writes them. What does not fit is dropped and counted.
#[derive(Debug)]
pub(super) struct Writer {
    queue: mpsc::Sender<Piece>,
    shared: Arc<Shared>,
    /// Something after each piece that was written; disconnected once the thread has ended.
    progress: Receiver<()>,
}

#[derive(Debug, Default)]
struct Shared {
    dropped_lines: AtomicU64,
    failed: OnceLock<io::ErrorKind>,
}

impl Writer {
    /// Starts the thread. `write` puts a piece where it goes; `missed` says that so many lines were dropped.
    pub(super) fn start(
        pieces_max: usize,
        write: impl FnMut(&Piece) -> io::Result<()> + Send + 'static,
        missed: fn(u64) -> Piece,
    ) -> io::Result<Self> {
        let (queue, pieces) = mpsc::channel(pieces_max);
        let (written, progress) = sync_channel(1);
        let shared = Arc::new(Shared::default());
        let thread = Thread { pieces, shared: Arc::clone(&shared), written, write, missed };
        thread::Builder::new().name("output".to_owned()).spawn(move || thread.run())?;
        Ok(Self { queue, shared, progress })
    }

    /// Queues a piece, or drops and counts it. Fails if an earlier one could not be written.
    pub(super) fn push(&self, piece: Piece) -> io::Result<()> {
        if let Some(kind) = self.shared.failed.get() {
            return Err((*kind).into());
        }
        if let Err(error) = self.queue.try_send(piece) {
            let lines = error.into_inner().text.lines().count();
            self.shared.dropped_lines.fetch_add(u64::try_from(lines).unwrap_or(u64::MAX), Ordering::Relaxed);
        }
        Ok(())
    }

    /// Waits until a piece fits; returns at once when nothing is written any more.
    pub(super) async fn room(&self) {
        // An error means that the thread has ended, and the next push says why.
        let _ = self.queue.reserve().await;
    }

    /// Waits until nothing is queued; returns at once when nothing is written any more.
    pub(super) async fn flushed(&self) {
        let _ = self.queue.reserve_many(self.queue.max_capacity()).await;
    }

    /// Waits until everything is written, as long as the reader goes on reading: at most `patience` for each piece.
    pub(super) fn finish(self, patience: Duration) -> io::Result<()> {
        let Self { queue, shared, progress } = self;
        drop(queue);
        loop {
            match progress.recv_timeout(patience) {
                Ok(()) => {}
                Err(RecvTimeoutError::Timeout) => return Ok(()),
                Err(RecvTimeoutError::Disconnected) => break,
            }
        }
        shared.failed.get().map_or(Ok(()), |kind| Err((*kind).into()))
    }
}

struct Thread<Write> {
    pieces: mpsc::Receiver<Piece>,
    shared: Arc<Shared>,
    written: SyncSender<()>,
    write: Write,
    missed: fn(u64) -> Piece,
}

impl<Write: FnMut(&Piece) -> io::Result<()>> Thread<Write> {
    /// Writes until nobody prints any more, or until it cannot.
    fn run(mut self) {
        while let Some(piece) = self.next() {
            if let Err(error) = (self.write)(&piece) {
                // The first one counts; there is no second.
                let _ = self.shared.failed.set(error.kind());
                return;
            }
            // One that was not looked at yet stands for this one too.
            let _ = self.written.try_send(());
        }
    }

    /// The next piece: what was dropped is told as soon as the reader has caught up.
    fn next(&mut self) -> Option<Piece> {
        match self.pieces.try_recv() {
            Ok(piece) => Some(piece),
            Err(error) => match self.shared.dropped_lines.swap(0, Ordering::Relaxed) {
                0 if error == TryRecvError::Disconnected => None,
                0 => self.pieces.blocking_recv(),
                lines => Some((self.missed)(lines)),
            },
        }
    }
}

/// Writes a piece to the process's own streams. Nobody minds if nobody listens on stderr.
pub(super) fn write_to_process(piece: &Piece) -> io::Result<()> {
    match piece.stream {
        Stream::Stdout => {
            let mut stdout = io::stdout().lock();
            stdout.write_all(piece.text.as_bytes())?;
            stdout.flush()
        }
        Stream::Stderr => {
            let _ = io::stderr().lock().write_all(piece.text.as_bytes());
            Ok(())
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::{Sender, channel};

    use super::*;

    const DEADLINE: Duration = Duration::from_mins(1);

    fn line(text: &str) -> Piece {
        Piece { stream: Stream::Stdout, text: format!("{text}\n") }
    }

    fn missed(lines: u64) -> Piece {
        line(&format!("missed {lines}"))
    }

    /// A writer whose reader takes a piece each time that something is sent, and what it has read.
    fn stalled(pieces_max: usize) -> (Writer, Sender<()>, Receiver<String>) {
        let (read, reads) = channel::<()>();
        let (taken, texts) = channel();
        let write = move |piece: &Piece| {
            reads.recv().map_err(|_| io::ErrorKind::BrokenPipe)?;
            taken.send(piece.text.trim_end().to_owned()).map_err(|_| io::ErrorKind::BrokenPipe.into())
        };
        (Writer::start(pieces_max, write, missed).unwrap(), read, texts)
    }

    #[test]
    fn what_does_not_fit_is_dropped_and_told_once_the_reader_has_caught_up() {
        let (writer, read, texts) = stalled(2);
        writer.push(line("first")).unwrap();
        read.send(()).unwrap();
        assert_eq!(texts.recv_timeout(DEADLINE).unwrap(), "first");
        // The thread may hold one, the queue holds two.
        for number in 0..10 {
            writer.push(line(&number.to_string())).unwrap();
        }
        for _ in 0..4 {
            read.send(()).unwrap();
        }
        let mut shown = Vec::new();
        let told = loop {
            let text = texts.recv_timeout(DEADLINE).unwrap();
            match text.strip_prefix("missed ") {
                Some(lines) => break lines.parse::<usize>().unwrap(),
                None => shown.push(text),
            }
        };
        assert!((2..=3).contains(&shown.len()), "{shown:?}");
        assert_eq!(shown.len() + told, 10);
    }

    #[test]
    fn the_end_does_not_wait_for_a_reader_that_takes_nothing() {
        let (writer, _read, _texts) = stalled(2);
        writer.push(line("never read")).unwrap();
        writer.finish(Duration::from_millis(10)).unwrap();
    }

    #[test]
    fn the_end_waits_for_a_reader_that_goes_on() {
        let (writer, read, texts) = stalled(8);
        for number in 0..8 {
            writer.push(line(&number.to_string())).unwrap();
            read.send(()).unwrap();
        }
        writer.finish(DEADLINE).unwrap();
        assert_eq!(texts.try_iter().count(), 8);
    }

    #[test]
    fn a_reader_that_has_gone_is_told_to_whoever_prints() {
        let (writer, read, _texts) = stalled(2);
        drop(read);
        writer.push(line("lost")).unwrap();
        assert_eq!(writer.progress.recv_timeout(DEADLINE), Err(RecvTimeoutError::Disconnected));
        assert_eq!(writer.push(line("refused")).unwrap_err().kind(), io::ErrorKind::BrokenPipe);
        assert_eq!(writer.finish(DEADLINE).unwrap_err().kind(), io::ErrorKind::BrokenPipe);
    }
}
