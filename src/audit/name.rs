//! What of a name may be kept (contract, "Audit record"): cut at 256 bytes, no user information,
//! query or fragment of a URI, no task id.

use ring::digest;

use super::entry::Name;
use crate::limits::AUDIT_NAME_BYTES_MAX;

/// Appends what may be written of `name`; at most [`AUDIT_NAME_BYTES_MAX`] bytes.
pub(super) fn write(name: Name<'_>, out: &mut Vec<u8>) {
    match name {
        Name::Plain(text) => out.extend_from_slice(cut(text, AUDIT_NAME_BYTES_MAX).as_bytes()),
        Name::Task(id) => {
            let hash = digest::digest(&digest::SHA256, id.as_bytes());
            for byte in hash.as_ref().iter().take(TASK_HASH_BYTES) {
                out.extend(
                    [byte >> 4, byte & 15]
                        .map(|digit| HEX.get(usize::from(digit)).copied().unwrap_or(b'0')),
                );
            }
        }
        Name::Uri(uri) => write_uri(uri, out),
    }
}

/// The longest start of `text` that has at most `bytes_max` bytes and ends between two characters.
#[inline]
pub(super) fn cut(text: &str, bytes_max: usize) -> &str {
    if text.len() <= bytes_max {
        return text;
    }
    text.get(..text.floor_char_boundary(bytes_max)).unwrap_or(text)
}

/// RFC 3986 §3: the query begins at the first `?`, the fragment at the first `#`; both may carry
/// keys and tokens, so both go. User information (§3.2.1) stands before the last `@` of what
/// follows `//`; a URI within the path of another is treated alike, and so is
/// `scheme:user:password@…`, which has no `//` but is written by people.
fn write_uri(uri: &str, out: &mut Vec<u8>) {
    let plain = uri.split(['?', '#']).next().unwrap_or_default();
    let room_end = out.len() + AUDIT_NAME_BYTES_MAX;
    let mut rest = plain;
    let mut first = true;
    while !rest.is_empty() {
        let (before, after) = match rest.split_once("//") {
            Some((before, after)) => (before, Some(after)),
            None => (rest, None),
        };
        // The first piece is the scheme (or all there is); the others are authority and path.
        let kept = if first { without_opaque_user(before) } else { without_user(before) };
        push_cut(kept, room_end, out);
        if after.is_some() {
            push_cut("//", room_end, out);
        }
        first = false;
        rest = after.unwrap_or_default();
    }
}

fn without_user(authority_and_path: &str) -> &str {
    let authority_end = authority_and_path.find('/').unwrap_or(authority_and_path.len());
    let authority = authority_and_path.get(..authority_end).unwrap_or_default();
    let start = authority.rfind('@').map_or(0, |at| at + 1);
    authority_and_path.get(start..).unwrap_or_default()
}

fn without_opaque_user(text: &str) -> &str {
    let Some(at) = text.rfind('@') else { return text };
    let before = text.get(..at).unwrap_or_default();
    // One colon is the scheme's own (`mailto:a@b` names its resource); a second one ends a user
    // name.
    if before.matches(':').count() < 2 { text } else { text.get(at + 1..).unwrap_or_default() }
}

fn push_cut(text: &str, end: usize, out: &mut Vec<u8>) {
    let room = end.saturating_sub(out.len());
    out.extend_from_slice(cut(text, room).as_bytes());
}

const HEX: &[u8; 16] = b"0123456789abcdef";
/// 16 hex digits, as for tokens.
const TASK_HASH_BYTES: usize = 8;

#[cfg(test)]
mod tests {
    use super::*;

    fn written(name: Name<'_>) -> String {
        let mut out = Vec::new();
        write(name, &mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn k01_uris_lose_user_query_and_fragment() {
        for (uri, expected) in [
            ("https://u:secret@h/p?token=secret#secret", "https://h/p"),
            ("https://u:se@cret@h:1/p", "https://h:1/p"),
            ("https://h#secret?x", "https://h"),
            ("jdbc:postgresql://u:secret@h/db", "jdbc:postgresql://h/db"),
            ("https://p/https://u:secret@h/x", "https://p/https://h/x"),
            ("//u:secret@h", "//h"),
            ("db:u:secret@h", "h"),
            ("mailto:a@b", "mailto:a@b"),
            ("file:///home/a@b/c", "file:///home/a@b/c"),
            ("https://u:secret\\@h/p", "https://h/p"),
            ("ui://tool/{?secret}", "ui://tool/{"),
            ("?secret", ""),
            ("", ""),
        ] {
            let kept = written(Name::Uri(uri));
            assert_eq!(kept, expected, "{uri}");
            assert!(!kept.contains("secret"), "{uri}");
        }
    }

    #[test]
    fn k01_a_task_id_is_never_written() {
        assert_eq!(written(Name::Task("abc")), "ba7816bf8f01cfea");
    }

    #[test]
    fn names_are_cut_between_characters() {
        for text in ["x".repeat(4096), "é".repeat(2048), format!("x{}", "é".repeat(2048))] {
            for name in [Name::Plain(&text), Name::Uri(&text)] {
                let kept = written(name);
                assert!(
                    kept.len() <= AUDIT_NAME_BYTES_MAX && kept.len() >= AUDIT_NAME_BYTES_MAX - 1
                );
                assert!(text.starts_with(&kept));
            }
        }
        assert_eq!(cut("abc", 8), "abc");
    }
}
