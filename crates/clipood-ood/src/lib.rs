//! Out-of-distribution detectors and metrics as pure functions on arrays.
