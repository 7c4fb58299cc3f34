//! Counts the websocket frames that one side of a connection sends, for a wire that wants to know how much was said.

/// Follows the bytes of a client.
#[derive(Debug, Default)]
pub struct Frames {
    head: Vec<u8>,
    /// The request that asked for a websocket is over.
    open: bool,
    /// Of a frame's body, still to come.
    body: u64,
}

impl Frames {
    /// What came next; returns how many frames of text began in it.
    pub fn follow(&mut self, bytes: &[u8]) -> usize {
        let mut texts = 0;
        for byte in bytes {
            if self.body > 0 {
                self.body -= 1;
                continue;
            }
            self.head.push(*byte);
            if !self.open {
                self.open = self.head.ends_with(b"\r\n\r\n");
            } else if let Some(length) = length(&self.head) {
                texts += usize::from(self.head[0] & 0x0f == 1);
                self.body = length;
            } else {
                continue;
            }
            if self.open {
                self.head.clear();
            }
        }
        texts
    }
}

/// The length of a frame's body, once its head is there.
fn length(head: &[u8]) -> Option<u64> {
    let second = *head.get(1)?;
    let longer = match second & 0x7f {
        126 => 2,
        127 => 8,
        _ => 0,
    };
    let mask = if second & 0x80 == 0 { 0 } else { 4 };
    if head.len() < 2 + longer + mask {
        return None;
    }
    let big = |length, byte: &u8| length << 8 | u64::from(*byte);
    Some(match longer {
        0 => u64::from(second & 0x7f),
        _ => head[2..2 + longer].iter().fold(0, big),
    })
}
