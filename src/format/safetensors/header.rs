//! The header of a safetensors file, read as a stream: what is kept grows with the number of tensors, not with the text. No I/O.

use std::{mem, ops::Range};

use crate::format::{
    json::{Event, Sink},
    probe::quoted,
};

/// Data types of the reference reader (crate safetensors 0.8.0) and their sizes in bits.
pub(in crate::format) const DTYPES: [(&str, u64); 22] = [
    ("BOOL", 8),
    ("F4", 4),
    ("F6_E2M3", 6),
    ("F6_E3M2", 6),
    ("U8", 8),
    ("I8", 8),
    ("F8_E5M2", 8),
    ("F8_E4M3", 8),
    ("F8_E8M0", 8),
    ("F8_E4M3FNUZ", 8),
    ("F8_E5M2FNUZ", 8),
    ("I16", 16),
    ("U16", 16),
    ("F16", 16),
    ("BF16", 16),
    ("I32", 32),
    ("U32", 32),
    ("F32", 32),
    ("C64", 64),
    ("F64", 64),
    ("I64", 64),
    ("U64", 64),
];

/// A tensor's name as a hash, and where it stands.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(in crate::format) struct Name {
    /// The first half of the BLAKE3 of the name.
    pub hash: [u8; 16],
    /// Offset of its opening quote in the file.
    pub at: u32,
    /// Length with quotes and escapes, in bytes.
    pub length: u32,
}

impl Name {
    pub fn new(name: &str, token: &Range<u64>) -> Self {
        let mut hash = [0; 16];
        hash.copy_from_slice(&blake3::hash(name.as_bytes()).as_bytes()[..16]);
        let narrow = |number: u64| u32::try_from(number).unwrap_or(u32::MAX);
        Self { hash, at: narrow(token.start), length: narrow(token.end - token.start) }
    }

    /// Where it stands in the file.
    pub fn range(&self) -> Range<u64> {
        u64::from(self.at)..u64::from(self.at) + u64::from(self.length)
    }
}

/// A tensor as the header places it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Tensor {
    pub begin: u64,
    pub end: u64,
    pub name: Name,
}

/// Where in the header's JSON the reader is.
#[derive(Debug, Default)]
enum Place {
    #[default]
    Start,
    Names,
    EntryStart,
    Entry,
    Dtype,
    ShapeStart,
    Shape,
    OffsetsStart,
    Offsets(usize),
    Skip(u32),
    MetadataStart,
    Metadata,
    MetadataText {
        format: bool,
    },
    Done,
}

#[derive(Debug, Default)]
struct Entry {
    dtype: Option<usize>,
    elements: Option<u64>,
    offsets: Option<[u64; 2]>,
}

/// What the header says.
#[derive(Debug, Default)]
pub(super) struct Header {
    place: Place,
    name: String,
    token: Range<u64>,
    entry: Entry,
    numbers: [u64; 2],
    saw_metadata: bool,
    /// Tensors in the order of the header.
    pub tensors: Vec<Tensor>,
    /// Elements by data type, as in [`DTYPES`].
    pub elements: [u64; DTYPES.len()],
    /// `__metadata__.format`
    pub format: Option<String>,
}

impl Header {
    fn tensor(&self, problem: &str) -> String {
        format!("tensor {} {problem}", quoted(&self.name))
    }

    fn field(&mut self, name: &str) -> Result<Place, String> {
        let (place, taken) = match name {
            "dtype" => (Place::Dtype, self.entry.dtype.is_some()),
            "shape" => (Place::ShapeStart, self.entry.elements.is_some()),
            "data_offsets" => (Place::OffsetsStart, self.entry.offsets.is_some()),
            _ => (Place::Skip(0), false),
        };
        if taken { Err(self.tensor(&format!("has {name} twice"))) } else { Ok(place) }
    }

    /// The checks of the reference reader that concern one tensor alone.
    fn close_entry(&mut self) -> Result<Place, String> {
        let entry = mem::take(&mut self.entry);
        let dtype = entry.dtype.ok_or_else(|| self.tensor("has no dtype"))?;
        let elements = entry.elements.ok_or_else(|| self.tensor("has no shape"))?;
        let [begin, end] = entry.offsets.ok_or_else(|| self.tensor("has no data_offsets"))?;
        let (dtype_name, bits) = DTYPES[dtype];
        let bits = elements.checked_mul(bits).ok_or_else(|| self.tensor("has more elements than can be counted"))?;
        if bits % 8 != 0 {
            return Err(
                self.tensor(&format!("has {elements} elements of {dtype_name}, which is no whole number of bytes"))
            );
        }
        let stored = end
            .checked_sub(begin)
            .ok_or_else(|| self.tensor(&format!("ends at byte {end}, before its begin {begin}")))?;
        if stored != bits / 8 {
            let expected = bits / 8;
            return Err(self.tensor(&format!("has {stored} bytes, but its shape and {dtype_name} need {expected}")));
        }
        self.tensors.push(Tensor { begin, end, name: Name::new(&self.name, &self.token) });
        self.elements[dtype] = self.elements[dtype].saturating_add(elements);
        Ok(Place::Names)
    }

    fn names(&mut self, event: Event<'_>, token: Range<u64>) -> Result<Place, String> {
        match event {
            Event::Key("__metadata__") if mem::replace(&mut self.saw_metadata, true) => {
                Err("it has __metadata__ twice".to_owned())
            }
            Event::Key("__metadata__") => Ok(Place::MetadataStart),
            Event::Key(name) => {
                name.clone_into(&mut self.name);
                self.token = token;
                Ok(Place::EntryStart)
            }
            _ => Ok(Place::Done),
        }
    }

    fn shape(&mut self, event: Event<'_>) -> Result<Place, String> {
        match event {
            Event::EndArray => Ok(Place::Entry),
            Event::Number(text) => {
                let size = text.parse().map_err(|_| self.tensor("has a size in its shape that is no whole number"))?;
                let product = self.entry.elements.and_then(|elements| elements.checked_mul(size));
                self.entry.elements =
                    Some(product.ok_or_else(|| self.tensor("has more elements than can be counted"))?);
                Ok(Place::Shape)
            }
            _ => Err(self.tensor("has a size in its shape that is no whole number")),
        }
    }

    fn offsets(&mut self, event: Event<'_>, count: usize) -> Result<Place, String> {
        match event {
            Event::EndArray if count == 2 => {
                self.entry.offsets = Some(self.numbers);
                Ok(Place::Entry)
            }
            Event::Number(text) if count < 2 => {
                self.numbers[count] =
                    text.parse().map_err(|_| self.tensor("has data_offsets that are no whole numbers"))?;
                Ok(Place::Offsets(count + 1))
            }
            _ => Err(self.tensor("has data_offsets that are not two whole numbers")),
        }
    }
}

impl Sink for Header {
    fn event(&mut self, event: Event<'_>, token: Range<u64>) -> Result<(), String> {
        let metadata = || "__metadata__ may hold only text".to_owned();
        self.place = match (&self.place, event) {
            (Place::Start, Event::BeginObject)
            | (Place::MetadataStart, Event::Null)
            | (Place::Metadata, Event::EndObject) => Place::Names,
            (Place::Start | Place::Done, _) => return Err("it is not a JSON object".to_owned()),
            (Place::Names, event) => self.names(event, token)?,
            (Place::EntryStart, Event::BeginObject) => Place::Entry,
            (Place::EntryStart, _) => return Err(self.tensor("is described by something that is no object")),
            (Place::Entry, Event::Key(name)) => self.field(name)?,
            (Place::Entry, _) => self.close_entry()?,
            (Place::Dtype, Event::String(name)) => {
                let known = DTYPES.iter().position(|(known, _)| *known == name);
                let unknown = || self.tensor(&format!("has the unknown dtype {}", quoted(name)));
                self.entry.dtype = Some(known.ok_or_else(unknown)?);
                Place::Entry
            }
            (Place::Dtype, _) => return Err(self.tensor("has a dtype that is no text")),
            (Place::ShapeStart, Event::BeginArray) => {
                self.entry.elements = Some(1);
                Place::Shape
            }
            (Place::ShapeStart, _) => return Err(self.tensor("has a shape that is no list")),
            (Place::Shape, event) => self.shape(event)?,
            (Place::OffsetsStart, Event::BeginArray) => Place::Offsets(0),
            (Place::OffsetsStart, _) => return Err(self.tensor("has data_offsets that are no list")),
            (Place::Offsets(count), event) => self.offsets(event, *count)?,
            (Place::Skip(_), Event::Number(text)) if text.parse::<f64>().is_ok_and(f64::is_infinite) => {
                return Err(self.tensor("has a number that is out of range"));
            }
            (Place::Skip(depth), Event::BeginObject | Event::BeginArray) => Place::Skip(depth + 1),
            (Place::Skip(0 | 1), Event::EndObject | Event::EndArray) | (Place::Skip(0), _) => Place::Entry,
            (Place::Skip(depth), Event::EndObject | Event::EndArray) => Place::Skip(depth - 1),
            (Place::Skip(depth), _) => Place::Skip(*depth),
            (Place::MetadataStart, Event::BeginObject) => Place::Metadata,
            (Place::Metadata, Event::Key(name)) => Place::MetadataText { format: name == "format" },
            (Place::MetadataText { format }, Event::String(text)) => {
                if *format {
                    self.format = Some(text.chars().take(32).collect());
                }
                Place::Metadata
            }
            (Place::MetadataStart | Place::Metadata | Place::MetadataText { .. }, _) => return Err(metadata()),
        };
        Ok(())
    }
}
