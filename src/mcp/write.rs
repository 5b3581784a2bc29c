//! The one way in which text becomes JSON.

/// Appends `text` as a JSON string with its quotes. What must be escaped is, in its short form
/// where it has one, and nothing else (RFC 8259 §7): so equal texts are equal bytes, whatever
/// spelling they arrived in.
pub fn string(text: &str, out: &mut Vec<u8>) {
    out.push(b'"');
    escaped(text, out);
    out.push(b'"');
}

/// What stands between the quotes of [`string`].
pub(crate) fn escaped(text: &str, out: &mut Vec<u8>) {
    let mut rest = text.as_bytes();
    while let Some(at) = rest.iter().position(|byte| is_escaped(*byte)) {
        let (plain, behind) = rest.split_at(at);
        out.extend_from_slice(plain);
        let Some((byte, behind)) = behind.split_first() else { return };
        escape(*byte, out);
        rest = behind;
    }
    out.extend_from_slice(rest);
}

const fn is_escaped(byte: u8) -> bool {
    matches!(byte, 0..0x20 | b'"' | b'\\')
}

fn escape(byte: u8, out: &mut Vec<u8>) {
    let short = match byte {
        0x08 => b'b',
        b'\t' => b't',
        b'\n' => b'n',
        0x0c => b'f',
        b'\r' => b'r',
        0..0x20 => {
            let digit = |nibble: u8| HEX.get(usize::from(nibble)).copied().unwrap_or(b'0');
            out.extend_from_slice(b"\\u00");
            return out.extend_from_slice(&[digit(byte >> 4), digit(byte & 15)]);
        }
        _ => byte,
    };
    out.extend_from_slice(&[b'\\', short]);
}

const HEX: &[u8; 16] = b"0123456789abcdef";

#[cfg(test)]
mod tests {
    #[test]
    fn every_text_reads_back_as_itself_in_its_shortest_form() {
        let mut texts: Vec<String> =
            (0..0x300_u32).filter_map(char::from_u32).map(|one| format!("a{one}b")).collect();
        texts.extend(
            ["", "\u{7f}\u{2028}\u{1f600}", "\"\"", "\\", "a\\u0041", "\u{1f}"].map(Into::into),
        );
        for text in texts {
            let mut out = b"x".to_vec();
            super::string(&text, &mut out);
            let read: String = serde_json::from_slice(&out[1..]).unwrap();
            assert_eq!(read, text);
            // serde_json writes the same short forms.
            assert_eq!(&out[1..], serde_json::to_vec(&text).unwrap());
        }
    }
}
