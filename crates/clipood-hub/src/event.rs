//! What a caller of [`resolve`](crate::resolve()) hears while it works.

/// Something that happened during a download.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Event<'a> {
    /// A piece of a file was received.
    Received(Progress<'a>),
    /// A sentence for the user: why there is a pause, or why the copy in the cache is used.
    Note(&'a str),
}

/// The progress of a download.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Progress<'a> {
    /// Name of the file in the repository.
    pub file: &'a str,
    /// Bytes downloaded, including those of earlier attempts.
    pub done: u64,
    /// Size of the file in bytes, if the hub states it.
    pub total: Option<u64>,
}

/// Hears what happens, and answers whether to go on.
pub(crate) type Listener<'a> = &'a mut dyn FnMut(Event<'_>) -> bool;
