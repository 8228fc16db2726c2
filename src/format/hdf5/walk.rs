//! Walks the groups of an HDF5 file and counts its datasets (HDF5 file format 3.0, sections III.A to III.D and IV.A.2). What it
//! cannot follow (dense groups, types and layouts of other versions) makes the count partial, not the file bad. Pure, no I/O.

use std::collections::BTreeSet;

use super::{
    super::{
        counts::Counts,
        names,
        window::{Parsed, Stop, Window},
    },
    object::{self, Cursor, Message, UNDEFINED},
    values,
};

/// The most links of a group's node, and of one name, in bytes.
const NAME: u64 = 4 << 10;
/// Nodes in nodes, and groups in groups, so deep.
const DEPTH: u32 = 64;

/// What is still to be looked at.
#[derive(Clone, Debug)]
enum Item {
    /// An object, and whether it belongs to an optimizer.
    Object { address: u64, name: String, training: bool, depth: u32 },
    /// A node of a group's tree, and the heap with the names.
    Node { address: u64, heap: u64, training: bool, depth: u32 },
}

/// Goes from object to object; what was done stays done when bytes are missing.
#[derive(Debug, Default)]
pub(super) struct Walk {
    open: Vec<Item>,
    seen: BTreeSet<u64>,
    /// How many objects and nodes may still be looked at.
    left: u32,
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
        Self { open: vec![item], left, ..Self::default() }
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
            self.commit(found);
            self.left = self.left.saturating_sub(1);
            if self.left == 0 && !self.open.is_empty() {
                self.partial = true;
                self.open.clear();
            }
        }
        Ok(())
    }

    fn commit(&mut self, found: Found) {
        if let Some((dtype, elements)) = found.dataset {
            self.counts.add(dtype, elements);
        }
        self.partial |= found.partial;
        if self.outside.len() < 16 {
            self.outside.extend(found.outside);
        }
        self.open.extend(found.next);
    }
}

/// What one step finds.
#[derive(Default)]
struct Found {
    next: Vec<Item>,
    dataset: Option<(&'static str, u64)>,
    outside: Vec<String>,
    partial: bool,
}

impl Found {
    fn object(&mut self, window: &Window<'_>, address: u64, name: &str, training: bool, depth: u32) -> Parsed<()> {
        if depth > DEPTH {
            self.partial = true;
            return Ok(());
        }
        let messages = object::messages(window, address)?;
        let (mut kind, mut shape, mut layout) = (None, None, None);
        for message in &messages {
            match message.kind {
                1 if !message.shared => shape = Some(values::elements(window, &message.content)?),
                3 if message.shared => self.partial = true,
                3 => kind = Some(values::data_type(window, &message.content)?),
                2 => self.partial |= is_dense(window, message)?,
                6 => self.link(window, message, training, depth)?,
                7 => self.outside.push(format!("data of {name:?} in another file")),
                8 => layout = Some(message),
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

/// A link info message: whether links lie in a heap of their own, which is not followed.
fn is_dense(window: &Window<'_>, message: &Message) -> Parsed<bool> {
    let mut cursor = Cursor::new(window, &message.content);
    cursor.skip(1)?;
    let flags = cursor.number(1)?;
    cursor.skip(if flags & 1 == 0 { 0 } else { 8 })?;
    Ok(cursor.number(8)? != UNDEFINED)
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
