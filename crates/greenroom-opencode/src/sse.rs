//! Server-sent events, from bytes to the `data` of each event. Bounded: an event that is too large is skipped to its end
//! and the stream goes on, which is why this is no library's (those at hand keep whatever a server sends). Only
//! [`crate::events`] talks to it. Names, ids and retry times are not used by opencode and not read.

/// What came out of the bytes.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Frame {
    /// The data of one event, its lines joined.
    Data(Vec<u8>),
    /// One event was larger than the bound, and is lost.
    TooLarge,
}

/// Takes bytes in pieces of any size.
#[derive(Debug)]
pub(crate) struct Decoder {
    bound: usize,
    line: Vec<u8>,
    data: Option<Vec<u8>>,
    /// The event under way is over the bound: its bytes are counted no more, only its end is looked for.
    oversize: bool,
    line_has_bytes: bool,
    after_cr: bool,
    at_start: bool,
}

impl Decoder {
    /// A decoder for one connection; an event may have `bound` bytes.
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

    /// Takes the next bytes and gives the events that end in them.
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

/// The value of a `data` line, without the one space that may follow the colon.
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
    fn every_way_to_split_the_bytes_gives_the_same_events() {
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
    fn an_event_that_is_too_large_is_skipped_and_the_next_is_read() {
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
    fn many_small_lines_of_one_event_count_together() {
        let mut decoder = Decoder::new(20);
        let frames: Vec<Frame> = (0..10)
            .flat_map(|_| decoder.feed(b"data: 1234\n"))
            .collect();
        assert_eq!(frames, vec![]);
        assert_eq!(decoder.feed(b"\n"), vec![Frame::TooLarge]);
    }

    #[test]
    fn an_event_that_never_ended_is_not_given() {
        assert_eq!(all(&[b"data: cut off\n"]), vec![]);
        assert_eq!(all(&[b"id: 4\n\n\n\n"]), vec![]);
    }

    #[test]
    fn a_byte_order_mark_is_skipped() {
        assert_eq!(all(&["\u{feff}data: a\n\n".as_bytes()]), vec![data("a")]);
    }
}
