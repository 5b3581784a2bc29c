//! Decisions that wait for their outcome, kept outside the ring so that one long request does not
//! hold the ring's space. One file of equal slots, written by the writer thread only; a slot is in
//! use when its sum is right.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use super::line::Key;
use super::ring::checksum;
use crate::limits::AUDIT_RECORD_BYTES_MAX;

/// The file and which of its slots are free.
pub(super) struct Parked {
    file: File,
    free: Vec<u32>,
    /// Slots from here on were never used.
    fresh: u32,
}

/// A decision found in a slot.
pub(super) struct Found {
    pub(super) slot: u32,
    pub(super) key: Key,
    pub(super) payload: Vec<u8>,
}

impl Parked {
    /// Takes over `file` and reads what a dead process left in it.
    pub(super) fn open(file: File) -> io::Result<(Self, Vec<Found>)> {
        let slots = u32::try_from(file.metadata()?.len().div_ceil(SLOT_BYTES)).unwrap_or(u32::MAX);
        let mut parked = Self { file, free: Vec::new(), fresh: slots };
        let mut found = Vec::new();
        for slot in 0..slots {
            match parked.read(slot)? {
                Some(decision) => found.push(decision),
                None => parked.free.push(slot),
            }
        }
        Ok((parked, found))
    }

    /// Keeps a decision. The slot is the caller's to free.
    pub(super) fn put(&mut self, key: Key, payload: &[u8]) -> io::Result<u32> {
        let slot = self.free.last().copied().unwrap_or(self.fresh);
        let mut bytes = Vec::with_capacity(HEAD_BYTES + payload.len());
        bytes.extend_from_slice(&[0; 8]);
        bytes.extend_from_slice(&key.instance.to_le_bytes());
        bytes.extend_from_slice(&key.seq.to_le_bytes());
        bytes.extend_from_slice(&key.core.to_le_bytes());
        bytes.extend_from_slice(&(payload.len() as u32).to_le_bytes());
        bytes.extend_from_slice(payload);
        bytes.resize(bytes.len().next_multiple_of(8), 0);
        let sum = checksum(SEED, &bytes);
        if let Some(place) = bytes.first_chunk_mut() {
            *place = sum.to_le_bytes();
        }
        self.file.write_all_at(&bytes, u64::from(slot) * SLOT_BYTES)?;
        if self.free.pop().is_none() {
            self.fresh += 1;
        }
        Ok(slot)
    }

    /// Gives a slot back. When the mark cannot be removed the slot is not used again, so that the
    /// worst case is a second line (`unknown`) after a crash, never a lost one.
    pub(super) fn free(&mut self, slot: u32) -> io::Result<()> {
        self.file.write_all_at(&[0; HEAD_BYTES], u64::from(slot) * SLOT_BYTES)?;
        self.free.push(slot);
        Ok(())
    }

    /// Forgets all slots.
    pub(super) fn clear(&mut self) -> io::Result<()> {
        self.file.set_len(0)?;
        self.free.clear();
        self.fresh = 0;
        Ok(())
    }

    fn read(&self, slot: u32) -> io::Result<Option<Found>> {
        let mut bytes = vec![0; AUDIT_RECORD_BYTES_MAX];
        let at = u64::from(slot) * SLOT_BYTES;
        let mut filled = 0;
        while let Some(room) = bytes.get_mut(filled..).filter(|room| !room.is_empty()) {
            match self.file.read_at(room, at + filled as u64)? {
                0 => break,
                count => filled += count,
            }
        }
        bytes.truncate(filled);
        Ok(found(slot, &bytes))
    }
}

fn found(slot: u32, bytes: &[u8]) -> Option<Found> {
    let (sum, rest) = bytes.split_first_chunk()?;
    let (instance, rest) = rest.split_first_chunk()?;
    let (seq, rest) = rest.split_first_chunk()?;
    let (core, rest) = rest.split_first_chunk()?;
    let (length, rest) = rest.split_first_chunk()?;
    let length = u32::from_le_bytes(*length) as usize;
    let payload = rest.get(..length)?.to_vec();
    let whole = bytes.get(..(HEAD_BYTES + length).next_multiple_of(8))?;
    let key = Key {
        instance: u64::from_le_bytes(*instance),
        core: u32::from_le_bytes(*core),
        seq: u64::from_le_bytes(*seq),
    };
    (u64::from_le_bytes(*sum) == checksum(SEED, whole)).then_some(Found { slot, key, payload })
}

const HEAD_BYTES: usize = 8 + 8 + 8 + 4 + 4;
const SLOT_BYTES: u64 = AUDIT_RECORD_BYTES_MAX as u64;
const SEED: u64 = 0x7061_726b_6564_0001;

const _: () = assert!(super::codec::PAYLOAD_BYTES_MAX + 2 * HEAD_BYTES <= AUDIT_RECORD_BYTES_MAX);
