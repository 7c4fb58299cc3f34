//! Decodes server-sent events, from bytes to the `data` of each event. Memory is bounded: an oversized event is skipped and
//! the stream continues; the available libraries buffer without a limit. Event names, ids and retry times are ignored:
//! opencode does not use them.

/// A decoded event.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Frame {
    /// The data of one event, its lines joined.
    Data(Vec<u8>),
    /// An event that was larger than the bound and was skipped.
    TooLarge,
}

/// Decodes bytes in pieces of any size.
#[derive(Debug)]
pub(crate) struct Decoder {
    bound: usize,
    line: Vec<u8>,
    data: Option<Vec<u8>>,
    /// True while an oversized event is skipped up to its end.
    oversize: bool,
    line_has_bytes: bool,
    after_cr: bool,
    at_start: bool,
}

impl Decoder {
    /// Returns a decoder for one connection; an event may have at most `bound` bytes.
    pub(crate) fn new(bound: usize) -> Self {
        Self {
            bound,
            line: Vec::new(),
            data: None,
            oversize: false,
            line_has_bytes: false,
            after_cr: false,
            at_start: true,
        }
    }

    /// Decodes the next bytes; returns the events that end in them.
    pub(crate) fn feed(&mut self, mut bytes: &[u8]) -> Vec<Frame> {
        let mut frames = Vec::new();
        while !bytes.is_empty() {
            if std::mem::take(&mut self.after_cr) && bytes[0] == b'\n' {
                bytes = &bytes[1..];
                continue;
            }
            match bytes.iter().position(|byte| matches!(byte, b'\n' | b'\r')) {
                Some(end) => {
                    self.extend_line(&bytes[..end]);
                    self.after_cr = bytes[end] == b'\r';
                    bytes = &bytes[end + 1..];
                    frames.extend(self.end_line());
                }
                None => {
                    self.extend_line(bytes);
                    break;
                }
            }
        }
        frames
    }

    fn extend_line(&mut self, bytes: &[u8]) {
        self.line_has_bytes |= !bytes.is_empty();
        if self.oversize {
            return;
        }
        let kept = self.data.as_ref().map_or(0, Vec::len);
        if kept + self.line.len() + bytes.len() > self.bound {
            self.oversize = true;
            self.line = Vec::new();
            self.data = None;
        } else {
            self.line.extend_from_slice(bytes);
        }
    }

    fn end_line(&mut self) -> Option<Frame> {
        let blank = !std::mem::take(&mut self.line_has_bytes);
        if std::mem::take(&mut self.at_start) && self.line.starts_with(b"\xef\xbb\xbf") {
            self.line.drain(..3);
        }
        if blank {
            if std::mem::take(&mut self.oversize) {
                return Some(Frame::TooLarge);
            }
            return self.data.take().map(Frame::Data);
        }
        let line = std::mem::take(&mut self.line);
        if let Some(value) = data_value(&line) {
            let joined = match self.data.take() {
                Some(mut before) => {
                    before.push(b'\n');
                    before.extend_from_slice(value);
                    before
                }
                None => value.to_vec(),
            };
            self.data = Some(joined);
        }
        None
    }
}

/// Returns the value of a `data` line, without the optional space after the colon.
fn data_value(line: &[u8]) -> Option<&[u8]> {
    match line.strip_prefix(b"data")? {
        [] => Some(&[]),
        [b':', b' ', value @ ..] | [b':', value @ ..] => Some(value),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn data(text: &str) -> Frame {
        Frame::Data(text.as_bytes().to_vec())
    }

    fn all(pieces: &[&[u8]]) -> Vec<Frame> {
        let mut decoder = Decoder::new(64);
        pieces
            .iter()
            .flat_map(|piece| decoder.feed(piece))
            .collect()
    }

    #[test]
    fn events_do_not_depend_on_the_pieces() {
        let stream =
            "data: ä1\r\ndata:2\r\n\r\nevent: x\ndata: three\n\n: comment\n\ndata\rdata: 5\r\r"
                .as_bytes();
        let expected = vec![data("ä1\n2"), data("three"), data("\n5")];
        assert_eq!(all(&[stream]), expected);
        for cut in 1..stream.len() {
            assert_eq!(
                all(&[&stream[..cut], &stream[cut..]]),
                expected,
                "cut at {cut}"
            );
        }
        let bytes: Vec<&[u8]> = stream.chunks(1).collect();
        assert_eq!(all(&bytes), expected);
    }

    #[test]
    fn oversized_event_is_skipped_and_the_next_is_read() {
        let mut decoder = Decoder::new(10);
        assert_eq!(decoder.feed(b"data: "), vec![]);
        for _ in 0..1000 {
            assert_eq!(decoder.feed(&[b'x'; 100]), vec![]);
            assert!(decoder.line.capacity() <= 16, "a skipped line is not kept");
        }
        assert_eq!(
            decoder.feed(b"\ndata: more of it\n\ndata: ok\n\n"),
            vec![Frame::TooLarge, data("ok")]
        );
    }

    #[test]
    fn lines_of_one_event_count_together() {
        let mut decoder = Decoder::new(20);
        let frames: Vec<Frame> = (0..10)
            .flat_map(|_| decoder.feed(b"data: 1234\n"))
            .collect();
        assert_eq!(frames, vec![]);
        assert_eq!(decoder.feed(b"\n"), vec![Frame::TooLarge]);
    }

    #[test]
    fn unfinished_event_is_not_returned() {
        assert_eq!(all(&[b"data: cut off\n"]), vec![]);
        assert_eq!(all(&[b"id: 4\n\n\n\n"]), vec![]);
    }

    #[test]
    fn byte_order_mark_is_skipped() {
        assert_eq!(all(&["\u{feff}data: a\n\n".as_bytes()]), vec![data("a")]);
    }
}
