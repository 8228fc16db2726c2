//! Looks into a FlatBuffer without a schema: tables, vectors and texts by their number (FlatBuffers binary format). Pure, no I/O.

use std::ops::Range;

use crate::format::window::{Parsed, Stop, Window};

/// A buffer within a window.
#[derive(Clone, Copy)]
pub(super) struct Buffer<'a, 'w>(pub &'a Window<'w>);

/// A table of it, by its position.
#[derive(Clone, Copy)]
pub(super) struct Table {
    at: u64,
    vtable: u64,
    vtable_size: u64,
}

/// A vector: where its elements begin, and how many there are.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Vector {
    pub at: u64,
    pub length: u64,
}

impl Buffer<'_, '_> {
    fn u16(self, at: u64) -> Parsed<u64> {
        Ok(u64::from(u16::from_le_bytes(self.0.array(at)?)))
    }

    pub fn u32(self, at: u64) -> Parsed<u64> {
        Ok(u64::from(u32::from_le_bytes(self.0.array(at)?)))
    }

    /// The table that the buffer begins with.
    pub fn root(self) -> Parsed<Table> {
        let at = self.u32(0)?;
        self.table(at)
    }

    fn table(self, at: u64) -> Parsed<Table> {
        let back = i64::from(i32::from_le_bytes(self.0.array(at)?));
        let vtable = at.checked_add_signed(-back);
        let vtable = vtable.ok_or_else(|| Stop::Bad(format!("the table at byte {at} has no description")))?;
        let vtable_size = self.u16(vtable)?;
        if vtable_size < 4 {
            return Err(Stop::Bad(format!("the table at byte {at} has an impossible description")));
        }
        Ok(Table { at, vtable, vtable_size })
    }

    /// Where a member of a table lies; none when it is left out.
    pub fn member(self, table: Table, number: u64) -> Parsed<Option<u64>> {
        let slot = 4 + 2 * number;
        if slot + 2 > table.vtable_size {
            return Ok(None);
        }
        let offset = self.u16(table.vtable + slot)?;
        Ok((offset > 0).then_some(table.at + offset))
    }

    /// Where a member that is stored elsewhere lies.
    pub fn follow(self, table: Table, number: u64) -> Parsed<Option<u64>> {
        let Some(at) = self.member(table, number)? else { return Ok(None) };
        Ok(Some(at + self.u32(at)?))
    }

    /// A member that is a table.
    pub fn table_member(self, table: Table, number: u64) -> Parsed<Option<Table>> {
        self.follow(table, number)?.map(|at| self.table(at)).transpose()
    }

    /// A member that is a vector of elements of this width, within the buffer.
    pub fn vector(self, table: Table, number: u64, width: u64) -> Parsed<Option<Vector>> {
        self.follow(table, number)?.map(|at| self.vector_at(at, width)).transpose()
    }

    fn vector_at(self, at: u64, width: u64) -> Parsed<Vector> {
        let length = self.u32(at)?;
        let begin = at + 4;
        if begin.saturating_add(length.saturating_mul(width)) > self.0.len() {
            return Err(Stop::Bad(format!("the list at byte {at} goes on behind the end of its buffer")));
        }
        Ok(Vector { at: begin, length })
    }

    /// An element of a vector of tables.
    pub fn table_of(self, vector: Vector, index: u64) -> Parsed<Table> {
        let at = vector.at + 4 * index;
        self.table(at + self.u32(at)?)
    }

    /// An element of a vector of texts.
    pub fn text_of(self, vector: Vector, index: u64) -> Parsed<Range<u64>> {
        let at = vector.at + 4 * index;
        let text = self.vector_at(at + self.u32(at)?, 1)?;
        Ok(text.at..text.at + text.length)
    }

    /// A member that is text; of what is longer than `limit`, only the beginning.
    pub fn text(self, table: Table, number: u64, limit: u64) -> Parsed<String> {
        let Some(text) = self.vector(table, number, 1)? else { return Ok(String::new()) };
        let bytes = self.0.bytes(text.at..text.at + text.length.min(limit))?;
        Ok(String::from_utf8_lossy(bytes).into_owned())
    }
}
