//! The innermost loops, each compiled for any CPU, for AVX2 and for AVX-512, chosen when called.
//!
//! The bodies are plain Rust that LLVM turns into vector code; hand-written SIMD has its place here too.

/// Defines functions whose body exists three times: for the baseline CPU, for AVX2 and for AVX-512.
macro_rules! vectorized {
    ($($(#[$meta:meta])* fn $name:ident($($arg:ident: $ty:ty),* $(,)?) $(-> $ret:ty)? $body:block)*) => {$(
        $(#[$meta])*
        #[inline]
        pub(crate) fn $name($($arg: $ty),*) $(-> $ret)? {
            // Only an inlined body takes on the CPU features of its caller.
            #[inline(always)]
            fn body($($arg: $ty),*) $(-> $ret)? $body

            #[cfg(target_arch = "x86_64")]
            {
                #[target_feature(enable = "avx2,fma,f16c")]
                fn wide($($arg: $ty),*) $(-> $ret)? { body($($arg),*) }

                #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c")]
                fn widest($($arg: $ty),*) $(-> $ret)? { body($($arg),*) }

                #[expect(unsafe_code, reason = "calls code compiled for a CPU feature")]
                // SAFETY: this CPU has the features that `wide` and `widest` are compiled for.
                match $crate::vectors::vectors() {
                    $crate::vectors::Vectors::Avx512 => return unsafe { widest($($arg),*) },
                    $crate::vectors::Vectors::Avx2 | $crate::vectors::Vectors::AvxVnni => return unsafe { wide($($arg),*) },
                    $crate::vectors::Vectors::Baseline | $crate::vectors::Vectors::NeonDot => {}
                }
            }
            body($($arg),*)
        }
    )*};
}
pub(crate) use vectorized;

/// Independent partial results of a reduction: enough to hide the latency of an addition.
const LANES: usize = 16;

/// Combines partial results by halves.
///
/// A call on purpose: the lanes then pass through memory as one block. Inlined, the last halves, which are two numbers
/// wide, made LLVM compute the whole loop before them two numbers at a time.
#[inline(never)]
fn fold_lanes(lanes: &mut [f32; LANES], combine: impl Fn(f32, f32) -> f32) -> f32 {
    let mut width = LANES;
    while width > 1 {
        width /= 2;
        for lane in 0..width {
            lanes[lane] = combine(lanes[lane], lanes[lane + width]);
        }
    }
    lanes[0]
}

#[expect(clippy::inline_always, reason = "must be compiled for the CPU features of its caller")]
#[inline(always)]
fn dot_inlined(a: &[f32], b: &[f32]) -> f32 {
    let mut sums = [0.0_f32; LANES];
    let (a_blocks, b_blocks) = (a.chunks_exact(LANES), b.chunks_exact(LANES));
    let tail: f32 = a_blocks.remainder().iter().zip(b_blocks.remainder()).map(|(x, y)| x * y).sum();
    for (x, y) in a_blocks.zip(b_blocks) {
        for lane in 0..LANES {
            sums[lane] += x[lane] * y[lane];
        }
    }
    fold_lanes(&mut sums, |a, b| a + b) + tail
}

#[expect(clippy::inline_always, reason = "must be compiled for the CPU features of its caller")]
#[inline(always)]
fn add_scaled_inlined(y: &mut [f32], a: f32, x: &[f32]) {
    for (y, x) in y.iter_mut().zip(x) {
        *y += a * x;
    }
}

vectorized! {
    /// `Σ a[i] * b[i]` over two slices of the same length.
    fn dot(a: &[f32], b: &[f32]) -> f32 {
        dot_inlined(a, b)
    }

    /// `y[i] += a * x[i]`.
    fn add_scaled(y: &mut [f32], a: f32, x: &[f32]) {
        add_scaled_inlined(y, a, x);
    }

    /// `y[i] *= a`.
    fn scale(y: &mut [f32], a: f32) {
        for y in y {
            *y *= a;
        }
    }

    /// `Σ x[i]`.
    fn sum(x: &[f32]) -> f32 {
        let blocks = x.chunks_exact(LANES);
        let tail: f32 = blocks.remainder().iter().sum();
        let mut sums = [0.0; LANES];
        for block in blocks {
            for lane in 0..LANES {
                sums[lane] += block[lane];
            }
        }
        fold_lanes(&mut sums, |a, b| a + b) + tail
    }

    /// The largest of `x` and `start`. NaN is passed over.
    fn largest(x: &[f32], start: f32) -> f32 {
        let larger = |a: f32, b: f32| if b > a { b } else { a };
        let blocks = x.chunks_exact(LANES);
        let tail = blocks.remainder().iter().fold(start, |a, b| larger(a, *b));
        let mut lanes = [start; LANES];
        for block in blocks {
            for lane in 0..LANES {
                lanes[lane] = larger(lanes[lane], block[lane]);
            }
        }
        larger(fold_lanes(&mut lanes, larger), tail)
    }
}
