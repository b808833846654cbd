//! Returning the memory of a finished shard to the system.

/// Returns freed memory to the system.
///
/// The buffers of a shard are freed in other threads than they were allocated in, and glibc keeps freed memory per
/// thread: over 23 shards of 44,000 images a run grew from 200 to 330 MB, although it held no more data.
pub fn trim_heap() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    // SAFETY: the function takes no pointer, and may be called from any thread at any time.
    unsafe {
        libc::malloc_trim(0);
    }
}
