//! A JSON object from the manifest, as our own encoder wrote it. Pure, no I/O.

use super::table::Family;
use crate::contract::Format;

/// Only a source that is inline is one: in any other place the same names may hold anything.
pub(super) const FAMILY: Family = Family {
    format: Format::Dict,
    claims: |evidence| evidence.inline,
    judged: "inline data of the manifest, as it is",
    ..Family::of(Format::Dict)
};
