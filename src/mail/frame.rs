//! A letter, and how it is written: `length u32, kind u8, number u64, from u16, session 16 bytes,
//! owner 32 bytes, body`, numbers big-endian, the length without itself.

use crate::limits::{BODY_BUFFER_KEPT_BYTES_MAX, MAIL_BODY_BYTES_MAX};
use crate::mcp::hub_session::SessionMark;

/// What a letter is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MailKind {
    /// A client's answer to what the addressee asked it.
    Reply,
    /// A client cancelled one of its requests.
    Cancel,
    /// A client wants, or no longer wants, to hear of something.
    Interest,
}

impl MailKind {
    const ALL: [Self; 3] = [Self::Reply, Self::Cancel, Self::Interest];

    const fn code(self) -> u8 {
        match self {
            Self::Reply => 1,
            Self::Cancel => 2,
            Self::Interest => 3,
        }
    }
}

/// What goes from one core to another.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Letter {
    /// What it is about.
    pub kind: MailKind,
    /// What it is to be found by at the addressee.
    pub number: u64,
    /// The core that wrote it; set where it is read.
    pub from: u16,
    /// The client's session.
    pub session: SessionMark,
    /// Who sent it: `bound_to` issuer, subject and agent. The addressee compares it with whom it
    /// waits for.
    pub owner: [u8; 32],
    /// The message, as the client sent it.
    pub body: Vec<u8>,
}

impl Letter {
    /// The whole frame, as `from` writes it.
    pub(super) fn frame(&self, from: u16) -> Vec<u8> {
        let mut frame = Vec::with_capacity(HEAD_BYTES + self.body.len());
        let length = (HEAD_BYTES - LENGTH_BYTES + self.body.len()) as u32;
        frame.extend_from_slice(&length.to_be_bytes());
        frame.push(self.kind.code());
        frame.extend_from_slice(&self.number.to_be_bytes());
        frame.extend_from_slice(&from.to_be_bytes());
        frame.extend_from_slice(&self.session.0);
        frame.extend_from_slice(&self.owner);
        frame.extend_from_slice(&self.body);
        frame
    }
}

/// What was read is no frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BrokenFrame;

/// Puts together what arrives from one core in pieces.
pub struct Frames {
    from: u16,
    buffer: Vec<u8>,
}

impl Frames {
    /// For what core `from` writes.
    #[must_use]
    pub const fn new(from: u16) -> Self {
        Self { from, buffer: Vec::new() }
    }

    /// Adds what was read.
    pub fn push(&mut self, bytes: &[u8]) {
        self.buffer.extend_from_slice(bytes);
    }

    /// The next letter that is whole. No more is held than one of them and what was read beyond it.
    ///
    /// # Errors
    /// [`BrokenFrame`], as soon as it can be told; nothing that follows means anything.
    pub fn take(&mut self) -> Result<Option<Letter>, BrokenFrame> {
        let Some(length) = self.buffer.first_chunk::<LENGTH_BYTES>() else { return Ok(None) };
        let length = u32::from_be_bytes(*length) as usize;
        if !(HEAD_BYTES - LENGTH_BYTES..=FRAME_BYTES_MAX - LENGTH_BYTES).contains(&length) {
            return Err(BrokenFrame);
        }
        let end = LENGTH_BYTES + length;
        let Some(frame) = self.buffer.get(LENGTH_BYTES..end) else {
            let missing = end - self.buffer.len();
            self.buffer.reserve_exact(missing);
            return Ok(None);
        };
        let letter = read(frame).filter(|letter| letter.from == self.from).ok_or(BrokenFrame)?;
        self.buffer.drain(..end);
        if self.buffer.capacity() > BODY_BUFFER_KEPT_BYTES_MAX {
            self.buffer.shrink_to(BODY_BUFFER_KEPT_BYTES_MAX);
        }
        Ok(Some(letter))
    }
}

fn read(frame: &[u8]) -> Option<Letter> {
    let (kind, rest) = frame.split_first()?;
    let (number, rest) = rest.split_first_chunk::<8>()?;
    let (from, rest) = rest.split_first_chunk::<2>()?;
    let (session, rest) = rest.split_first_chunk::<16>()?;
    let (owner, body) = rest.split_first_chunk::<32>()?;
    Some(Letter {
        kind: MailKind::ALL.into_iter().find(|known| known.code() == *kind)?,
        number: u64::from_be_bytes(*number),
        from: u16::from_be_bytes(*from),
        session: SessionMark(*session),
        owner: *owner,
        body: body.to_vec(),
    })
}

const LENGTH_BYTES: usize = 4;
/// Bytes of a frame before its body.
pub(super) const HEAD_BYTES: usize = LENGTH_BYTES + 1 + 8 + 2 + 16 + 32;
const FRAME_BYTES_MAX: usize = HEAD_BYTES + MAIL_BODY_BYTES_MAX;

#[cfg(test)]
mod tests {
    use super::*;

    fn letter(kind: MailKind, number: u64, body: &[u8]) -> Letter {
        let session = SessionMark([3; 16]);
        Letter { kind, number, from: 7, session, owner: [4; 32], body: body.to_vec() }
    }

    fn letters() -> Vec<Letter> {
        vec![
            letter(MailKind::Reply, 1, b""),
            letter(MailKind::Cancel, u64::MAX, b"{}"),
            letter(MailKind::Interest, 0x0102_0304_0506_0708, &[0xff; 300]),
            letter(MailKind::Reply, 0, &[0; 4]),
        ]
    }

    fn all(frames: &mut Frames) -> Vec<Letter> {
        std::iter::from_fn(|| frames.take().unwrap()).collect()
    }

    #[test]
    fn letters_arrive_wherever_they_are_cut() {
        let bytes: Vec<u8> = letters().iter().flat_map(|letter| letter.frame(7)).collect();
        for cut in 0..=bytes.len() {
            let mut frames = Frames::new(7);
            frames.push(&bytes[..cut]);
            let mut heard = all(&mut frames);
            frames.push(&bytes[cut..]);
            heard.extend(all(&mut frames));
            assert_eq!(heard, letters(), "cut at {cut}");
            assert!(frames.buffer.is_empty());
        }
        let mut frames = Frames::new(7);
        let mut heard = Vec::new();
        for byte in &bytes {
            frames.push(&[*byte]);
            heard.extend(all(&mut frames));
        }
        assert_eq!(heard, letters());
    }

    #[test]
    fn the_largest_letter_arrives_and_its_room_is_given_back() {
        let large = letter(MailKind::Reply, 1, &vec![b'x'; MAIL_BODY_BYTES_MAX]);
        let mut frames = Frames::new(7);
        for piece in large.frame(7).chunks(1 << 20) {
            assert_eq!(frames.take(), Ok(None));
            frames.push(piece);
        }
        assert_eq!(frames.take(), Ok(Some(large)));
        assert!(frames.buffer.capacity() <= BODY_BUFFER_KEPT_BYTES_MAX);
    }

    #[test]
    fn what_is_no_frame_is_told_as_soon_as_it_can_be() {
        let good = letter(MailKind::Reply, 1, b"body").frame(7);
        let head = (HEAD_BYTES - LENGTH_BYTES) as u32;
        let above = (FRAME_BYTES_MAX - LENGTH_BYTES + 1) as u32;
        for length in [0, 1, head - 1, above, u32::MAX] {
            let mut frames = Frames::new(7);
            frames.push(&length.to_be_bytes());
            assert_eq!(frames.take(), Err(BrokenFrame), "a length of {length}");
        }
        for kind in [0, 4, 0xff] {
            let mut forged = good.clone();
            forged[LENGTH_BYTES] = kind;
            let mut frames = Frames::new(7);
            frames.push(&forged);
            assert_eq!(frames.take(), Err(BrokenFrame), "a kind of {kind}");
        }
        let mut frames = Frames::new(8);
        frames.push(&good);
        assert_eq!(frames.take(), Err(BrokenFrame), "another core's");
    }
}
