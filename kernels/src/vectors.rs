//! Which of the CPU's vectors are used.

use std::sync::OnceLock;

/// Vectors of x86-64 CPUs, from narrow to wide. Other CPUs have what their compiler takes for granted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Vectors {
    /// What every CPU of its kind has.
    Baseline,
    /// AVX2, FMA and F16C.
    Avx2,
    /// AVX-512 F, BW, DQ and VL, too.
    Avx512,
}

static CHOSEN: OnceLock<Vectors> = OnceLock::new();

/// Uses no wider vectors than these: to compare, and to test what other CPUs compute. `false` when ops have run already; then it
/// stays as it is. Without it the widest are used.
pub fn use_vectors(widest: Vectors) -> bool {
    CHOSEN.set(detect().min(widest)).is_ok()
}

/// The widest to use. The CPU has them.
pub(crate) fn vectors() -> Vectors {
    *CHOSEN.get_or_init(detect)
}

fn detect() -> Vectors {
    #[cfg(target_arch = "x86_64")]
    {
        let avx2 = is_x86_feature_detected!("avx2")
            && is_x86_feature_detected!("fma")
            && is_x86_feature_detected!("f16c");
        let avx512 = is_x86_feature_detected!("avx512f")
            && is_x86_feature_detected!("avx512bw")
            && is_x86_feature_detected!("avx512dq")
            && is_x86_feature_detected!("avx512vl");
        if avx2 {
            return if avx512 { Vectors::Avx512 } else { Vectors::Avx2 };
        }
    }
    Vectors::Baseline
}
