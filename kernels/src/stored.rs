//! Where weights are stored, to ask for them before they are read.

#![allow(unsafe_code, reason = "asks for memory by its address")]

#[cfg(target_arch = "aarch64")]
use std::arch::asm;
#[cfg(target_arch = "x86_64")]
use std::arch::x86_64::{_MM_HINT_T1, _mm_prefetch};

/// Rows of a weight in memory, from one on. Nothing is read through it.
#[derive(Clone, Copy)]
pub(crate) struct Stored {
    numbers: *const u8,
    /// Bytes of a row.
    pub(crate) row: usize,
    scales: *const u8,
    /// Bytes of a row's scales.
    scales_row: usize,
}

impl Stored {
    /// All rows, and the bytes of one: of the numbers, and of their scales.
    pub(crate) fn new((numbers, row): (&[u8], usize), (scales, scales_row): (&[u8], usize)) -> Self {
        Self { numbers: numbers.as_ptr(), row, scales: scales.as_ptr(), scales_row }
    }

    /// Without so many rows.
    pub(crate) fn after(self, rows: usize) -> Self {
        Self {
            numbers: self.numbers.wrapping_add(rows * self.row),
            scales: self.scales.wrapping_add(rows * self.scales_row),
            ..self
        }
    }

    /// Without so many bytes of the numbers, and their scales.
    pub(crate) fn after_bytes(self, bytes: usize) -> Self {
        let scales = bytes * self.scales_row / self.row.max(1);
        Self { numbers: self.numbers.wrapping_add(bytes), scales: self.scales.wrapping_add(scales), ..self }
    }

    /// Asks for `bytes` of the numbers, from the byte `first` on.
    #[inline]
    pub(crate) fn ask(self, first: usize, bytes: usize) {
        ask(self.numbers.wrapping_add(first), bytes);
    }

    /// The same for scales.
    #[inline]
    pub(crate) fn ask_scales(self, first: usize, bytes: usize) {
        ask(self.scales.wrapping_add(first), bytes);
    }
}

/// Asks for so many bytes, for the second-level cache: it can wait for more lines at once than the nearest one, whose lines do not
/// suffice for a core's share of the memory.
#[inline]
pub(crate) fn ask(place: *const u8, bytes: usize) {
    for line in (0..bytes).step_by(64) {
        ask_line(place.wrapping_add(line));
    }
}

#[cfg(target_arch = "x86_64")]
#[inline]
fn ask_line(place: *const u8) {
    // SAFETY: nothing is read; an address that does not exist is ignored.
    unsafe { _mm_prefetch::<_MM_HINT_T1>(place.cast()) };
}

/// The standard library's function for this is not stable yet.
#[cfg(target_arch = "aarch64")]
#[inline]
fn ask_line(place: *const u8) {
    // SAFETY: as above.
    unsafe { asm!("prfm pldl2keep, [{}]", in(reg) place, options(readonly, nostack, preserves_flags)) };
}

/// Other processors guess by themselves.
#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
fn ask_line(_: *const u8) {}
