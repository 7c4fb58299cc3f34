//! Counts the websocket frames that one side of a connection sends. Used by the proxy.

/// Parses the bytes of a client.
#[derive(Debug, Default)]
pub struct Frames {
    header: Vec<u8>,
    /// Whether the upgrade request has ended.
    open: bool,
    /// The bytes of the current frame's body that are still missing.
    body: u64,
}

impl Frames {
    /// Reads further bytes; returns the number of text frames that begin in them.
    pub fn follow(&mut self, bytes: &[u8]) -> usize {
        let mut texts = 0;
        for byte in bytes {
            if self.body > 0 {
                self.body -= 1;
                continue;
            }
            self.header.push(*byte);
            if !self.open {
                self.open = self.header.ends_with(b"\r\n\r\n");
            } else if let Some(length) = length(&self.header) {
                texts += usize::from(self.header[0] & 0x0f == 1);
                self.body = length;
            } else {
                continue;
            }
            if self.open {
                self.header.clear();
            }
        }
        texts
    }
}

/// Returns the length of a frame's body if its headerer is complete.
fn length(header: &[u8]) -> Option<u64> {
    let second = *header.get(1)?;
    let extension = match second & 0x7f {
        126 => 2,
        127 => 8,
        _ => 0,
    };
    let mask = if second & 0x80 == 0 { 0 } else { 4 };
    if header.len() < 2 + extension + mask {
        return None;
    }
    let big = |length, byte: &u8| length << 8 | u64::from(*byte);
    Some(match extension {
        0 => u64::from(second & 0x7f),
        _ => header[2..2 + extension].iter().fold(0, big),
    })
}
