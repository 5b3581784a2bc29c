//! Byte classes and the one search that long lines need.

/// `tchar` of RFC 9110 §5.6.2: what method and field names are made of.
pub(super) fn is_tchar(byte: u8) -> bool {
    TCHARS.get(usize::from(byte)).copied().unwrap_or_default()
}

/// Index of the first byte that is no `tchar`, or the length.
pub(super) fn other_than_tchar_at(bytes: &[u8]) -> usize {
    bytes.iter().position(|byte| !is_tchar(*byte)).unwrap_or(bytes.len())
}

/// Index of the first byte below 0x20, or the length. Eight bytes at a time: values are long.
pub(super) fn control_at(bytes: &[u8]) -> usize {
    let mut at = 0;
    while let Some(word) = bytes.get(at..).and_then(<[u8]>::first_chunk::<8>) {
        let word = u64::from_le_bytes(*word);
        // The borrow of the subtraction sets the high bit of the lowest byte below 0x20; bytes that
        // have the high bit themselves are masked. Only the lowest hit is exact, and it is the one used.
        let below = word.wrapping_sub(EACH * 0x20) & !word & (EACH * 0x80);
        if below != 0 {
            return at + below.trailing_zeros() as usize / 8;
        }
        at += 8;
    }
    let rest = bytes.get(at..).unwrap_or_default();
    at + rest.iter().position(|byte| *byte < 0x20).unwrap_or(rest.len())
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

/// `1*DIGIT` as a number. No sign, no separator, no leading zero and no more than 19 digits: whatever
/// another parser might read as octal, as a list or modulo 2^64 is not a number here.
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn control_at_finds_the_first_one_at_every_place_and_value() {
        for length in 0..40 {
            for filler in [b' ', b'a', 0x7f, 0x80, 0xff] {
                assert_eq!(control_at(&vec![filler; length]), length);
                for place in 0..length {
                    for control in 0..0x20 {
                        let mut bytes = vec![filler; length];
                        bytes[place] = control;
                        bytes[length - 1] = bytes[length - 1].min(0x1f);
                        assert_eq!(control_at(&bytes), place);
                    }
                }
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
