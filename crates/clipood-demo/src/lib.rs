//! The demo world of clipood: drawn scenes, captions and the program that trains the demo CLIP on them.
