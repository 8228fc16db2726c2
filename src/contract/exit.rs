//! Exit codes of workers. Pure, no I/O.
//!
//! 0 means that the task was done, whatever the verdict; 10 to 19 that another attempt would end the same; anything else
//! is worth another attempt.

use super::Reason;

/// The task was done.
pub const DONE: u8 = 0;
/// Another attempt may succeed.
pub const RETRY: u8 = 1;
/// The task or the spec cannot be carried out.
pub const BAD_REQUEST: u8 = 10;
/// The source, or a part of it, does not exist.
pub const NOT_FOUND: u8 = 11;
/// The storage refuses the credentials.
pub const ACCESS_DENIED: u8 = 12;
/// The volume is too small or full.
pub const NO_SPACE: u8 = 13;
/// The bytes are wrong, also after they were fetched again.
pub const CORRUPT: u8 = 14;
/// The source is no longer what was inspected.
pub const SOURCE_CHANGED: u8 = 15;
/// Something that is not ours is in the way.
pub const CONFLICT: u8 = 16;

/// All codes that mean "do not try again as it is", for the Job's failure policy.
pub const TERMINAL: [i32; 10] = [10, 11, 12, 13, 14, 15, 16, 17, 18, 19];

/// The code of a task that failed for this reason.
#[must_use]
pub fn code(reason: Reason) -> u8 {
    match reason {
        Reason::NotFound | Reason::Empty | Reason::Incomplete => NOT_FOUND,
        Reason::AccessDenied => ACCESS_DENIED,
        Reason::InsufficientSpace => NO_SPACE,
        Reason::Corrupt | Reason::DigestMismatch => CORRUPT,
        Reason::SourceChanged => SOURCE_CHANGED,
        Reason::ClaimConflict => CONFLICT,
        Reason::InvalidSpec | Reason::InvalidPath | Reason::InsecureEndpoint | Reason::TlsFailed => BAD_REQUEST,
        _ => RETRY,
    }
}
