//! What the fuzz targets have in common: an allocator that knows how much is held, and the suite's subjects. No I/O.

#[path = "suite/mod.rs"]
pub mod suite;

use peak_alloc::PeakAlloc;

#[doc(hidden)]
pub use libfuzzer_sys;

#[global_allocator]
static MEMORY: PeakAlloc = PeakAlloc;

/// Gives the bytes to the subject of this name, and holds its memory against its bound.
///
/// # Panics
/// When a property does not hold: that is what is searched for.
pub fn run(target: &str, bytes: &[u8]) {
    let subject = suite::subject(target).expect("every target is in the table of subjects");
    let before = MEMORY.current_usage();
    MEMORY.reset_peak_usage();
    suite::check(subject, bytes);
    let held = MEMORY.peak_usage().saturating_sub(before);
    let bound = subject.memory << 20;
    assert!(held <= bound, "{held} bytes were held for an input of {}, more than {bound}", bytes.len());
}

/// The whole of a target: its name is that of its program.
#[macro_export]
macro_rules! target {
    () => {
        $crate::libfuzzer_sys::fuzz_target!(|bytes: &[u8]| $crate::run(env!("CARGO_BIN_NAME"), bytes));
    };
}
