//! http_body
