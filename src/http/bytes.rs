//! Byte classes and the searches that lines need.

/// `tchar` of RFC 9110 §5.6.2: what method and field names are made of.
pub(super) fn is_tchar(byte: u8) -> bool {
    TCHARS.get(usize::from(byte)).copied().unwrap_or_default()
}

/// Index of the first byte that is no `tchar`, or the length.
pub(super) fn other_than_tchar_at(bytes: &[u8]) -> usize {
    bytes.iter().position(|byte| !is_tchar(*byte)).unwrap_or(bytes.len())
}

/// Index of the first byte below 0x20 or of a DEL, or the length: where a field value may end, or
/// has to be looked at. Most values are short; behind their first words come blocks, which the
/// compiler can look at as a whole.
pub(super) fn control_at(bytes: &[u8]) -> usize {
    let mut rest = bytes;
    let mut words_to_blocks = BLOCK / 8;
    while let Some((word, behind)) = rest.split_first_chunk::<8>() {
        let word = u64::from_le_bytes(*word);
        // The borrow of the subtraction sets the high bit of the lowest byte below 0x20, the carry
        // of the addition that of every DEL; bytes that have the high bit themselves are masked.
        // Only the lowest hit is exact, and it is the one used.
        let below = word.wrapping_sub(EACH * 0x20);
        let delete = (word & (EACH * 0x7f)) + EACH;
        let found = (below | delete) & !word & (EACH * 0x80);
        if found != 0 {
            return bytes.len() - rest.len() + found.trailing_zeros() as usize / 8;
        }
        rest = behind;
        words_to_blocks -= 1;
        if words_to_blocks == 0 {
            rest = skip_blocks(rest);
            // One block at most holds what stopped the blocks, or fewer bytes than a block follow.
            words_to_blocks = BLOCK;
        }
    }
    let last = rest.iter().position(|byte| is_control(*byte));
    bytes.len() - rest.len() + last.unwrap_or(rest.len())
}

/// What follows the leading blocks without a control byte.
fn skip_blocks(mut bytes: &[u8]) -> &[u8] {
    while let Some((block, behind)) = bytes.split_first_chunk::<BLOCK>() {
        if block.iter().fold(false, |found, byte| found | is_control(*byte)) {
            break;
        }
        bytes = behind;
    }
    bytes
}

/// Index of the first colon among the first [`COLON_BYTES`] bytes.
pub(super) fn colon_at(bytes: &[u8]) -> Option<usize> {
    let mut at = 0;
    while at < COLON_BYTES {
        let Some(word) = bytes.get(at..).and_then(<[u8]>::first_chunk::<8>) else {
            let rest = bytes.get(at..).unwrap_or_default();
            return rest.iter().position(|byte| *byte == b':').map(|place| at + place);
        };
        // A colon becomes zero, and the borrow sets the high bit of the lowest zero.
        let zeros = u64::from_le_bytes(*word) ^ (EACH * (b':' as u64));
        let found = zeros.wrapping_sub(EACH) & !zeros & (EACH * 0x80);
        if found != 0 {
            return Some(at + found.trailing_zeros() as usize / 8);
        }
        at += 8;
    }
    None
}

/// Eight bytes with ASCII letters in lower case. Exact for letters and for bytes below 0x40: what
/// folds to `a` is `A` or `a`, what folds to `-` is `-`. Other bytes may become one another.
pub(super) const fn fold(word: u64) -> u64 {
    word | ((word & (EACH * 0x40)) >> 1)
}

const fn is_control(byte: u8) -> bool {
    byte < 0x20 || byte == 0x7f
}

/// True for what a label of a host name is made of: letters, digits, `-` and `_`.
pub(super) fn is_label(byte: u8) -> bool {
    LABELS.get(usize::from(byte)).copied().unwrap_or_default()
}

/// Without optional white space at both ends (RFC 9110 §5.6.3: space and tab only).
pub(super) fn trim(mut bytes: &[u8]) -> &[u8] {
    while let [b' ' | b'\t', rest @ ..] = bytes {
        bytes = rest;
    }
    while let [rest @ .., b' ' | b'\t'] = bytes {
        bytes = rest;
    }
    bytes
}

/// The elements of a comma-separated list, trimmed, empty ones included.
pub(super) fn list(value: &[u8]) -> impl Iterator<Item = &[u8]> {
    value.split(|byte| *byte == b',').map(trim)
}

/// `1*DIGIT` as a number. No sign, no separator, no leading zero and no more than 19 digits:
/// whatever another parser might read as octal, as a list or modulo 2^64 is not a number here.
pub(super) fn decimal(digits: &[u8]) -> Option<u64> {
    let leading_zero = digits.len() > 1 && digits.first() == Some(&b'0');
    if digits.is_empty() || digits.len() > DECIMAL_DIGITS_MAX || leading_zero {
        return None;
    }
    digits.iter().try_fold(0_u64, |sum, byte| {
        byte.is_ascii_digit().then(|| sum * 10 + u64::from(byte - b'0'))
    })
}

/// 10^19 − 1 fits into 64 bits.
const DECIMAL_DIGITS_MAX: usize = 19;

const EACH: u64 = 0x0101_0101_0101_0101;
/// Bytes looked at as a whole.
const BLOCK: usize = 32;
/// How far [`colon_at`] looks: longer than usual field names, a multiple of a word.
const COLON_BYTES: usize = 48;

/// A table, because one load per byte is faster than shifting a bit set of 128.
#[expect(clippy::indexing_slicing, reason = "in a constant: a place outside would not compile")]
const TCHARS: [bool; 256] = {
    let mut set = [false; 256];
    let mut byte = 0_u8;
    while byte < 128 {
        let is_in = byte.is_ascii_alphanumeric()
            || matches!(
                byte,
                b'!' | b'#'
                    | b'$'
                    | b'%'
                    | b'&'
                    | b'\''
                    | b'*'
                    | b'+'
                    | b'-'
                    | b'.'
                    | b'^'
                    | b'_'
                    | b'`'
                    | b'|'
                    | b'~'
            );
        set[byte as usize] = is_in;
        byte += 1;
    }
    set
};

#[expect(clippy::indexing_slicing, reason = "in a constant: a place outside would not compile")]
const LABELS: [bool; 256] = {
    let mut set = [false; 256];
    let mut byte = 0_u8;
    while byte < 128 {
        set[byte as usize] = byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
        byte += 1;
    }
    set
};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn control_at_finds_the_first_one_at_every_place_and_value() {
        for length in [0, 1, 7, 8, 9, 31, 32, 33, 40, 63, 64, 65, 100] {
            for filler in [b' ', b'a', 0x7e, 0x80, 0xff] {
                assert_eq!(control_at(&vec![filler; length]), length);
                for place in 0..length {
                    for control in (0..0x20).chain([0x7f]) {
                        let mut bytes = vec![filler; length];
                        bytes[length - 1] = 0x7f;
                        bytes[place] = control;
                        assert_eq!(control_at(&bytes), place);
                    }
                }
            }
        }
    }

    #[test]
    fn colon_at_finds_the_first_one_and_nothing_else() {
        for length in 0..70 {
            for filler in (0..=u8::MAX).filter(|byte| *byte != b':') {
                assert_eq!(colon_at(&vec![filler; length]), None);
            }
            for place in 0..length {
                for filler in [b'9', b';', b'a', 0x39 | 0x80, 0xba] {
                    let mut bytes = vec![filler; length];
                    bytes[length - 1] = b':';
                    bytes[place] = b':';
                    let found = colon_at(&bytes);
                    // The search ends at a word's end, but never before its bound.
                    assert!(found == Some(place) || (found.is_none() && place >= COLON_BYTES));
                }
            }
        }
    }

    #[test]
    fn fold_is_exact_for_letters_and_the_hyphen() {
        for byte in 0..=u8::MAX {
            let folded = fold(u64::from_le_bytes([byte; 8])).to_le_bytes();
            assert!(folded.iter().all(|other| *other == folded[0]), "bytes do not mix");
            for known in b"abcdefghijklmnopqrstuvwxyz-" {
                assert_eq!(folded[0] == *known, byte.to_ascii_lowercase() == *known);
            }
        }
    }

    #[test]
    fn decimal_is_digits_only() {
        assert_eq!(decimal(b"0"), Some(0));
        assert_eq!(decimal(b"9999999999999999999"), Some(9_999_999_999_999_999_999));
        let faults: [&[u8]; 9] =
            [b"", b"+3", b"-1", b"0x3", b" ", b"3_0", b"03", b"3,3", b"10000000000000000000"];
        for fault in faults {
            assert_eq!(decimal(fault), None, "{fault:?}");
        }
    }
}
