//! Case R05: each broken configuration is refused, at the right place. Every row starts from a
//! sound file (`GOOD`), replaces one piece, and names the faults that must come of it, and no
//! others.

use super::tests::Folder;
use crate::limits::{CREDENTIALS_MAX, EXTENSION_METHODS_MAX, SERVERS_MAX, TRUST_PROVIDERS_MAX};

const GOOD: &str = r#"public_url = "https://gw.example.com"
[listen]
address = "0.0.0.0:443"
[listen.tls]
certificate = "fullchain.pem"
private_key = "credential:tls.key"
[[trust_provider]]
name = "corp"
issuer = "https://idp.example.com"
[[server]]
name = "github"
url = "https://mcp.example.com/mcp?v=1"
credential = "key"
[[server]]
name = "wiki"
url = "https://wiki.example.com/mcp"
[[credential]]
name = "key"
servers = ["github"]
kind = "api_key"
header = "X-Api-Key"
secret = "credential:github.key"
[policy]
directory = "policies"
"#;

/// What is replaced, by what, and the faults that come of it.
struct Row {
    from: String,
    to: String,
    expected: Vec<&'static str>,
}

fn rows() -> Vec<Row> {
    let part = |block: &'static str, mark: char| {
        let lines = block.lines().filter_map(|line| line.strip_prefix(mark));
        lines.map(|line| line.strip_prefix(' ').unwrap_or(line)).collect::<Vec<_>>()
    };
    let blocks = include_str!("broken.txt").split("\n\n").skip(1);
    let row = |block| Row {
        from: part(block, '-').join("\n"),
        to: part(block, '+').join("\n"),
        expected: part(block, '='),
    };
    blocks.map(row).collect()
}

#[test]
fn r05_each_broken_configuration_is_refused_with_line_and_column() {
    let folder = Folder::new("broken");
    assert!(folder.parse(GOOD).is_ok(), "{:?}", folder.parse(GOOD).err());
    let start = format!("{}:", folder.0.join("gateway.toml").display());
    let rows = rows();
    assert!(rows.len() > 100);
    let mut wrong = Vec::new();
    for Row { from, to, expected } in &rows {
        assert!(GOOD.contains(from) && !from.is_empty() && !expected.is_empty(), "{from} {to}");
        let faults = folder.parse(&GOOD.replacen(from, to, 1)).err();
        let faults = faults.map(|faults| faults.0).unwrap_or_default();
        let lines: Vec<_> = faults.iter().map(ToString::to_string).collect();
        let same = lines.len() == expected.len()
            && lines.iter().zip(expected).all(|(line, expected)| {
                line.strip_prefix(&start).is_some_and(|line| line.starts_with(expected))
            });
        assert!(!lines.concat().contains("s3cr3t"), "{to}: a fault repeats a secret");
        assert!(!lines.concat().contains('\n'), "{to}: a fault of two lines");
        assert!(lines.iter().all(|line| line.contains("; ")), "{to}: no cure");
        if !same {
            wrong.push(format!("{from}\n->\n{to}\n  {}", lines.join("\n  ")));
        }
    }
    assert!(wrong.is_empty(), "{} of {}\n{}", wrong.len(), rows.len(), wrong.join("\n"));
}

#[test]
fn no_list_of_tables_is_longer_than_its_bound() {
    type Entry = fn(usize) -> String;
    let folder = Folder::new("counts");
    let tables: [(&str, usize, usize, Entry); 4] = [
        ("trust_provider", TRUST_PROVIDERS_MAX, 1, |i| {
            let keys = "jwks_file = \"jwks.json\"";
            format!("name = \"p{i}\"\nnamespace = \"p{i}\"\nissuer = \"https://p{i}\"\n{keys}")
        }),
        ("server", SERVERS_MAX, 2, |i| {
            format!("name = \"s{i}\"\nurl = \"https://s{i}.example.com\"")
        }),
        ("credential", CREDENTIALS_MAX, 1, |i| {
            format!("name = \"c{i}\"\nservers = [\"wiki\"]\nkind = \"none\"")
        }),
        ("method", EXTENSION_METHODS_MAX, 0, |i| format!("name = \"com.example/m{i}\"")),
    ];
    for (table, max, written, entry) in tables {
        let grow = |count| {
            let more = (0..count).map(|i| format!("[[{table}]]\n{}\n", entry(i)));
            folder.parse(&format!("{GOOD}{}", more.collect::<String>()))
        };
        assert!(grow(max - written).is_ok(), "{table}");
        let faults = grow(max - written + 1).err().map(|faults| faults.0).unwrap_or_default();
        let whats: Vec<_> = faults.iter().map(|fault| (fault.key.as_str(), &fault.what)).collect();
        assert!(
            matches!(&whats[..], [(key, what)] if *key == table && what.starts_with("more than")),
            "{table}: {whats:?}"
        );
    }
}

#[test]
fn admin_and_agents_do_not_share_an_address() {
    let folder = Folder::new("admin");
    let minimal = include_str!("../../conf/minimal.toml");
    for (listen, admin, sound) in [
        ("127.0.0.1:8080", "127.0.0.1:8080", false),
        ("127.0.0.1:8080", "127.0.0.1:8081", true),
        ("127.0.0.1:8080", "[::1]:8080", true),
        ("127.0.0.1:0", "127.0.0.1:0", true),
    ] {
        let text = minimal.replace("127.0.0.1:8080", listen);
        let config = folder.parse(&format!("{text}[admin]\naddress = \"{admin}\"\n"));
        assert_eq!(config.is_ok(), sound, "{listen} {admin}");
    }
}

#[test]
fn text_that_is_no_configuration_is_refused_without_harm() {
    let folder = Folder::new("garbage");
    for piece in ["[", "{", "a={", "a=[", "x\n", "a.", "\"", "'''", "\u{0}", "=\n", "[a]\n", "#\r"]
    {
        let text = piece.repeat(20_000 / piece.len());
        assert!(folder.parse(&text).is_err(), "{piece:?}");
        assert!(folder.parse(&format!("v = {text}")).is_err(), "v = {piece:?}");
    }
}
