//! The event of the dataflow: one request, as the web server wrote it down.

use serde::{Deserialize, Serialize};

/// One answered request.
///
/// As JSON, `user`, `method`, `protocol`, `referrer` and `agent` may be left out. They default to what
/// a server logs for a plain anonymous request; an empty `method` is never a default, because it says
/// that the request line was not understood.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, columnar::Columnar)]
#[serde(deny_unknown_fields)]
pub struct Request {
    /// Event time: UTC, in seconds since 1970-01-01T00:00:00Z.
    pub at: u64,
    /// The visitor: address or name of the client.
    pub host: String,
    /// Authenticated user, `-` for none.
    #[serde(default = "none")]
    pub user: String,
    /// Empty if the request line is not `METHOD TARGET PROTOCOL`.
    #[serde(default = "get")]
    pub method: String,
    /// Request target verbatim, or the whole request line if `method` is empty.
    pub path: String,
    /// Empty if the request line is not `METHOD TARGET PROTOCOL`.
    #[serde(default = "http")]
    pub protocol: String,
    /// Status code of the answer.
    pub status: u16,
    /// Size of the answer without its headers.
    pub bytes: u64,
    /// Page that linked here, `-` for none.
    #[serde(default = "none")]
    pub referrer: String,
    /// User agent, `-` for none.
    #[serde(default = "none")]
    pub agent: String,
}

fn none() -> String {
    "-".to_owned()
}

fn get() -> String {
    "GET".to_owned()
}

fn http() -> String {
    "HTTP/1.1".to_owned()
}
