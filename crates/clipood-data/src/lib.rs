//! Dataset readers, few-shot splits, decoding and Pillow-exact preprocessing of clipood.
