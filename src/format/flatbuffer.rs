//! Walks `FlatBuffers` table by table within bounds, and over what does not matter without reading it (`FlatBuffers` internals,
//! "Encoding"). The library's own verifier needs the whole file in memory. Pure, no I/O.

use std::ops::Range;

use super::window::{Parsed, Stop, Window};

/// The most tables and vectors of one file.
const THINGS: u64 = 4_000_000;

/// Counts what is visited in a file.
#[derive(Debug, Default)]
pub(super) struct Budget(u64);

/// A table, by where its fields lie.
pub(super) struct Table<'a, 'w> {
    window: &'a Window<'w>,
    at: u64,
    /// Where its list of fields lies.
    fields: Range<u64>,
    /// Its length in bytes.
    length: u64,
}

/// Elements that lie one behind the other.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct Vector {
    /// Where the first one begins.
    pub at: u64,
    /// How many there are.
    pub count: u64,
}

/// The first table, whose place stands at the very beginning.
pub(super) fn root<'a, 'w>(window: &'a Window<'w>, budget: &mut Budget) -> Parsed<Table<'a, 'w>> {
    table(window, follow(window, 0)?, budget)
}

fn follow(window: &Window<'_>, at: u64) -> Parsed<u64> {
    let distance = u64::from(u32::from_le_bytes(window.array(at)?));
    if distance == 0 {
        return Err(Stop::Bad(format!("the reference at byte {at} leads nowhere")));
    }
    Ok(at + distance)
}

fn table<'a, 'w>(window: &'a Window<'w>, at: u64, budget: &mut Budget) -> Parsed<Table<'a, 'w>> {
    budget.0 += 1;
    if budget.0 > THINGS {
        return Err(Stop::TooLarge(format!("it has more than {THINGS} tables and vectors")));
    }
    let distance = i64::from(i32::from_le_bytes(window.array(at)?));
    let damaged = || Stop::Bad(format!("the table at byte {at} is damaged"));
    let fields_at = at.checked_add_signed(-distance).ok_or_else(damaged)?;
    let [size, length] = [fields_at, fields_at.saturating_add(2)].map(|at| window.array(at).map(u16::from_le_bytes));
    let (size, length) = (u64::from(size?), u64::from(length?));
    if size < 4 || size % 2 != 0 || length < 4 {
        return Err(damaged());
    }
    window.part(fields_at..fields_at + size)?;
    window.part(at..at + length)?;
    Ok(Table { window, at, fields: fields_at..fields_at + size, length })
}

impl<'a, 'w> Table<'a, 'w> {
    /// Where a field of so many bytes lies; none when the table is without it. `slot` counts fields from 0.
    fn field(&self, slot: u64, bytes: u64) -> Parsed<Option<u64>> {
        let entry = self.fields.start + 4 + 2 * slot;
        if entry + 2 > self.fields.end {
            return Ok(None);
        }
        let offset = u64::from(u16::from_le_bytes(self.window.array(entry)?));
        if offset == 0 {
            return Ok(None);
        }
        if offset < 4 || offset + bytes > self.length {
            return Err(Stop::Bad(format!("field {slot} of the table at byte {} lies outside of it", self.at)));
        }
        Ok(Some(self.at + offset))
    }

    /// A whole number of so many bytes; none when it is left out, which means its default.
    pub fn number<const N: usize>(&self, slot: u64) -> Parsed<Option<u64>> {
        let Some(at) = self.field(slot, N as u64)? else { return Ok(None) };
        let bytes = self.window.array::<N>(at)?;
        Ok(Some(bytes.iter().rev().fold(0, |number, byte| number << 8 | u64::from(*byte))))
    }

    /// A vector of elements of so many bytes, which lie within the file.
    pub fn vector(&self, slot: u64, bytes: u64, budget: &mut Budget) -> Parsed<Option<Vector>> {
        let Some(field) = self.field(slot, 4)? else { return Ok(None) };
        budget.0 += 1;
        let at = follow(self.window, field)?;
        let count = u64::from(u32::from_le_bytes(self.window.array(at)?));
        self.window.part(at + 4..at + 4 + count * bytes)?;
        Ok(Some(Vector { at: at + 4, count }))
    }

    /// A text, bounded.
    pub fn text(&self, slot: u64, budget: &mut Budget) -> Parsed<Option<String>> {
        let Some(vector) = self.vector(slot, 1, budget)? else { return Ok(None) };
        let bytes = self.window.bytes(vector.at..vector.at + vector.count.min(4096))?;
        Ok(Some(String::from_utf8_lossy(bytes).into_owned()))
    }

    /// Calls `take` for each table of a vector, and says how many there are.
    pub fn tables(
        &self,
        slot: u64,
        budget: &mut Budget,
        mut take: impl FnMut(&Table<'a, 'w>, &mut Budget) -> Parsed<()>,
    ) -> Parsed<u64> {
        let Some(vector) = self.vector(slot, 4, budget)? else { return Ok(0) };
        for number in 0..vector.count {
            let at = follow(self.window, vector.at + 4 * number)?;
            take(&table(self.window, at, budget)?, budget)?;
        }
        Ok(vector.count)
    }

    /// A table in a field.
    pub fn table(&self, slot: u64, budget: &mut Budget) -> Parsed<Option<Table<'a, 'w>>> {
        let Some(field) = self.field(slot, 4)? else { return Ok(None) };
        table(self.window, follow(self.window, field)?, budget).map(Some)
    }

    /// The numbers of a vector of four bytes each; at most `limit`.
    pub fn integers(&self, slot: u64, limit: u64, budget: &mut Budget) -> Parsed<Option<Vec<i32>>> {
        let Some(vector) = self.vector(slot, 4, budget)? else { return Ok(None) };
        if vector.count > limit {
            return Err(Stop::Bad(format!(
                "the list at byte {} has {} numbers, more than {limit}",
                vector.at, vector.count
            )));
        }
        budget.0 += vector.count / 8;
        let bytes = self.window.bytes(vector.at..vector.at + 4 * vector.count)?;
        Ok(Some(bytes.as_chunks().0.iter().map(|number| i32::from_le_bytes(*number)).collect()))
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// A value of a table's field.
    pub enum Field {
        U8(u8),
        U32(u32),
        U64(u64),
        Text(&'static str),
        Bytes(Vec<u8>),
        Numbers(Vec<i32>),
        Tables(Vec<Vec<(u16, Field)>>),
    }

    /// A file with this root; references go forward, as they must.
    pub fn file(identifier: [u8; 4], root: &[(u16, Field)]) -> Vec<u8> {
        let mut bytes = [[0; 4], identifier].concat();
        let at = add_table(&mut bytes, root);
        refer(&mut bytes, 0, at);
        bytes
    }

    fn refer(bytes: &mut [u8], from: usize, to: usize) {
        bytes[from..from + 4].copy_from_slice(&u32::try_from(to - from).unwrap().to_le_bytes());
    }

    fn add_table(bytes: &mut Vec<u8>, fields: &[(u16, Field)]) -> usize {
        let slots = fields.iter().map(|(slot, _)| slot + 1).max().unwrap_or(0);
        let vtable = bytes.len();
        let size = 4 + 2 * slots;
        bytes.extend(size.to_le_bytes());
        bytes.extend(u16::try_from(4 + 8 * fields.len()).unwrap().to_le_bytes());
        bytes.resize(vtable + usize::from(size), 0);
        let table = bytes.len();
        bytes.extend(i32::try_from(table - vtable).unwrap().to_le_bytes());
        bytes.resize(table + 4 + 8 * fields.len(), 0);
        for (position, (slot, field)) in fields.iter().enumerate() {
            let at = table + 4 + 8 * position;
            let entry = vtable + 4 + 2 * usize::from(*slot);
            bytes[entry..entry + 2].copy_from_slice(&u16::try_from(at - table).unwrap().to_le_bytes());
            match field {
                Field::U8(number) => bytes[at] = *number,
                Field::U32(number) => bytes[at..at + 4].copy_from_slice(&number.to_le_bytes()),
                Field::U64(number) => bytes[at..at + 8].copy_from_slice(&number.to_le_bytes()),
                _ => {
                    let to = bytes.len();
                    refer(bytes, at, to);
                    add_vector(bytes, field);
                }
            }
        }
        table
    }

    fn add_vector(bytes: &mut Vec<u8>, field: &Field) {
        let count = |length: usize| u32::try_from(length).unwrap().to_le_bytes();
        match field {
            Field::Text(text) => {
                bytes.extend(count(text.len()));
                bytes.extend(text.as_bytes());
            }
            Field::Bytes(content) => {
                bytes.extend(count(content.len()));
                bytes.extend(content);
            }
            Field::Numbers(numbers) => {
                bytes.extend(count(numbers.len()));
                bytes.extend(numbers.iter().flat_map(|number| number.to_le_bytes()));
            }
            Field::Tables(tables) => {
                bytes.extend(count(tables.len()));
                let list = bytes.len();
                bytes.resize(list + 4 * tables.len(), 0);
                for (number, fields) in tables.iter().enumerate() {
                    let to = add_table(bytes, fields);
                    refer(bytes, list + 4 * number, to);
                }
            }
            _ => unreachable!(),
        }
    }

    #[test]
    fn fields_are_found_or_left_out() {
        let bytes = file(*b"TEST", &[(0, Field::U32(7)), (2, Field::Text("abc")), (3, Field::Numbers(vec![1, -2]))]);
        let (window, mut budget) = (Window::of_bytes(&bytes), Budget::default());
        let root = root(&window, &mut budget).unwrap();
        assert_eq!(root.number::<4>(0), Ok(Some(7)));
        assert_eq!((root.number::<4>(1), root.number::<4>(9)), (Ok(None), Ok(None)));
        assert_eq!(root.text(2, &mut budget), Ok(Some("abc".to_owned())));
        assert_eq!(root.integers(3, 9, &mut budget), Ok(Some(vec![1, -2])));
        assert!(root.integers(3, 1, &mut budget).is_err());
    }
}
