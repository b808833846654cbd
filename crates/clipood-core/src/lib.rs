//! Identifiers, fingerprints, recipes, manifests and errors of clipood; no I/O.
