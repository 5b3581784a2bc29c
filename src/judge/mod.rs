//! Judging without I/O: signature keys, the JWT profile, who the caller is, what Cedar policies
//! say. Pure functions over bytes, configuration and time; the stages make the proof values from
//! what they return.

pub mod crypto;
pub mod json;
pub mod jwt;
pub mod keys;
pub mod policy;
pub mod principal;

#[cfg(test)]
pub(crate) mod testing;
