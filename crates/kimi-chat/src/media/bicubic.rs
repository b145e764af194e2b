//! Resizing as Pillow's `BICUBIC` does it, bit for bit: horizontally, then vertically, 8 bits between. The model was trained on
//! images that went through it. From Pillow 11.3, `src/libImaging/Resample.c`.

use image::RgbImage;

/// Fractional bits of the weights.
const PRECISION: u32 = 22;

/// Samples on either side that count, at the scale of the coarser of the two images.
const SUPPORT: f64 = 2.0;

/// Resizes to `width` × `height`. A direction in which nothing changes is left alone.
pub(super) fn resize(image: RgbImage, width: u32, height: u32) -> RgbImage {
    let image = if image.width() == width { image } else { horizontally(&image, width) };
    if image.height() == height { image } else { vertically(&image, height) }
}

fn horizontally(image: &RgbImage, width: u32) -> RgbImage {
    let kernels = kernels(image.width(), width);
    let mut out = Vec::with_capacity(width as usize * image.height() as usize * 3);
    for row in image.as_raw().chunks_exact(image.width() as usize * 3) {
        for kernel in &kernels {
            let mut sums = [ROUND; 3];
            for (pixel, weight) in row[kernel.first * 3..].chunks_exact(3).zip(&kernel.weights) {
                for (sum, &sample) in sums.iter_mut().zip(pixel) {
                    *sum += i32::from(sample) * weight;
                }
            }
            out.extend(sums.map(to_byte));
        }
    }
    RgbImage::from_raw(width, image.height(), out).expect("invariant: a pixel for each of width × height")
}

fn vertically(image: &RgbImage, height: u32) -> RgbImage {
    let stride = image.width() as usize * 3;
    let mut out = Vec::with_capacity(stride * height as usize);
    let mut sums = vec![0; stride];
    for kernel in kernels(image.height(), height) {
        sums.fill(ROUND);
        for (row, weight) in image.as_raw()[kernel.first * stride..].chunks_exact(stride).zip(&kernel.weights)
        {
            for (sum, &sample) in sums.iter_mut().zip(row) {
                *sum += i32::from(sample) * weight;
            }
        }
        out.extend(sums.iter().copied().map(to_byte));
    }
    RgbImage::from_raw(image.width(), height, out).expect("invariant: a pixel for each of width × height")
}

/// One half, so that cutting off the fraction rounds.
const ROUND: i32 = 1 << (PRECISION - 1);

fn to_byte(sum: i32) -> u8 {
    (sum >> PRECISION).clamp(0, 255) as u8
}

/// The samples that make one sample of the result.
struct Kernel {
    first: usize,
    weights: Vec<i32>,
}

/// A kernel for each of `output` samples, made from `input` samples.
fn kernels(input: u32, output: u32) -> Vec<Kernel> {
    let scale = f64::from(input) / f64::from(output);
    let filter_scale = scale.max(1.0);
    let support = SUPPORT * filter_scale;
    // A multiplication by the reciprocal, not a division: the last bit counts.
    let step = 1.0 / filter_scale;
    let kernel = |index: u32| {
        let center = (f64::from(index) + 0.5) * scale;
        // The conversions cut off, as in C.
        let first = (center - support + 0.5).max(0.0) as usize;
        let end = ((center + support + 0.5) as usize).min(input as usize);
        let weight = |sample: usize| cubic((sample as f64 - center + 0.5) * step);
        let weights: Vec<f64> = (first..end).map(weight).collect();
        let sum: f64 = weights.iter().sum();
        Kernel { first, weights: weights.into_iter().map(|weight| fixed(weight / sum)).collect() }
    };
    (0..output).map(kernel).collect()
}

/// Half away from zero.
fn fixed(weight: f64) -> i32 {
    (weight * f64::from(1 << PRECISION)).round() as i32
}

/// Keys's cubic convolution with a = −0.5.
fn cubic(x: f64) -> f64 {
    const A: f64 = -0.5;
    let x = x.abs();
    if x < 1.0 {
        ((A + 2.0) * x - (A + 3.0)) * x * x + 1.0
    } else if x < 2.0 {
        (((x - 5.0) * x + 8.0) * x - 4.0) * A
    } else {
        0.0
    }
}
