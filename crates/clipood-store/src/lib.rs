//! Object-store access, atomic commits, claims and run state of clipood.
