//! Which of the CPU's vectors are used.

use std::sync::OnceLock;

/// Vectors of x86-64 CPUs, from narrow to wide. Other CPUs have what their compiler takes for granted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Vectors {
    /// What every CPU of its kind has.
    Baseline,
    /// AVX2, FMA and F16C.
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
    let all = [Vectors::Avx512, Vectors::AvxVnni, Vectors::Avx2];
    all.into_iter().find(|vectors| *vectors <= widest && has(*vectors)).unwrap_or(Vectors::Baseline)
}

#[cfg(target_arch = "x86_64")]
fn has(vectors: Vectors) -> bool {
    let avx2 = is_x86_feature_detected!("avx2")
        && is_x86_feature_detected!("fma")
        && is_x86_feature_detected!("f16c");
    avx2 && match vectors {
        Vectors::Baseline | Vectors::Avx2 => true,
        Vectors::AvxVnni => is_x86_feature_detected!("avxvnni"),
        Vectors::Avx512 => {
            is_x86_feature_detected!("avx512f")
                && is_x86_feature_detected!("avx512bw")
                && is_x86_feature_detected!("avx512dq")
                && is_x86_feature_detected!("avx512vl")
        }
    }
}

#[cfg(not(target_arch = "x86_64"))]
fn has(_: Vectors) -> bool {
    false
}
