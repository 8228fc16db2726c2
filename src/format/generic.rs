//! Any other folder: names and sizes are all there is to judge. Pure, no I/O.

use super::table::Family;
use crate::contract::Format;

/// What no other format claims.
pub(super) const FAMILY: Family =
    Family { format: Format::Generic, claims: |_| true, probe: |_, _| None, check: |_, _| {}, describe: |_, _| {} };
