//! Worker and writer meet in the ring and nowhere else on the way of a record.

use std::mem::offset_of;

use super::*;
use crate::audit::ring::{DROPPED, HEAD, HEADER_WORDS, REPORTED, SEQ, TAIL, WRITTEN};
use crate::audit::writer::{Lane, Orders};
use crate::lines::LINES_BYTES;

const WORD: usize = size_of::<u64>();

/// Which lines a header word is on, from the start of the mapping, which is page aligned.
const fn lines(word: usize) -> usize {
    word * WORD / LINES_BYTES
}

#[test]
fn share_nothing_in_the_ring() {
    let (workers, writers, fixed) = ([HEAD, SEQ, DROPPED, REPORTED], [TAIL, WRITTEN], 0);
    for word in workers {
        assert_ne!(lines(word), lines(fixed));
        for other in writers {
            assert_ne!(lines(word), lines(other), "words {word} and {other}");
        }
    }
    assert_ne!(lines(TAIL), lines(fixed));
    // Records begin on lines of their own.
    assert!(lines(TAIL) < lines(HEADER_WORDS) && (HEADER_WORDS * WORD).is_multiple_of(LINES_BYTES));
    // What both read to find the words.
    assert_eq!(align_of::<RingFile>(), LINES_BYTES);
    assert_eq!(size_of::<RingFile>() % LINES_BYTES, 0);
}

#[test]
fn share_nothing_in_what_the_writer_says() {
    let (writes, dropped) = (offset_of!(Health, writes), offset_of!(Health, dropped));
    let writers = [offset_of!(Health, written), offset_of!(Health, errors)];
    for counter in writers {
        assert_ne!(writes / LINES_BYTES, counter / LINES_BYTES);
        assert_ne!(dropped / LINES_BYTES, counter / LINES_BYTES);
    }
    assert_ne!(writes / LINES_BYTES, dropped / LINES_BYTES);
    assert_eq!((align_of::<Health>(), size_of::<Health>() % LINES_BYTES), (LINES_BYTES, 0));
    assert_eq!((align_of::<Orders>(), size_of::<Orders>() % LINES_BYTES), (LINES_BYTES, 0));
    // In a vector, beside nothing of a worker's.
    assert_eq!((align_of::<Lane>(), size_of::<Lane>() % LINES_BYTES), (LINES_BYTES, 0));
}
