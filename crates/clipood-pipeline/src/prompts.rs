//! Prompt sets: hand-written or trained texts, or linear probes instead, kept in the store under the fingerprint of
//! their inputs.

pub mod checkpoint;
pub mod data;
pub mod file;
pub mod key;
pub mod trainers;
pub mod words;
