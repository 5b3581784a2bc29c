//! Cases M01-M10 as whole bodies, the eras, and the differential test against a second parser.

mod arguments;
mod asking;
mod catalog;
mod bridge;
mod differential;
mod eras;
mod form;
mod paging;
mod handshake;
mod message;
mod splice;
mod writer;

use super::{Call, Mirrored};
use crate::reject::Reject;

/// Reads `body` with one configured extension method.
fn read(body: impl AsRef<[u8]>) -> (Call, Result<(), Reject>) {
    let mut call = Call::new();
    let outcome = call.read(body.as_ref(), extension);
    (call, outcome)
}

fn extension(name: &str) -> Option<u16> {
    (name == "com.example/thing").then_some(3)
}

/// A request with id 1; `params` without its braces.
fn request(method: &str, params: &str) -> String {
    format!(r#"{{"jsonrpc":"2.0","id":1,"method":"{method}","params":{{{params}}}}}"#)
}

/// Reads and compares with headers; `None` leaves a header out.
fn judge(
    body: &str,
    version: Option<&str>,
    method: Option<&str>,
    name: Option<&str>,
) -> (Call, Result<(), Reject>) {
    let (mut call, outcome) = read(body);
    assert_eq!(outcome, Ok(()), "{body}");
    let mirrored = Mirrored {
        protocol_version: version.map(str::as_bytes),
        method: method.map(str::as_bytes),
        name: name.map(str::as_bytes),
    };
    let outcome = call.agree(&mirrored);
    (call, outcome)
}
