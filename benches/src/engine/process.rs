//! This process's memory, as the system counts it. Other systems than Linux do not tell.

/// Begins to look for the peak anew.
pub(super) fn forget_peak() {
    #[cfg(target_os = "linux")]
    if let Ok(process) = procfs::process::Process::myself() {
        // Where it is not allowed, the peak is that of the whole run, which is not lower.
        let _ = process.clear_refs(procfs::process::ClearRefs::PeakRSS);
    }
}

/// The most that was resident, in bytes.
pub(super) fn peak_bytes() -> Option<u64> {
    #[cfg(target_os = "linux")]
    return Some(status()?.vmhwm? * 1024);
    #[cfg(not(target_os = "linux"))]
    None
}

/// What is resident now and not a file, in bytes.
pub(super) fn anonymous_bytes() -> Option<u64> {
    #[cfg(target_os = "linux")]
    return Some(status()?.rssanon? * 1024);
    #[cfg(not(target_os = "linux"))]
    None
}

#[cfg(target_os = "linux")]
fn status() -> Option<procfs::process::Status> {
    procfs::process::Process::myself().ok()?.status().ok()
}
