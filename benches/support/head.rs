//! The head of a usual MCP call, about 900 bytes.

pub(crate) fn head() -> Vec<u8> {
    // The token has the size of a small RFC 9068 access token signed with ES256; its bytes do
    // not matter.
    let token = "eyJhbGciOiJFUzI1NiIsInR5cCI6ImF0K2p3dCJ9".repeat(11);
    format!(
        "POST /mcp/github HTTP/1.1\r\n\
         host: gw.example.com\r\n\
         connection: keep-alive\r\n\
         authorization: Bearer {token}\r\n\
         content-type: application/json\r\n\
         accept: application/json, text/event-stream\r\n\
         mcp-protocol-version: 2026-07-28\r\n\
         mcp-method: tools/call\r\n\
         mcp-name: search_repositories\r\n\
         traceparent: 00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01\r\n\
         user-agent: mcp-client/2.4.0\r\n\
         accept-language: *\r\n\
         content-length: 312\r\n\r\n"
    )
    .into_bytes()
}
