//! Where the products of rows and weights go: a block of numbers, whichever way it lies, that threads share by features.

#![allow(unsafe_code, reason = "threads write different numbers of the same rows")]

use std::{marker::PhantomData, ops::Range};

use crate::{cpu::RowsMut, threads};

/// Features that a thread computes at least: so many are multiplied with all rows while their weights are near.
pub(crate) const UNIT: usize = 32;

/// Numbers to write, one for each row and feature.
pub(crate) struct Output<'a> {
    data: *mut f32,
    rows: usize,
    row_stride: usize,
    features: usize,
    feature_stride: usize,
    borrow: PhantomData<&'a mut [f32]>,
}

// SAFETY: it is a mutable borrow of numbers, which may move to another thread.
unsafe impl Send for Output<'_> {}
// SAFETY: shared, it gives nothing away.
unsafe impl Sync for Output<'_> {}

impl<'a> Output<'a> {
    /// Row after row, a row's features side by side: `[rows, features]`.
    pub(crate) fn by_row(out: &'a mut RowsMut<'_>) -> Self {
        let (rows, features, stride) = (out.rows, out.width, out.stride);
        assert!(rows == 0 || (rows - 1) * stride + features <= out.data.len());
        assert!(rows < 2 || features <= stride);
        Self { rows, row_stride: stride, features, feature_stride: 1, ..Self::new(out.data) }
    }

    /// Row after row without gaps: `[rows, features]`.
    pub(crate) fn contiguous(data: &'a mut [f32], features: usize) -> Self {
        let rows = data.len().checked_div(features).unwrap_or(0);
        Self { rows, row_stride: features, features, feature_stride: 1, ..Self::new(data) }
    }

    /// Feature after feature: `[features, rows]`.
    pub(crate) fn by_feature(data: &'a mut [f32], rows: usize) -> Self {
        let features = data.len().checked_div(rows).unwrap_or(0);
        Self { rows, row_stride: 1, features, feature_stride: rows, ..Self::new(data) }
    }

    fn new(data: &'a mut [f32]) -> Self {
        let data = data.as_mut_ptr();
        Self { data, rows: 0, row_stride: 0, features: 0, feature_stride: 0, borrow: PhantomData }
    }

    pub(crate) fn features(&self) -> usize {
        self.features
    }

    /// Writes a tile, `tile[feature][row]`, whose first number is that of `row` and `feature`.
    #[inline]
    pub(crate) fn put<const R: usize, const F: usize>(
        &mut self,
        (row, feature): (usize, usize),
        tile: &[[f32; R]; F],
    ) {
        assert!(row + R <= self.rows && feature + F <= self.features);
        for (f, numbers) in tile.iter().enumerate() {
            for (r, number) in numbers.iter().enumerate() {
                let at = (row + r) * self.row_stride + (feature + f) * self.feature_stride;
                // SAFETY: rows and features lie inside of the borrowed numbers.
                unsafe { *self.data.add(at) = *number };
            }
        }
    }

    /// Writes all features of a row, which lie side by side.
    pub(crate) fn put_row(&mut self, row: usize, numbers: &[f32]) {
        assert!(self.feature_stride == 1 && row < self.rows && numbers.len() == self.features);
        // SAFETY: as above; nobody else borrows them.
        let out =
            unsafe { std::slice::from_raw_parts_mut(self.data.add(row * self.row_stride), self.features) };
        // A length that the compiler knows makes it some instructions instead of a call.
        match (out.first_chunk_mut::<UNIT>(), numbers.first_chunk::<UNIT>()) {
            (Some(out), Some(numbers)) if self.features == UNIT => *out = *numbers,
            _ => out.copy_from_slice(numbers),
        }
    }

    /// The features of `range` alone.
    pub(crate) fn part(&mut self, range: Range<usize>) -> Output<'_> {
        // SAFETY: the borrow of all of it lasts as long as that of the part.
        unsafe { self.alias(range) }
    }

    /// The first so many features, the next so many, and so on.
    pub(crate) fn split(self, counts: impl Iterator<Item = usize>) -> Vec<Self> {
        let places = counts.scan(0, |end, count| {
            *end += count;
            Some(*end - count..*end)
        });
        // SAFETY: places do not overlap, and the whole is gone.
        places.map(|place| unsafe { self.alias(place) }).collect()
    }

    /// # Safety
    /// Nobody else writes these features while the result is there.
    unsafe fn alias(&self, range: Range<usize>) -> Output<'a> {
        assert!(range.start <= range.end && range.end <= self.features);
        // SAFETY: the first feature lies inside of the borrowed numbers, or there are none.
        let data =
            unsafe { self.data.add(if range.is_empty() { 0 } else { range.start * self.feature_stride }) };
        Output { data, features: range.len(), ..*self }
    }
}

/// A feature of one of several outputs.
#[derive(Clone, Copy)]
pub(crate) struct Place {
    /// Of the output.
    pub(crate) index: usize,
    /// The feature.
    pub(crate) first: usize,
}

/// Calls `run` with the place of a first feature, some features from there, and where the same thread goes on afterwards, if that
/// is known, for all features of all outputs; on all threads when `work` multiply-adds are worth it. What is not cut at an
/// output's end is cut at multiples of `unit`.
#[expect(clippy::needless_pass_by_value, reason = "nobody else may write to them meanwhile")]
pub(crate) fn in_parts(
    outputs: Vec<Output<'_>>,
    unit: usize,
    work: usize,
    run: impl Fn(Place, Output<'_>, Option<Place>) + Sync,
) {
    // Units of an output and of all before it.
    let ends = outputs.iter().scan(0, |end, output| {
        *end += output.features.div_ceil(unit);
        Some(*end)
    });
    let ends: Vec<usize> = ends.collect();
    let place = |first: usize| {
        let index = ends.partition_point(|end| *end <= first);
        Place { index, first: (first - if index == 0 { 0 } else { ends[index - 1] }) * unit }
    };
    threads::for_ranges(ends.last().copied().unwrap_or(0), work, |mut units, next| {
        while !units.is_empty() {
            let here = place(units.start);
            let end = units.end.min(ends[here.index]);
            let output = &outputs[here.index];
            let count = (end - units.start) * unit;
            let range = here.first..output.features.min(here.first + count);
            let then = if end < units.end { Some(end) } else { next };
            // SAFETY: each unit comes once, units do not overlap, and nobody uses the whole meanwhile.
            run(here, unsafe { output.alias(range) }, then.map(place));
            units.start = end;
        }
    });
}

/// [`in_parts`] with one unit at a time.
pub(crate) fn in_units(
    outputs: Vec<Output<'_>>,
    unit: usize,
    work: usize,
    run: impl Fn(Place, Output<'_>, Option<Place>) + Sync,
) {
    in_parts(outputs, unit, work, |Place { index, first }, mut out, next| {
        for start in (0..out.features()).step_by(unit) {
            let end = out.features().min(start + unit);
            let then = if end < out.features() { Some(Place { index, first: first + end }) } else { next };
            run(Place { index, first: first + start }, out.part(start..end), then);
        }
    });
}
