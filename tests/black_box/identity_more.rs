//! identity_more
