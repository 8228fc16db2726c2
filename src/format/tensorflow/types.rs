//! Data types of TensorFlow (2.21, `types.proto`). Pure, no I/O.

/// The name of types whose elements are texts.
pub(super) const TEXT: &str = "text";
/// `DT_INT32`
pub(super) const INT32: u64 = 3;
/// `DT_INT64`
pub(super) const INT64: u64 = 9;

/// A data type.
#[derive(Debug, Eq, PartialEq)]
pub(super) struct Type {
    number: u64,
    /// As other formats name it.
    pub name: &'static str,
    /// Bytes of an element; 0 where it varies.
    pub bytes: u64,
}

const fn of_size(number: u64, name: &'static str, bytes: u64) -> Type {
    Type { number, name, bytes }
}

/// In the order of their numbers, from 1. Elements of less than a byte take one in files.
static TYPES: [Type; 33] = [
    of_size(1, "F32", 4),
    of_size(2, "F64", 8),
    of_size(INT32, "I32", 4),
    of_size(4, "U8", 1),
    of_size(5, "I16", 2),
    of_size(6, "I8", 1),
    of_size(7, TEXT, 0),
    of_size(8, "C64", 8),
    of_size(INT64, "I64", 8),
    of_size(10, "BOOL", 1),
    of_size(11, "QI8", 1),
    of_size(12, "QU8", 1),
    of_size(13, "QI32", 4),
    of_size(14, "BF16", 2),
    of_size(15, "QI16", 2),
    of_size(16, "QU16", 2),
    of_size(17, "U16", 2),
    of_size(18, "C128", 16),
    of_size(19, "F16", 2),
    of_size(20, "resource", 0),
    of_size(21, "variant", 0),
    of_size(22, "U32", 4),
    of_size(23, "U64", 8),
    of_size(24, "F8_E5M2", 1),
    of_size(25, "F8_E4M3", 1),
    of_size(26, "F8_E4M3FNUZ", 1),
    of_size(27, "F8_E4M3B11FNUZ", 1),
    of_size(28, "F8_E5M2FNUZ", 1),
    of_size(29, "I4", 1),
    of_size(30, "U4", 1),
    of_size(31, "I2", 1),
    of_size(32, "U2", 1),
    of_size(33, "F4", 1),
];

/// The type of a number.
pub(super) fn of(number: u64) -> Option<&'static Type> {
    TYPES.iter().find(|kind| kind.number == number)
}
