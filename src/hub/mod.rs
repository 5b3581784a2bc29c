//! What one core remembers for `/mcp`, the endpoint for everything.

pub mod hello;
