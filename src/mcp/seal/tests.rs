use std::collections::HashSet;

use super::*;
use crate::clock::UnixSeconds;
use crate::mcp::session::Binding;

const ALICE: Binding<'_> =
    Binding { issuer: "https://idp", subject: "alice", agent: "agent", server: "files" };
const NOW: UnixSeconds = UnixSeconds(1_800_000_000);
const HOUR: u64 = 3_600;

fn keys(url: &str, current: u8, previous: Option<u8>) -> Keyring {
    let previous = previous.map(|byte| [byte; 32]);
    Keyring::new(url, &[current; 32], previous.as_ref()).unwrap()
}

fn alice() -> [u8; 32] {
    bound_to(&[ALICE.issuer, ALICE.subject, ALICE.agent])
}

fn sealed(keys: &Keyring, purpose: Purpose, plain: &[u8]) -> Vec<u8> {
    let mut out = b"kept:".to_vec();
    keys.seal(purpose, plain, &alice(), &mut out).unwrap();
    out.strip_prefix(b"kept:").unwrap().to_vec()
}

#[test]
fn what_is_sealed_opens_on_any_instance_whatever_it_is() {
    let (here, there) = (keys("https://gw", 1, None), keys("https://gw", 1, None));
    for purpose in Purpose::ALL {
        for plain in [&b""[..], b"x", &[0; 1], &[0xff; 4096], &[7; SEALED_PLAIN_BYTES_MAX]] {
            let value = sealed(&here, purpose, plain);
            assert!(value.iter().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(byte)));
            assert_eq!(there.open(purpose, &value, &alice()).as_deref(), Some(plain));
        }
    }
}

#[test]
fn too_much_is_not_sealed_and_not_opened() {
    let keys = keys("https://gw", 1, None);
    let mut out = b"kept".to_vec();
    for purpose in Purpose::ALL {
        let refused = keys.seal(purpose, &[0; SEALED_PLAIN_BYTES_MAX + 1], &alice(), &mut out);
        assert_eq!((refused, out.as_slice()), (Err(Reject::UpstreamMalformed), &b"kept"[..]));
        let long = vec![b'A'; SEALED_TEXT_BYTES_MAX + 1];
        assert_eq!(keys.open(purpose, &long, &alice()), None);
    }
}

#[test]
fn a_value_of_one_purpose_is_no_value_of_another() {
    let keys = keys("https://gw", 1, None);
    // As long as what is inside a session with a server, whose form is another one.
    let plain = [0; 8 + 32 + 11];
    for purpose in Purpose::ALL {
        let value = sealed(&keys, purpose, &plain);
        for other in Purpose::ALL {
            assert_eq!(keys.open(other, &value, &alice()).is_some(), other == purpose);
        }
        assert_eq!(keys.open_session(&value, &ALICE, NOW, HOUR), Err(Reject::SessionUnknown));
    }
    let mut session = Vec::new();
    keys.seal_session(&ALICE, b"upstream-id", NOW, &mut session).unwrap();
    for purpose in Purpose::ALL {
        let bound = bound_to(&[ALICE.issuer, ALICE.subject, ALICE.agent, ALICE.server]);
        assert_eq!(keys.open(purpose, &session, &bound), None);
        assert_eq!(keys.open(purpose, &session, &alice()), None);
    }
}

/// Keys and names are two walls, and each stands without the other.
#[test]
fn neither_the_key_nor_the_name_of_another_purpose_opens() {
    let keys = keys("https://gw", 1, None);
    let mut tags = HashSet::new();
    for keys_of in Purpose::ALL {
        for named_by in Purpose::ALL {
            let mut message = *b"the same message";
            let name = keys.with_keys(named_by, &[5; 16], |_, named| *named).unwrap();
            let tag = keys.with_keys(keys_of, &[5; 16], |pair, _| {
                pair.encrypt([9; NONCE_LEN], &with_bound(&name, &alice()), &mut message)
            });
            assert!(tags.insert((message, tag.unwrap().unwrap())));
        }
    }
    assert_eq!(tags.len(), 36);
    let texts: HashSet<_> = tags.iter().map(|(text, _)| text).collect();
    assert_eq!(texts.len(), 6, "one key for each purpose");
}

#[test]
fn a_value_of_somebody_else_or_another_gateway_does_not_open() {
    let here = keys("https://gw", 1, None);
    for purpose in Purpose::ALL {
        let value = sealed(&here, purpose, b"inside");
        let bob = bound_to(&[ALICE.issuer, "bob", ALICE.agent]);
        let mut close = alice();
        close[31] ^= 1;
        for stranger in [bob, close, [0; 32]] {
            assert_eq!(here.open(purpose, &value, &stranger), None);
        }
        assert_eq!(keys("https://other", 1, None).open(purpose, &value, &alice()), None);
    }
}

#[test]
fn keys_of_all_purposes_rotate() {
    for purpose in Purpose::ALL {
        let old = sealed(&keys("https://gw", 1, None), purpose, b"inside");
        let rotated = keys("https://gw", 2, Some(1));
        assert_eq!(rotated.open(purpose, &old, &alice()).as_deref(), Some(&b"inside"[..]));
        // The current one seals: a gateway that never had the old one opens it.
        let new = sealed(&rotated, purpose, b"inside");
        assert!(keys("https://gw", 2, None).open(purpose, &new, &alice()).is_some());
        assert_eq!(keys("https://gw", 1, None).open(purpose, &new, &alice()), None);
        for gone in [keys("https://gw", 2, None), keys("https://gw", 2, Some(3))] {
            assert_eq!(gone.open(purpose, &old, &alice()), None);
        }
    }
}

#[test]
fn no_changed_and_no_cut_value_opens() {
    let keys = keys("https://gw", 1, None);
    for purpose in Purpose::ALL {
        let value = sealed(&keys, purpose, b"inside");
        for at in 0..value.len() {
            for change in *b"Aa0_-=+/ \0\xff" {
                let mut forged = value.clone();
                forged[at] = change;
                if forged != value {
                    assert_eq!(keys.open(purpose, &forged, &alice()), None, "{purpose:?} {at}");
                }
            }
            assert_eq!(keys.open(purpose, &value[..at], &alice()), None, "{purpose:?} {at}");
            let longer = [&value[..], &value[..at]].concat();
            assert_eq!(keys.open(purpose, &longer, &alice()).is_some(), at == 0);
        }
        // Every byte of what the text stands for, too.
        let bytes = URL_SAFE_NO_PAD.decode(&value).unwrap();
        for at in 0..bytes.len() {
            for bit in 0..8 {
                let mut forged = bytes.clone();
                forged[at] ^= 1 << bit;
                let text = URL_SAFE_NO_PAD.encode(&forged);
                assert_eq!(keys.open(purpose, text.as_bytes(), &alice()), None);
            }
            let text = URL_SAFE_NO_PAD.encode(&bytes[..at]);
            assert_eq!(keys.open(purpose, text.as_bytes(), &alice()), None);
        }
    }
}

#[test]
fn two_sealings_share_nothing_visible() {
    let keys = keys("https://gw", 1, None);
    for purpose in Purpose::ALL {
        let (one, two) = (sealed(&keys, purpose, &[0; 64]), sealed(&keys, purpose, &[0; 64]));
        assert_eq!(one.len(), two.len());
        let equal = one.iter().zip(&two).skip(2).filter(|(a, b)| a == b).count();
        assert!(equal < one.len() / 4, "{equal} equal characters of {}", one.len());
    }
}

#[test]
fn parts_are_bound_to_as_they_are_cut() {
    let lists: [&[&str]; 7] =
        [&[], &[""], &["", ""], &["ab", "c"], &["a", "bc"], &["abc"], &["abc", ""]];
    let digests: HashSet<_> = lists.iter().map(|parts| bound_to(parts)).collect();
    assert_eq!(digests.len(), lists.len());
}
