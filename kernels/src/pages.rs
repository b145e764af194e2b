//! What the system is asked about memory.

#![allow(unsafe_code, reason = "calls of the system")]

use std::io;

/// Asks for large pages, of which fewer addresses have to be looked up. Without them it is slower, not wrong.
pub(crate) fn prefer_large_pages<T>(data: &[T]) {
    #[cfg(target_os = "linux")]
    {
        let (first, len) = whole_pages(data);
        // SAFETY: whole pages inside of memory that is borrowed here; the advice changes nothing that can be read.
        let _ = unsafe { libc::madvise(first as *mut libc::c_void, len, libc::MADV_HUGEPAGE) };
    }
    #[cfg(not(target_os = "linux"))]
    let _ = data;
}

/// Has the system provide these pages now, as if they were written to: it does so otherwise when they are, one by one. Where it
/// cannot (Linux before 5.14), they come as they are used.
pub(crate) fn provide_pages(bytes: &[u8]) {
    #[cfg(target_os = "linux")]
    {
        let (first, len) = whole_pages(bytes);
        // SAFETY: whole pages inside of memory that is borrowed here; what is in them stays.
        let _ = unsafe { libc::madvise(first as *mut libc::c_void, len, libc::MADV_POPULATE_WRITE) };
    }
    #[cfg(not(target_os = "linux"))]
    let _ = bytes;
}

/// Has the calling thread run when no other thread wants to.
pub(crate) fn yield_to_others() {
    #[cfg(target_os = "linux")]
    // SAFETY: it changes nothing but a priority, on Linux that of this thread alone.
    let _ = unsafe { libc::setpriority(libc::PRIO_PROCESS, 0, 19) };
}

/// Gives the memory of whole pages inside of these bytes back. Pages that are locked stay.
///
/// # Safety
/// The bytes must lie in a file that is mapped to be read: elsewhere they would become zeros.
pub(crate) unsafe fn release_pages(bytes: &[u8]) {
    #[cfg(target_os = "linux")]
    {
        let (first, len) = whole_pages(bytes);
        // SAFETY: pages of a file are read again as they were: the caller's promise.
        let _ = unsafe { libc::madvise(first as *mut libc::c_void, len, libc::MADV_DONTNEED) };
    }
    #[cfg(not(target_os = "linux"))]
    let _ = bytes;
}

/// Address and length of the pages that lie inside.
#[cfg(target_os = "linux")]
fn whole_pages<T>(data: &[T]) -> (usize, usize) {
    const PAGE: usize = 4096;
    let bytes = data.as_ptr_range();
    let first = bytes.start.addr().next_multiple_of(PAGE);
    (first, (bytes.end.addr() / PAGE * PAGE).saturating_sub(first))
}

/// Keeps these bytes in memory for as long as they are mapped, reading them if need be.
///
/// # Errors
/// What the system says, mostly that a process may not lock so much.
pub fn lock_pages(bytes: &[u8]) -> io::Result<()> {
    #[cfg(unix)]
    // SAFETY: the bytes are borrowed; locking changes nothing that can be read.
    return match unsafe { libc::mlock(bytes.as_ptr().cast(), bytes.len()) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    };
    #[cfg(not(unix))]
    {
        let _ = bytes;
        Err(io::ErrorKind::Unsupported.into())
    }
}
