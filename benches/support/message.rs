//! One MCP message.

/// A modern `tools/call` in the key order of the TypeScript SDK, about `bytes` long. `rows` makes
/// many small objects, otherwise the arguments are one long text.
pub(crate) fn body(bytes: usize, rows: bool) -> Vec<u8> {
    const ROW: &str = r#"{"path":"src/main.rs","line":42,"text":"fn main() {}","match":true},"#;
    let with = |arguments: &str| {
        format!(
            concat!(
                r#"{{"method":"tools/call","params":{{"name":"search","arguments":{},"_meta":{{"#,
                r#""io.modelcontextprotocol/protocolVersion":"2026-07-28","#,
                r#""io.modelcontextprotocol/clientCapabilities":{{}}}}}},"jsonrpc":"2.0","id":7}}"#
            ),
            arguments
        )
    };
    let left = bytes.saturating_sub(with("{\"a\":[]}").len());
    let arguments = if rows {
        let all = ROW.repeat(left / ROW.len());
        format!("{{\"a\":[{}]}}", all.trim_end_matches(','))
    } else {
        format!("{{\"a\":\"{}\"}}", "lorem ipsum ".repeat(left / 12))
    };
    with(&arguments).into_bytes()
}
