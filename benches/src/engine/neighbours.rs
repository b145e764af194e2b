//! Other work on the same cores.

use std::{
    hint::black_box,
    sync::atomic::{AtomicBool, Ordering::Relaxed},
    thread,
};

use core_affinity::{get_core_ids, set_for_current};

/// Calls `run` while a thread on each of the first `count` cores computes without a pause.
pub(super) fn beside<T>(count: usize, run: impl FnOnce() -> T) -> T {
    let over = AtomicBool::new(false);
    thread::scope(|scope| {
        for core in get_core_ids().unwrap_or_default().into_iter().take(count) {
            let over = &over;
            scope.spawn(move || {
                set_for_current(core);
                let mut number = 0_u64;
                while !over.load(Relaxed) {
                    number = black_box(number.wrapping_add(1));
                }
            });
        }
        let _end = End(&over);
        run()
    })
}

/// Ends the neighbours even when what they disturb panics: the scope waits for them.
struct End<'a>(&'a AtomicBool);

impl Drop for End<'_> {
    fn drop(&mut self) {
        self.0.store(true, Relaxed);
    }
}
