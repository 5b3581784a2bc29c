//! What one core remembers for `/mcp`, the endpoint for everything.

pub mod catalog;
pub mod hello;
