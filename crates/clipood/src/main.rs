//! The command `clipood`.
fn main() {}
