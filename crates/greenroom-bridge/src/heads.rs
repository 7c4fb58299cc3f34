//! Looks at the heads of websocket frames before anybody gathers their bytes: the library refuses a frame that is too large
//! only once it has all of it, which would let a client fill the memory.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use actix_web::error::PayloadError;
use actix_web::web::{Bytes, Payload};
use actix_web::{FromRequest, HttpRequest, dev};
use futures::Stream;

/// Where frames are between heads and bodies.
#[derive(Debug)]
struct Heads {
    limit: u64,
    /// As much of a head as has come; no head is longer.
    head: [u8; 14],
    have: usize,
    /// Of the body, still to come.
    body: u64,
}

/// A head announces more than is taken.
#[derive(Debug, PartialEq, Eq)]
struct TooLarge;

impl Heads {
    fn new(limit: usize) -> Self {
        Self {
            limit: limit as u64,
            head: [0; 14],
            have: 0,
            body: 0,
        }
    }

    /// Follows what comes in.
    fn follow(&mut self, mut bytes: &[u8]) -> Result<(), TooLarge> {
        while let Some((first, rest)) = bytes.split_first() {
            if self.body > 0 {
                let here =
                    usize::try_from(self.body).map_or(bytes.len(), |body| body.min(bytes.len()));
                self.body -= here as u64;
                bytes = &bytes[here..];
                continue;
            }
            self.head[self.have] = *first;
            self.have += 1;
            bytes = rest;
            if let Some(length) = self.announced() {
                if length > self.limit {
                    return Err(TooLarge);
                }
                (self.have, self.body) = (0, length);
            }
        }
        Ok(())
    }

    /// The length of the body, once the head is there: two bytes, a longer length if it needs one, a mask if there is one.
    fn announced(&self) -> Option<u64> {
        let [_, second, longer @ ..] = &self.head;
        let length_bytes = match second & 0x7f {
            126 => 2,
            127 => 8,
            _ => 0,
        };
        let mask_bytes = if second & 0x80 == 0 { 0 } else { 4 };
        if self.have < 2 || self.have < 2 + length_bytes + mask_bytes {
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

struct Guarded {
    payload: Payload,
    heads: Heads,
}

impl Stream for Guarded {
    type Item = Result<Bytes, PayloadError>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let piece = ready!(Pin::new(&mut self.payload).poll_next(cx));
        Poll::Ready(match piece {
            Some(Ok(bytes)) => Some(match self.heads.follow(&bytes) {
                Ok(()) => Ok(bytes),
                Err(TooLarge) => Err(PayloadError::Overflow),
            }),
            other => other,
        })
    }
}

/// The same bytes, up to a frame that announces more than `limit`.
pub(crate) async fn guarded(
    request: &HttpRequest,
    payload: Payload,
    limit: usize,
) -> Result<Payload, actix_web::Error> {
    let guarded = Guarded {
        payload,
        heads: Heads::new(limit),
    };
    let boxed: Pin<Box<dyn Stream<Item = Result<Bytes, PayloadError>>>> = Box::pin(guarded);
    let mut payload = dev::Payload::Stream { payload: boxed };
    Payload::from_request(request, &mut payload).await
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
        // What would announce a giant if it were read as a head.
        frame.extend(std::iter::repeat_n(0xff, length));
        frame
    }

    #[test]
    fn frames_within_the_limit_pass_however_they_are_cut() {
        let lengths = [0, 1, 125, 126, 127, 300, 65_535, 65_536, 100_000];
        let frames: Vec<u8> = lengths
            .iter()
            .flat_map(|length| [frame(*length, true), frame(*length, false)].concat())
            .collect();
        for size in [1, 2, 3, 7, 13, 1000, frames.len()] {
            let mut heads = Heads::new(100_000);
            for piece in frames.chunks(size) {
                assert_eq!(heads.follow(piece), Ok(()), "pieces of {size}");
            }
            assert_eq!((heads.have, heads.body), (0, 0));
        }
    }

    #[test]
    fn a_frame_over_the_limit_is_seen_by_its_head_alone() {
        for (length, masked) in [(100_001, true), (100_001, false), (usize::MAX >> 1, true)] {
            let mut head = vec![0x82, if masked { 0xff } else { 0x7f }];
            head.extend((length as u64).to_be_bytes());
            if masked {
                head.extend([0; 4]);
            }
            let mut heads = Heads::new(100_000);
            assert_eq!(heads.follow(&frame(10, true)), Ok(()));
            let (last, before) = head.split_last().unwrap();
            assert_eq!(heads.follow(before), Ok(()));
            assert_eq!(heads.follow(&[*last]), Err(TooLarge));
        }
    }
}
