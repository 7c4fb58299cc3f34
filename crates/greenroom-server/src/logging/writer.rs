//! The writer of the log: a bounded queue, and one thread that writes it to stderr. A reader of stderr that is slow or gone
//! costs lines of the log, and never delays or ends another thread.

use std::collections::VecDeque;
use std::io::{self, ErrorKind, Write};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Duration;

use crate::sync::lock;

/// Maximum size of the waiting lines. Further lines are dropped and counted.
const MAX_QUEUED_BYTES: usize = 4 << 20;
/// Maximum size of one line. A longer line is truncated.
const MAX_LINE_BYTES: usize = 64 << 10;
/// Delay before a retry on a non-blocking pipe that is full.
const RETRY_DELAY: Duration = Duration::from_millis(20);

/// A cheap clone that queues lines without blocking.
#[derive(Debug, Clone)]
pub struct LogWriter(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    state: Mutex<State>,
    queued: Condvar,
    written: Condvar,
}

#[derive(Debug, Default)]
struct State {
    lines: VecDeque<Vec<u8>>,
    /// The size of the queued lines and of the lines that the thread is writing.
    bytes: usize,
    /// Lines dropped since the start.
    dropped: u64,
    /// Dropped lines whose count isn't in the log yet.
    unreported: u64,
}

impl State {
    fn count_dropped(&mut self, lines: u64) {
        self.dropped += lines;
        self.unreported += lines;
    }
}

impl LogWriter {
    /// Starts the thread, which runs until the process ends.
    ///
    /// # Errors
    /// The error of the operating system if the thread can't be started.
    pub fn start(out: impl Write + Send + 'static) -> io::Result<Self> {
        let writer = Self(Arc::default());
        let shared = Arc::clone(&writer.0);
        std::thread::Builder::new()
            .name("log".to_owned())
            .spawn(move || shared.write_lines(out))?;
        Ok(writer)
    }

    /// Queues one line, or several. Drops and counts the text if the queue is full.
    pub fn push(&self, text: &[u8]) {
        let line = bounded(text);
        let mut state = lock(&self.0.state);
        if state.bytes + line.len() > MAX_QUEUED_BYTES {
            state.count_dropped(1);
            return;
        }
        state.bytes += line.len();
        state.lines.push_back(line);
        self.0.queued.notify_one();
    }

    /// Returns the number of dropped lines since the start.
    pub fn dropped(&self) -> u64 {
        lock(&self.0.state).dropped
    }

    /// Waits until all queued lines are written, at most for `limit`.
    pub fn flush(&self, limit: Duration) {
        let state = lock(&self.0.state);
        let waited = self
            .0
            .written
            .wait_timeout_while(state, limit, |state| state.bytes > 0);
        drop(waited.unwrap_or_else(PoisonError::into_inner));
    }
}

impl Shared {
    fn write_lines(&self, mut out: impl Write) {
        loop {
            let (lines, unreported) = self.take();
            let bytes: usize = lines.iter().map(Vec::len).sum();
            let reported = unreported > 0 && write_fully(&mut out, &report(unreported)).is_ok();
            let failed = lines
                .iter()
                .filter(|line| write_fully(&mut out, line).is_err())
                .count();
            let mut state = lock(&self.state);
            if reported {
                state.unreported -= unreported;
            }
            state.count_dropped(failed as u64);
            state.bytes -= bytes;
            self.written.notify_all();
        }
    }

    /// Waits for lines and returns them, with the number of unreported dropped lines.
    fn take(&self) -> (VecDeque<Vec<u8>>, u64) {
        let state = lock(&self.state);
        let state = self
            .queued
            .wait_while(state, |state| state.lines.is_empty());
        let mut state = state.unwrap_or_else(PoisonError::into_inner);
        (std::mem::take(&mut state.lines), state.unreported)
    }
}

fn report(lines: u64) -> Vec<u8> {
    format!("{lines} lines of the log were dropped: stderr was not read\n").into_bytes()
}

/// Returns the text with its line end, truncated at [`MAX_LINE_BYTES`].
fn bounded(text: &[u8]) -> Vec<u8> {
    if text.len() <= MAX_LINE_BYTES {
        return text.to_vec();
    }
    let mut line = text[..MAX_LINE_BYTES].to_vec();
    line.extend_from_slice("… (truncated)\n".as_bytes());
    line
}

/// Writes the whole text, also to a pipe in non-blocking mode.
fn write_fully(out: &mut impl Write, mut text: &[u8]) -> io::Result<()> {
    while !text.is_empty() {
        match out.write(text) {
            Ok(0) => return Err(ErrorKind::WriteZero.into()),
            Ok(written) => text = &text[written..],
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) if error.kind() == ErrorKind::WouldBlock => std::thread::sleep(RETRY_DELAY),
            Err(error) => return Err(error),
        }
    }
    out.flush()
}

impl Write for LogWriter {
    fn write(&mut self, text: &[u8]) -> io::Result<usize> {
        self.push(text);
        Ok(text.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc::{Receiver, Sender, channel};

    const LIMIT: Duration = Duration::from_secs(20);

    /// An output that waits for a permit before each write. Without permits left it fails, as a closed pipe does.
    struct GatedOut {
        permits: Receiver<bool>,
        written: Sender<String>,
    }

    impl Write for GatedOut {
        fn write(&mut self, text: &[u8]) -> io::Result<usize> {
            match self.permits.recv() {
                Ok(true) => {
                    let text_written = String::from_utf8(text.to_vec()).unwrap();
                    self.written.send(text_written).unwrap();
                    Ok(text.len())
                }
                _ => Err(ErrorKind::BrokenPipe.into()),
            }
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn gated() -> (LogWriter, Sender<bool>, Receiver<String>) {
        let (permit, permits) = channel();
        let (written, output) = channel();
        let writer = LogWriter::start(GatedOut { permits, written }).unwrap();
        (writer, permit, output)
    }

    #[test]
    fn full_queue_drops_lines_and_reports_their_number() {
        let (writer, permit, output) = gated();
        let line = vec![b'x'; MAX_LINE_BYTES];
        let fitting = MAX_QUEUED_BYTES / MAX_LINE_BYTES;
        for _ in 0..fitting + 3 {
            writer.push(&line);
        }
        assert_eq!(writer.dropped(), 3);
        // One more write for the report, and one for the line behind it.
        (0..fitting + 2).for_each(|_| permit.send(true).unwrap());
        writer.flush(LIMIT);
        writer.push(b"later\n");
        writer.flush(LIMIT);
        let written: Vec<String> = output.try_iter().collect();
        let reports = written.iter().filter(|text| text.starts_with("3 lines of"));
        assert_eq!((reports.count(), written.len()), (1, fitting + 2));
        assert_eq!(written.last().map(String::as_str), Some("later\n"));
        assert_eq!(writer.dropped(), 3);
    }

    #[test]
    fn failed_write_is_counted() {
        let (writer, permit, output) = gated();
        permit.send(false).unwrap();
        writer.push(b"lost\n");
        writer.flush(LIMIT);
        assert_eq!(writer.dropped(), 1);
        (0..2).for_each(|_| permit.send(true).unwrap());
        writer.push(b"next\n");
        assert!(output.recv_timeout(LIMIT).unwrap().starts_with("1 lines"));
        assert_eq!(output.recv_timeout(LIMIT).unwrap(), "next\n");
    }

    #[test]
    fn flush_of_an_unread_output_is_bounded() {
        let (writer, _permit, _output) = gated();
        writer.push(b"unread\n");
        writer.flush(Duration::from_millis(10));
        assert_eq!(writer.dropped(), 0);
    }
}
