//! The stages of clipood from plan to report, joined by bounded channels.
