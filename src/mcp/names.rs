//! Names of tools and prompts on `/mcp`, where each has its server's prefix: `github_search`.
//!
//! A prefix holds no underscore, so the first one of a name ends it, and most names are read
//! without asking what there is. A name that would be longer than [`NAME_OUT_BYTES_MAX`] ends in a
//! digest instead; only the server's own list tells what it stands for.

use ring::digest;

/// Bytes of a name that clients see: some models and clients take no longer ones.
pub const NAME_OUT_BYTES_MAX: usize = 64;

/// The prefixes of all servers.
#[derive(Default)]
pub struct Prefixes {
    /// Sorted by prefix.
    servers: Vec<(Box<str>, u16)>,
}

/// What a client's name may mean.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Split<'n> {
    /// This name of this server, if it is there.
    Plain {
        /// Its index.
        server: u16,
        /// Its own name for what is asked.
        name: &'n str,
    },
    /// A name of this server that [`is_composed`] of it, or `name` as it is: its list tells. Where
    /// both are in the list, the name means neither.
    Hashed {
        /// Its index.
        server: u16,
        /// What it would be if it were not cut.
        name: &'n str,
    },
    /// No server's.
    Unknown,
}

impl Prefixes {
    /// Of servers by index and prefix; different prefixes, unless there is one server only.
    #[must_use]
    pub fn new<'s>(servers: impl Iterator<Item = (u16, &'s str)>) -> Self {
        let mut servers: Vec<(Box<str>, u16)> =
            servers.map(|(index, prefix)| (Box::from(prefix), index)).collect();
        servers.sort();
        Self { servers }
    }

    /// Takes a client's name apart. A long name is no reason to look anything up.
    #[must_use]
    pub fn split<'n>(&self, name: &'n str) -> Split<'n> {
        if let [(prefix, server)] = self.servers.as_slice()
            && prefix.is_empty()
        {
            return Split::Plain { server: *server, name };
        }
        let Some((prefix, rest)) = name.split_once('_') else { return Split::Unknown };
        let found = self.servers.binary_search_by(|(known, _)| (**known).cmp(prefix));
        let Some((_, server)) = found.ok().and_then(|at| self.servers.get(at)) else {
            return Split::Unknown;
        };
        if prefix.is_empty() || name.len() > NAME_OUT_BYTES_MAX {
            Split::Unknown
        } else if may_be_hashed(name) {
            Split::Hashed { server: *server, name: rest }
        } else {
            Split::Plain { server: *server, name: rest }
        }
    }

    /// The servers in byte order of their prefixes: index and prefix.
    pub fn in_order(&self) -> impl Iterator<Item = (u16, &str)> {
        self.servers.iter().map(|(prefix, server)| (*server, &**prefix))
    }
}

/// Appends the name that clients see: `prefix_name`, or its first bytes and a digest where that is
/// too long. Without a prefix a name stays what it is.
pub fn compose(prefix: &str, name: &str, out: &mut String) {
    if prefix.is_empty() {
        return out.push_str(name);
    }
    let from = out.len();
    out.push_str(prefix);
    out.push('_');
    out.push_str(name);
    if out.len() - from <= NAME_OUT_BYTES_MAX {
        return;
    }
    let mut end = from + HEAD_BYTES_MAX;
    while !out.is_char_boundary(end) {
        end -= 1;
    }
    out.truncate(end);
    out.push('-');
    let mut all = digest::Context::new(&digest::SHA256);
    all.update(prefix.as_bytes());
    all.update(&[0]);
    all.update(name.as_bytes());
    for byte in all.finish().as_ref().iter().take(DIGEST_DIGITS / 2) {
        for nibble in [byte >> 4, byte & 15] {
            out.push(char::from_digit(u32::from(nibble), 16).unwrap_or('0'));
        }
    }
}

/// Whether a client sees `name` of the server with `prefix` as `outer`, and that is cut.
#[must_use]
pub fn is_composed(prefix: &str, name: &str, outer: &str) -> bool {
    if !is_cut(prefix, name) {
        return false;
    }
    let mut composed = String::with_capacity(prefix.len() + 1 + name.len());
    compose(prefix, name, &mut composed);
    composed == outer
}

/// Whether `name` is too long to be seen whole behind `prefix`.
#[must_use]
pub fn is_cut(prefix: &str, name: &str) -> bool {
    !prefix.is_empty() && prefix.len() + 1 + name.len() > NAME_OUT_BYTES_MAX
}

/// Whether a name has the form that [`compose`] gives long ones.
pub(super) fn may_be_hashed(name: &str) -> bool {
    let Some(at) = name.len().checked_sub(DIGEST_DIGITS + 1) else { return false };
    // The head was cut at a character, which has four bytes at most.
    let head = (HEAD_BYTES_MAX - 3..=HEAD_BYTES_MAX).contains(&at);
    let digit = |byte: &u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
    let tail = name.as_bytes().get(at..).and_then(<[u8]>::split_first);
    head && tail.is_some_and(|(dash, digits)| *dash == b'-' && digits.iter().all(digit))
}

/// Hex digits of the digest: by chance two of 10,000 names share theirs once in 20,000 lists.
const DIGEST_DIGITS: usize = 10;
/// Bytes before the dash and the digest.
const HEAD_BYTES_MAX: usize = NAME_OUT_BYTES_MAX - DIGEST_DIGITS - 1;
/// The longest prefix and its underscore always stand in the head, so the server is always known.
const _: () = assert!(crate::limits::PREFIX_BYTES_MAX + 1 < HEAD_BYTES_MAX - 3);

#[cfg(test)]
mod tests {
    use super::*;

    fn prefixes(all: &[&str]) -> Prefixes {
        Prefixes::new((0..).zip(all.iter().copied()))
    }

    fn composed(prefix: &str, name: &str) -> String {
        let mut out = "x".to_owned();
        compose(prefix, name, &mut out);
        out.split_off(1)
    }

    #[test]
    fn what_is_composed_is_taken_apart_again() {
        let all = prefixes(&["b", "a", "a-b", "A", &"p".repeat(32)]);
        let long = "n".repeat(62);
        let wide = "\u{1f600}".repeat(30);
        let names = ["x", "b_c", "_", "", "/a b", "\u{e9}\u{0}", "b", &long, &wide, &long[..30]];
        for (server, prefix) in all.in_order() {
            for name in names {
                let outer = composed(prefix, name);
                assert!(outer.len() <= NAME_OUT_BYTES_MAX, "{outer}");
                let cut = prefix.len() + 1 + name.len() > NAME_OUT_BYTES_MAX;
                assert_eq!(is_composed(prefix, name, &outer), cut, "{outer}");
                match all.split(&outer) {
                    Split::Plain { server: found, name: inner } => {
                        assert_eq!((found, inner, cut), (server, name, false), "{outer}");
                    }
                    Split::Hashed { server: found, .. } => {
                        assert_eq!((found, cut), (server, true), "{outer}");
                    }
                    Split::Unknown => panic!("{outer}"),
                }
            }
        }
        let order: Vec<&str> = all.in_order().map(|(_, prefix)| prefix).collect();
        assert_eq!(order[..4], ["A", "a", "a-b", "b"]);
    }

    #[test]
    fn names_have_their_exact_form() {
        assert_eq!(composed("github", "search"), "github_search");
        assert_eq!(composed("", &"x".repeat(90)), "x".repeat(90));
        // printf 'a\0nnn…' | sha256sum, with 63 of it: one byte too long.
        let name = "n".repeat(63);
        let outer = composed("a", &name);
        assert_eq!(outer, format!("a_{}-{}", "n".repeat(51), "40002acbe2"));
        assert!(!is_composed("b", &name, &outer) && !is_composed("a", &name[1..], &outer));
        assert!(!is_composed("", &name, &name));
        // Two names that begin alike differ all the same, and so do two servers with one name.
        assert_ne!(composed("a", &format!("{name}1")), composed("a", &format!("{name}2")));
    }

    #[test]
    fn what_is_no_servers_name_is_unknown_and_a_digest_is_looked_up() {
        let all = prefixes(&["a", "b"]);
        let longer = format!("a_{}", "n".repeat(63));
        for name in ["", "a", "c_x", "_x", "A_x", "ab", "\u{430}_x", "a\0_x", " a_x", &longer] {
            assert_eq!(all.split(name), Split::Unknown, "{name}");
        }
        let hashed = |head: usize, digest: &str| format!("a_{}-{digest}", "n".repeat(head - 2));
        for (name, hashes) in [
            (hashed(53, "0123456789"), true),
            (hashed(50, "abcdefabcd"), true),
            (hashed(49, "0123456789"), false),
            (hashed(53, "012345678A"), false),
            (hashed(53, "01234567-9"), false),
            ("a_x-0123456789".to_owned(), false),
        ] {
            let rest = &name[2..];
            let plain = Split::Plain { server: 0, name: rest };
            let expected = if hashes { Split::Hashed { server: 0, name: rest } } else { plain };
            assert_eq!(all.split(&name), expected, "{name}");
        }
        let one = prefixes(&[""]);
        let name = hashed(53, "0123456789");
        assert_eq!(one.split(&name), Split::Plain { server: 0, name: &name });
        assert_eq!(one.split("_x"), Split::Plain { server: 0, name: "_x" });
        assert_eq!(prefixes(&["", "b"]).split("_x"), Split::Unknown);
        assert_eq!(prefixes(&[]).split("a_x"), Split::Unknown);
    }
}
