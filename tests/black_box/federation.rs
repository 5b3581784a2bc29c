//! The one URL of all servers, as far as it is built.

use super::gateway::{DRIVERS, Gateway};
use super::table::{Case, End, Post, run};

/// Turned off, it is a path as any that is not served, and so is its metadata; each server stays
/// where it is.
#[test]
fn turned_off_the_one_url_is_not_found() {
    for driver in DRIVERS {
        let gateway = Gateway::start(driver, "\n[federation]\nenabled = false\n");
        let mut post = Post::new(&gateway);
        post.path = "/mcp".to_owned();
        let get = |path: &str| {
            format!("GET {path} HTTP/1.1\r\nHost: portcullis.localhost\r\n\r\n").into_bytes()
        };
        let mut stranger = post.clone();
        stranger.token = None;
        let requests = [
            ("a call", post.bytes()),
            ("a stranger", stranger.bytes()),
            ("a stream", get("/mcp")),
            ("metadata", get("/.well-known/oauth-protected-resource/mcp")),
        ];
        let cases: Vec<_> = requests
            .into_iter()
            .map(|(id, request)| Case {
                id: id.to_owned(),
                request,
                status: 404,
                reason: "not_found",
                end: End::Open,
            })
            .collect();
        run(&gateway, &cases);
        let other = gateway.ask(&get("/.well-known/oauth-protected-resource/mcp/tools"));
        assert_eq!(other.status, 200, "{other:?}");
    }
}
