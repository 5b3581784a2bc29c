//! The agents' side: accepted connections, their requests read within bounds, and our own answers.

pub mod answer;
pub mod downstream;
mod inputs;

pub use downstream::Downstream;
pub use inputs::Inputs;
