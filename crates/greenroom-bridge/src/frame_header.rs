//! Checks the headers of websocket frames before the frames are buffered. The library refuses an oversized frame only
//! after it has read all of it, which would let a client fill the memory. Until the hello of a socket is accepted, only
//! [`HELLO_BYTES`] are read.

use std::cell::{Cell, RefCell};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker, ready};

use actix_web::error::PayloadError;
use actix_web::web::{Bytes, Payload};
use actix_web::{FromRequest, HttpRequest, dev};
use futures::Stream;

/// The most bytes of a hello. Until it is accepted, at most this many bytes of its socket are read, and one piece more.
pub(crate) const HELLO_BYTES: usize = 64 * 1024;

/// Holds the bytes of a socket back until its hello is accepted. Clones are one gate.
#[derive(Debug, Clone, Default)]
pub(crate) struct FrameGate(Rc<GateState>);

#[derive(Debug, Default)]
struct GateState {
    is_open: Cell<bool>,
    passed: Cell<usize>,
    reader: RefCell<Option<Waker>>,
}

impl FrameGate {
    /// Lets all further bytes pass.
    pub(crate) fn open(&self) {
        self.0.is_open.set(true);
        if let Some(reader) = self.0.reader.take() {
            reader.wake();
        }
    }

    /// Returns ready if further bytes may be read.
    fn poll_ready(&self, cx: &Context<'_>) -> Poll<()> {
        if self.0.is_open.get() || self.0.passed.get() < HELLO_BYTES {
            return Poll::Ready(());
        }
        self.0.reader.replace(Some(cx.waker().clone()));
        Poll::Pending
    }

    fn count(&self, bytes: usize) {
        self.0.passed.set(self.0.passed.get().saturating_add(bytes));
    }
}

/// Follows a byte stream of frames from header to header.
#[derive(Debug)]
struct HeaderScanner {
    limit: u64,
    /// The limit of the next frame.
    next_limit: u64,
    /// The received part of the current header; a header has at most 14 bytes.
    header: [u8; 14],
    received: usize,
    /// The bytes of the current payload that are still to come.
    payload_left: u64,
}

/// A header announces a payload over the limit.
#[derive(Debug, PartialEq, Eq)]
struct TooLarge;

impl HeaderScanner {
    fn new(limit: usize) -> Self {
        Self {
            limit: limit as u64,
            next_limit: limit.min(HELLO_BYTES) as u64,
            header: [0; 14],
            received: 0,
            payload_left: 0,
        }
    }

    /// Scans the next bytes.
    fn scan(&mut self, mut bytes: &[u8]) -> Result<(), TooLarge> {
        while let Some((first, rest)) = bytes.split_first() {
            if self.payload_left > 0 {
                let here = usize::try_from(self.payload_left)
                    .map_or(bytes.len(), |left| left.min(bytes.len()));
                self.payload_left -= here as u64;
                bytes = &bytes[here..];
                continue;
            }
            self.header[self.received] = *first;
            self.received += 1;
            bytes = rest;
            if let Some(length) = self.payload_length() {
                if length > self.next_limit {
                    return Err(TooLarge);
                }
                self.next_limit = self.limit;
                (self.received, self.payload_left) = (0, length);
            }
        }
        Ok(())
    }

    /// Returns the payload length once the header is complete. A header has two bytes, an optional longer length and an
    /// optional mask.
    fn payload_length(&self) -> Option<u64> {
        let [_, second, longer @ ..] = &self.header;
        let length_bytes = match second & 0x7f {
            126 => 2,
            127 => 8,
            _ => 0,
        };
        let mask_bytes = if second & 0x80 == 0 { 0 } else { 4 };
        if self.received < 2 || self.received < 2 + length_bytes + mask_bytes {
            return None;
        }
        let longer = &longer[..length_bytes];
        Some(match length_bytes {
            0 => u64::from(second & 0x7f),
            _ => longer
                .iter()
                .fold(0, |length, byte| length << 8 | u64::from(*byte)),
        })
    }
}

struct FrameLimiter {
    payload: Payload,
    scanner: HeaderScanner,
    gate: FrameGate,
}

impl Stream for FrameLimiter {
    type Item = Result<Bytes, PayloadError>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        ready!(self.gate.poll_ready(cx));
        let piece = ready!(Pin::new(&mut self.payload).poll_next(cx));
        Poll::Ready(match piece {
            Some(Ok(bytes)) => {
                self.gate.count(bytes.len());
                Some(match self.scanner.scan(&bytes) {
                    Ok(()) => Ok(bytes),
                    Err(TooLarge) => Err(PayloadError::Overflow),
                })
            }
            other => other,
        })
    }
}

/// Passes the bytes of a payload on, up to a frame header that announces more than `limit` bytes, [`HELLO_BYTES`] for the
/// first one. Returns the gate that the accepted hello opens.
pub(crate) async fn limit_frames(
    request: &HttpRequest,
    payload: Payload,
    limit: usize,
) -> Result<(Payload, FrameGate), actix_web::Error> {
    let gate = FrameGate::default();
    let limited = FrameLimiter {
        payload,
        scanner: HeaderScanner::new(limit),
        gate: gate.clone(),
    };
    let boxed: Pin<Box<dyn Stream<Item = Result<Bytes, PayloadError>>>> = Box::pin(limited);
    let mut payload = dev::Payload::Stream { payload: boxed };
    let payload = Payload::from_request(request, &mut payload).await?;
    Ok((payload, gate))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(length: usize, masked: bool) -> Vec<u8> {
        let mask = if masked { 0x80 } else { 0 };
        let mut frame = vec![0x81];
        match length {
            0..126 => frame.push(mask | u8::try_from(length).unwrap()),
            126..65_536 => {
                frame.push(mask | 126);
                frame.extend(u16::try_from(length).unwrap().to_be_bytes());
            }
            _ => {
                frame.push(mask | 127);
                frame.extend((length as u64).to_be_bytes());
            }
        }
        if masked {
            frame.extend([1, 2, 3, 4]);
        }
        // Read as a header, these bytes would announce a huge frame.
        frame.extend(std::iter::repeat_n(0xff, length));
        frame
    }

    #[test]
    fn frames_within_the_limit_pass_in_pieces_of_any_size() {
        let lengths = [0, 1, 125, 126, 127, 300, 65_535, 65_536, 100_000];
        let frames: Vec<u8> = lengths
            .iter()
            .flat_map(|length| [frame(*length, true), frame(*length, false)].concat())
            .collect();
        for size in [1, 2, 3, 7, 13, 1000, frames.len()] {
            let mut scanner = HeaderScanner::new(100_000);
            for piece in frames.chunks(size) {
                assert_eq!(scanner.scan(piece), Ok(()), "pieces of {size}");
            }
            assert_eq!((scanner.received, scanner.payload_left), (0, 0));
        }
    }

    #[test]
    fn oversized_frame_is_refused_by_its_header() {
        for (length, masked) in [(100_001, true), (100_001, false), (usize::MAX >> 1, true)] {
            let mut header = vec![0x82, if masked { 0xff } else { 0x7f }];
            header.extend((length as u64).to_be_bytes());
            if masked {
                header.extend([0; 4]);
            }
            let mut scanner = HeaderScanner::new(100_000);
            assert_eq!(scanner.scan(&frame(10, true)), Ok(()));
            let (last, before) = header.split_last().unwrap();
            assert_eq!(scanner.scan(before), Ok(()));
            assert_eq!(scanner.scan(&[*last]), Err(TooLarge));
        }
    }
}
