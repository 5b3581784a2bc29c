//! The few forms of JSON that a line has, written without looking at a byte twice.

use crate::mcp::write;

/// Appends bytes that are known when we compile and need no escape.
#[inline]
pub(super) fn put_fixed(bytes: &[u8], out: &mut Vec<u8>) {
    out.extend_from_slice(bytes);
}

/// Appends a string with its quotes. `None`, and a piece of it appended, when it is not UTF-8.
#[inline]
pub(super) fn put_string(bytes: &[u8], out: &mut Vec<u8>) -> Option<()> {
    out.push(b'"');
    if is_plain(bytes) {
        out.extend_from_slice(bytes);
    } else {
        put_escaped(std::str::from_utf8(bytes).ok()?, out);
    }
    out.push(b'"');
    Some(())
}

/// Appends a decimal number.
#[inline]
pub(super) fn put_number(number: u64, out: &mut Vec<u8>) {
    if number < 10 {
        out.push(b'0' + number as u8);
    } else {
        put_digits(number, out);
    }
}

fn put_digits(number: u64, out: &mut Vec<u8>) {
    let mut digits = [[b'0'; 2]; DECIMAL_PAIRS_MAX];
    let (mut left, mut used) = (number, 0);
    for place in digits.iter_mut().rev() {
        *place = pair(left % 100);
        used += if left < 10 { 1 } else { 2 };
        left /= 100;
        if left == 0 {
            break;
        }
    }
    let digits = digits.as_flattened();
    out.extend_from_slice(digits.get(digits.len() - used..).unwrap_or_default());
}

/// Two decimal digits of a number below 100.
#[inline]
pub(super) fn pair(number: u64) -> [u8; 2] {
    PAIRS.get(number as usize).copied().unwrap_or_default()
}

/// Appends sixteen lower-case hex digits.
pub(super) fn put_hex(number: u64, out: &mut Vec<u8>) {
    let mut digits = [[0; 2]; 8];
    for (place, byte) in digits.iter_mut().zip(number.to_be_bytes()) {
        *place = [hex_digit(byte >> 4), hex_digit(byte & 15)];
    }
    out.extend_from_slice(digits.as_flattened());
}

/// ASCII without control characters, quotes and backslashes: eight bytes at a time, the last eight
/// perhaps twice.
///
/// In a word of such bytes none has its highest bit set, nor after 0x20 is taken off each, nor
/// after 1 is taken off each byte of the difference (as XOR) to a quote or a backslash. The first
/// byte for which that fails sets its own highest bit, whatever it borrows from those above it: so
/// a word of plain bytes is always seen as plain, and no other word is.
#[inline]
fn is_plain(bytes: &[u8]) -> bool {
    let Some(last) = bytes.last_chunk::<8>() else {
        return bytes
            .iter()
            .all(|byte| matches!(byte, 0x20..=0x7f) && !matches!(byte, b'"' | b'\\'));
    };
    let mut odd = oddities(*last);
    for word in bytes.as_chunks::<8>().0 {
        odd |= oddities(*word);
    }
    odd & HIGH == 0
}

#[inline]
fn oddities(word: [u8; 8]) -> u64 {
    let word = u64::from_le_bytes(word);
    let each = |byte: u8| ONES * u64::from(byte);
    word | word.wrapping_sub(each(b' '))
        | (word ^ each(b'"')).wrapping_sub(ONES)
        | (word ^ each(b'\\')).wrapping_sub(ONES)
}

/// Rare: the parser of requests let it pass, and a line must hold it.
#[cold]
fn put_escaped(text: &str, out: &mut Vec<u8>) {
    write::escaped(text, out);
}

#[inline]
fn hex_digit(nibble: u8) -> u8 {
    HEX.get(usize::from(nibble)).copied().unwrap_or(b'0')
}

const fn pairs() -> [[u8; 2]; 100] {
    let mut pairs = [[b'0'; 2]; 100];
    let mut number = 0;
    while number < 100 {
        #[expect(clippy::indexing_slicing, reason = "evaluated when we compile")]
        let place = &mut pairs[number];
        *place = [b'0' + (number / 10) as u8, b'0' + (number % 10) as u8];
        number += 1;
    }
    pairs
}

const PAIRS: [[u8; 2]; 100] = pairs();
const HEX: &[u8; 16] = b"0123456789abcdef";
/// 2^64 has twenty digits.
const DECIMAL_PAIRS_MAX: usize = 10;
const ONES: u64 = 0x0101_0101_0101_0101;
const HIGH: u64 = 0x8080_8080_8080_8080;

#[cfg(test)]
mod tests {
    use super::*;

    fn string(bytes: &[u8]) -> Option<Vec<u8>> {
        let mut out = Vec::new();
        put_string(bytes, &mut out).map(|()| out)
    }

    #[test]
    fn every_character_at_every_place_of_a_word_is_written_as_serde_json_does() {
        let beyond = ['\u{80}', 'é', '\u{7ff}', '\u{800}', '\u{2028}', '\u{ffff}', '😀'];
        for character in (0..128_u8).map(char::from).chain(beyond) {
            for length in 0..20 {
                for at in 0..=length {
                    let mut text: Vec<char> = std::iter::repeat_n('x', length).collect();
                    text.insert(at, character);
                    let text: String = text.into_iter().collect();
                    let expected = serde_json::to_vec(&text).unwrap();
                    assert_eq!(string(text.as_bytes()), Some(expected), "{text:?}");
                }
            }
        }
    }

    #[test]
    fn what_is_not_utf_8_is_no_string() {
        for bytes in [&b"\xff"[..], b"long enough\xc3", b"\xc3(", b"\"\xed\xa0\x80 surrogate"] {
            assert_eq!(string(bytes), None, "{bytes:?}");
        }
    }

    #[test]
    fn numbers_of_every_length_are_whole() {
        let powers = (0..20).map(|digits| 10_u64.pow(digits));
        let around = powers.flat_map(|power| [power - 1, power, power + 1, power / 2 * 3]);
        for number in around.chain([u64::MAX, u64::MAX - 1, 99, 100, 101]) {
            let (mut decimal, mut hex) = (Vec::new(), Vec::new());
            put_number(number, &mut decimal);
            put_hex(number, &mut hex);
            assert_eq!(String::from_utf8(decimal).unwrap(), number.to_string());
            assert_eq!(String::from_utf8(hex).unwrap(), format!("{number:016x}"));
        }
    }
}
