//! Walks the groups of an HDF5 file and counts its datasets (HDF5 file format 3.0, sections III.A to III.D and IV.A.2). What it
//! cannot follow (dense groups, types and layouts of other versions) makes the count partial, not the file bad. Pure, no I/O.

use std::collections::BTreeSet;

use super::{
    super::{
        counts::Counts,
        names,
        window::{Parsed, Stop, Window},
    },
    heap,
    object::{self, Cursor, Message, UNDEFINED},
    values,
};

/// The most links of a group's node, and of one name, in bytes.
const NAME: u64 = 4 << 10;
/// Nodes in nodes, and groups in groups, so deep.
const DEPTH: u32 = 64;
/// Messages and links that are read for every object that may be looked at: h5py writes some ten.
const EACH: u32 = 64;
/// Bytes of a heap that count as much as a link that is read.
const LINK: u64 = 512;
/// The class of the layout of a dataset that is put together from others.
const VIRTUAL: u64 = 3;

/// What is still to be looked at.
#[derive(Clone, Debug)]
enum Item {
    /// An object, and whether it belongs to an optimizer.
    Object { address: u64, name: String, training: bool, depth: u32 },
    /// A node of a group's tree, and the heap with the names.
    Node { address: u64, heap: u64, training: bool, depth: u32 },
}

impl Item {
    fn address(&self) -> u64 {
        match self {
            Self::Object { address, .. } | Self::Node { address, .. } => *address,
        }
    }
}

/// Goes from object to object; what was done stays done when bytes are missing.
#[derive(Debug, Default)]
pub(super) struct Walk {
    open: Vec<Item>,
    seen: BTreeSet<u64>,
    /// How many objects and nodes may still be looked at, and how many messages and links of them: objects may share their parts.
    left: u32,
    parts: u32,
    /// Weights.
    pub counts: Counts,
    /// Whether something could not be followed.
    pub partial: bool,
    /// Places outside of the file that it refers to.
    pub outside: BTreeSet<String>,
}

impl Walk {
    /// A walk from the root, over at most so many objects.
    pub fn new(root: u64, left: u32) -> Self {
        let item = Item::Object { address: root, name: String::new(), training: false, depth: 0 };
        Self { open: vec![item], left, parts: left.saturating_mul(EACH), ..Self::default() }
    }

    /// Goes on to the end.
    pub fn go_on(&mut self, window: &Window<'_>) -> Parsed<()> {
        while let Some(item) = self.open.last().cloned() {
            let mut found = Found::default();
            match &item {
                Item::Object { address, name, training, depth } => {
                    if self.seen.contains(address) {
                        self.open.pop();
                        continue;
                    }
                    found.object(window, *address, name, *training, *depth)?;
                    self.seen.insert(*address);
                }
                Item::Node { address, heap, training, depth } => {
                    if self.seen.insert(*address) {
                        let node = found.node(window, *address, *heap, *training, *depth);
                        if matches!(node, Err(Stop::Need(_))) {
                            self.seen.remove(address);
                        }
                        node?;
                    }
                }
            }
            self.open.pop();
            self.left = self.left.saturating_sub(1);
            self.commit(found);
        }
        Ok(())
    }

    /// Takes what a step found, and of what it names only as much as may still be looked at.
    fn commit(&mut self, found: Found) {
        if let Some((dtype, elements)) = found.dataset {
            self.counts.add(dtype, elements);
        }
        self.partial |= found.partial;
        if self.outside.len() < 16 {
            self.outside.extend(found.outside);
        }
        self.parts = self.parts.saturating_sub(found.parts);
        let new: Vec<Item> = found.next.into_iter().filter(|item| !self.seen.contains(&item.address())).collect();
        let left = if self.parts == 0 { 0 } else { self.left as usize };
        let room = left.saturating_sub(self.open.len());
        self.partial |= new.len() > room || self.open.len() > left;
        self.open.extend(new.into_iter().take(room));
        self.open.truncate(left);
    }
}

/// What one step finds.
#[derive(Default)]
struct Found {
    next: Vec<Item>,
    dataset: Option<(&'static str, u64)>,
    outside: Vec<String>,
    partial: bool,
    /// How many messages and links were read.
    parts: u32,
}

impl Found {
    fn object(&mut self, window: &Window<'_>, address: u64, name: &str, training: bool, depth: u32) -> Parsed<()> {
        if depth > DEPTH {
            self.partial = true;
            return Ok(());
        }
        let messages = object::messages(window, address)?;
        self.parts = u32::try_from(messages.len()).unwrap_or(u32::MAX);
        let (mut kind, mut shape, mut layout) = (None, None, None);
        for message in &messages {
            match message.kind {
                1 if !message.shared => shape = Some(values::elements(window, &message.content)?),
                3 if message.shared => self.partial = true,
                3 => kind = Some(values::data_type(window, &message.content)?),
                2 => {
                    if let Some(heap) = dense(window, message)? {
                        self.partial = true;
                        self.links_of(window, heap)?;
                    }
                }
                6 => self.link(window, message, training, depth)?,
                7 => self.outside.push(format!("data of {name:?} in another file")),
                8 => {
                    if class(window, message)? == VIRTUAL {
                        self.outside.push(format!("data of {name:?} in other files (a virtual dataset)"));
                    }
                    layout = Some(message);
                }
                0x11 => {
                    let mut cursor = Cursor::new(window, &message.content);
                    let (address, heap) = (cursor.number(8)?, cursor.number(8)?);
                    self.next.push(Item::Node { address, heap, training, depth });
                }
                _ => {}
            }
        }
        let (Some(kind), Some(shape), Some(layout)) = (kind, shape, layout) else { return Ok(()) };
        let elements = shape.ok_or_else(|| Stop::Bad(format!("its dataset {name:?} has an impossible shape")))?;
        let bytes = elements.checked_mul(kind.size);
        let bytes = bytes.ok_or_else(|| Stop::Bad(format!("its dataset {name:?} has an impossible shape")))?;
        let inside = self.outside.is_empty();
        if inside {
            place(window, layout, name, bytes)?;
        }
        if !training && kind.name != "text" {
            self.dataset = Some((kind.name, elements));
        }
        Ok(())
    }

    fn add(&mut self, name: &str, address: u64, training: bool, depth: u32) {
        // Keras keeps the optimizer's state beside the weights.
        let training = training || (depth == 0 && matches!(name, "optimizer" | "optimizer_weights"));
        self.next.push(Item::Object { address, name: names::shown(name), training, depth: depth + 1 });
    }

    /// A link message: flags say which fields there are.
    fn link(&mut self, window: &Window<'_>, message: &Message, training: bool, depth: u32) -> Parsed<()> {
        let mut cursor = Cursor::new(window, &message.content);
        cursor.skip(1)?;
        let flags = cursor.number(1)?;
        let kind = if flags & 8 == 0 { 0 } else { cursor.number(1)? };
        cursor.skip(if flags & 4 == 0 { 0 } else { 8 } + u64::from(flags & 0x10 != 0))?;
        let length = cursor.number(1 << (flags & 3))?;
        let name = cursor.skip(length)?;
        let name = String::from_utf8_lossy(window.bytes(name.start..name.end.min(name.start + NAME))?).into_owned();
        match kind {
            0 => self.add(&name, cursor.number(8)?, training, depth),
            64 => self.outside.push(format!("a link {:?} to another file", names::shown(&name))),
            _ => {}
        }
        Ok(())
    }

    /// Links in a heap are not followed, but those to other files are told.
    fn links_of(&mut self, window: &Window<'_>, heap: u64) -> Parsed<()> {
        let mut searched = heap::BYTES;
        match heap::outside(window, heap) {
            Ok((names, bytes)) => {
                searched = bytes;
                self.outside.extend(names.iter().map(|name| format!("a link {name:?} to another file")));
            }
            Err(Stop::TooLarge(problem)) => self.outside.push(format!("links that were not read ({problem})")),
            Err(Stop::Bad(_)) => {}
            Err(stop) => return Err(stop),
        }
        // Groups may share a heap, which is then searched for each of them.
        let parts = u32::try_from(searched / LINK).unwrap_or(u32::MAX);
        self.parts = self.parts.saturating_add(parts);
        Ok(())
    }

    /// A node of a tree of links: a tree of its own or, on the lowest level, lists of links.
    fn node(&mut self, window: &Window<'_>, address: u64, heap: u64, training: bool, depth: u32) -> Parsed<()> {
        let mut cursor = Cursor::new(window, &(address.min(window.len())..window.len()));
        if window.bytes(address..address.saturating_add(4))? == b"SNOD" {
            return self.links(window, address, heap, training, depth);
        }
        cursor.expect(*b"TREE")?;
        let (kind, level, count) = (cursor.number(1)?, cursor.number(1)?, cursor.number(2)?);
        if kind != 0 || level > u64::from(DEPTH) {
            return Err(Stop::Bad(format!("the tree at byte {address} is no group's")));
        }
        cursor.skip(16)?;
        self.parts = u32::try_from(count).unwrap_or(u32::MAX);
        for _ in 0..count {
            cursor.skip(8)?;
            let address = cursor.number(8)?;
            self.next.push(Item::Node { address, heap, training, depth });
        }
        Ok(())
    }

    fn links(&mut self, window: &Window<'_>, address: u64, heap: u64, training: bool, depth: u32) -> Parsed<()> {
        let mut cursor = Cursor::new(window, &(heap.min(window.len())..window.len()));
        cursor.expect(*b"HEAP")?;
        cursor.skip(4)?;
        let size = cursor.number(8)?;
        cursor.skip(8)?;
        let names_at = cursor.number(8)?;
        let texts = window.part(names_at..names_at.saturating_add(size))?;
        let mut cursor = Cursor::new(window, &(address..window.len()));
        cursor.skip(6)?;
        let count = cursor.number(2)?;
        self.parts = u32::try_from(count).unwrap_or(u32::MAX);
        for _ in 0..count {
            let (name, target, cached) = (cursor.number(8)?, cursor.number(8)?, cursor.number(4)?);
            cursor.skip(20)?;
            let text = texts.up_to(name, NAME)?;
            let text = text.split(|byte| *byte == 0).next().unwrap_or_default();
            // A link by name (2) leads to what is reached in another way.
            if cached != 2 && target != UNDEFINED {
                self.add(&String::from_utf8_lossy(text), target, training, depth);
            }
        }
        Ok(())
    }
}

/// A link info message: the heap in which the links lie when they are many.
fn dense(window: &Window<'_>, message: &Message) -> Parsed<Option<u64>> {
    let mut cursor = Cursor::new(window, &message.content);
    cursor.skip(1)?;
    let flags = cursor.number(1)?;
    cursor.skip(if flags & 1 == 0 { 0 } else { 8 })?;
    Ok(Some(cursor.number(8)?).filter(|heap| *heap != UNDEFINED))
}

/// The class of a layout message; versions before 3 have the rank of the data in its place, and no virtual data.
fn class(window: &Window<'_>, layout: &Message) -> Parsed<u64> {
    let mut cursor = Cursor::new(window, &layout.content);
    let (version, class) = (cursor.number(1)?, cursor.number(1)?);
    Ok(if version < 4 { 0 } else { class })
}

/// A layout message: data in one piece lie within the file, as many bytes as the shape says.
fn place(window: &Window<'_>, layout: &Message, name: &str, bytes: u64) -> Parsed<()> {
    let mut cursor = Cursor::new(window, &layout.content);
    let (version, class) = (cursor.number(1)?, cursor.number(1)?);
    if !matches!((version, class), (3 | 4, 1)) {
        return Ok(());
    }
    let (address, size) = (cursor.number(8)?, cursor.number(8)?);
    if address == UNDEFINED {
        return Ok(());
    }
    if size != bytes {
        return Err(Stop::Bad(format!("its dataset {name:?} has {size} bytes, its shape says {bytes}")));
    }
    let end = address.saturating_add(size);
    if end <= window.len() {
        return Ok(());
    }
    Err(Stop::Bad(format!("its dataset {name:?} ends at byte {end}, the file at byte {}", window.len())))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn nodes(count: u64) -> Vec<Item> {
        (1..=count).map(|address| Item::Node { address, heap: 0, training: false, depth: 0 }).collect()
    }

    /// A node of a tree may name 65,535 others, each of which may be looked at.
    #[test]
    fn what_is_open_is_bounded() {
        let mut walk = Walk::new(0, 100);
        walk.open.clear();
        walk.commit(Found { next: nodes(60), ..Found::default() });
        assert_eq!((walk.open.len(), walk.partial), (60, false));
        walk.commit(Found { next: nodes(65_535), ..Found::default() });
        assert_eq!((walk.open.len(), walk.partial), (100, true));
    }

    #[test]
    fn messages_and_links_are_counted_too() {
        let mut walk = Walk::new(0, 100);
        walk.open = nodes(3);
        walk.commit(Found { parts: 100 * EACH - 1, ..Found::default() });
        assert_eq!((walk.open.len(), walk.partial), (3, false));
        walk.commit(Found { parts: 1, ..Found::default() });
        assert_eq!((walk.open.len(), walk.partial), (0, true));
    }
}
