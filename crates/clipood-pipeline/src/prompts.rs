//! Prompt sets: hand-written or trained texts, and the linear probes in their place, kept in the store under the fingerprint of
//! what makes them.

pub mod checkpoint;
pub mod data;
pub mod file;
pub mod key;
pub mod trainers;
