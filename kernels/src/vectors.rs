//! Which of the CPU's vectors are used.

use std::sync::OnceLock;

/// Vectors of CPUs, from narrow to wide.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Vectors {
    /// What every CPU of its kind has, and its compiler takes for granted.
    Baseline,
    /// ARM: NEON with its dot products of bytes.
    NeonDot,
    /// x86-64: AVX2, FMA and F16C.
    Avx2,
    /// The dot products of bytes, too.
    AvxVnni,
    /// AVX-512 F, BW, DQ and VL.
    Avx512,
}

static CHOSEN: OnceLock<Vectors> = OnceLock::new();

/// Uses no wider vectors than these: to compare, and to test what other CPUs compute. `false` when ops have run already; then it
/// stays as it is. Without it the widest are used.
pub fn use_vectors(widest: Vectors) -> bool {
    CHOSEN.set(detect(widest)).is_ok()
}

/// The widest to use. The CPU has them.
pub(crate) fn vectors() -> Vectors {
    *CHOSEN.get_or_init(|| detect(Vectors::Avx512))
}

fn detect(widest: Vectors) -> Vectors {
    let all = [Vectors::Avx512, Vectors::AvxVnni, Vectors::Avx2, Vectors::NeonDot];
    all.into_iter().find(|vectors| *vectors <= widest && has(*vectors)).unwrap_or(Vectors::Baseline)
}

#[cfg(target_arch = "x86_64")]
fn has(vectors: Vectors) -> bool {
    let avx2 = is_x86_feature_detected!("avx2")
        && is_x86_feature_detected!("fma")
        && is_x86_feature_detected!("f16c");
    avx2 && match vectors {
        Vectors::Baseline | Vectors::NeonDot => false,
        Vectors::Avx2 => true,
        Vectors::AvxVnni => is_x86_feature_detected!("avxvnni"),
        Vectors::Avx512 => {
            is_x86_feature_detected!("avx512f")
                && is_x86_feature_detected!("avx512bw")
                && is_x86_feature_detected!("avx512dq")
                && is_x86_feature_detected!("avx512vl")
        }
    }
}

#[cfg(target_arch = "aarch64")]
fn has(vectors: Vectors) -> bool {
    vectors == Vectors::NeonDot && std::arch::is_aarch64_feature_detected!("dotprod")
}

#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
fn has(_: Vectors) -> bool {
    false
}
