//! Memory that a shard has used is returned to the system before the next one.

/// Returns freed memory to the system.
///
/// The buffers of a shard are freed in other threads than they were made in, and glibc keeps what each thread has freed:
/// over 23 shards of 44,000 images a run grew from 200 to 330 MB, without holding anything.
pub fn trim_heap() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    // SAFETY: the function takes no pointer, and may be called from any thread at any time.
    unsafe {
        libc::malloc_trim(0);
    }
}
