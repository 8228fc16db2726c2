//! Safetensors: every check of the reference reader (crate safetensors 0.8.0), from header and size alone. No I/O.

mod header;

use std::ops::Range;

pub(super) use header::{DTYPES, Name};
use header::{Header, Tensor};

use super::{
    MAX_READ,
    evidence::{Evidence, Ledger, Tree, fact},
    findings::{Draft, Notes, UPLOAD_AGAIN},
    json::{JsonError, Limits, Parser},
    magic::{self, Magic},
    names,
    probe::{Probe, note_magic},
    sharded,
    table::Family,
};
use crate::contract::{Contents, Depth, Format, Reason};

/// The longest header that the reference reader takes, in bytes.
const MAX_HEADER: u64 = 100_000_000;
/// What is read first: nearly every header fits.
const FIRST_READ: u64 = 64 << 10;
/// Levels as in the reference reader's JSON; names of tensors are bounded so that one read can fetch them.
const LIMITS: Limits = Limits { depth: 127, text: 16 << 10, python: false, halves: false };

/// One or more safetensors files.
pub(super) const FAMILY: Family = Family {
    format: Format::Safetensors,
    claims: |evidence| evidence.tree.iter().any(|(_, file)| names::is_safetensors(&file.path)),
    probe,
    check,
    describe,
    judged: "all that the reference reader checks: header, types, shapes, offsets without gaps to the exact end",
    ..Family::of(Format::Safetensors)
};

/// What a header that passed says.
#[derive(Clone, Debug, Default)]
pub(super) struct Summary {
    /// Number of tensors.
    pub tensors: u64,
    /// Elements by data type, as in [`DTYPES`].
    pub elements: [u64; DTYPES.len()],
    /// Bytes of all tensors.
    pub data: u64,
    /// `__metadata__.format`
    pub format: Option<String>,
    /// Names of the tensors in the order of their hashes; empty unless shards are to be compared.
    pub names: Vec<Name>,
}

/// What is wrong with a file.
#[derive(Debug)]
enum Problem {
    Text(String),
    /// Something about the tensor whose name stands there.
    Tensor {
        name: Name,

        after: String,
    },
}

fn probe(tree: &Tree, file: usize) -> Option<Box<dyn Probe>> {
    let file = tree.file(file);
    names::is_safetensors(&file.path).then(|| Box::new(HeaderProbe::new(&file.path, file.size)) as Box<dyn Probe>)
}

/// At depth `Listing` the size is all there is, and some sizes are enough.
fn check(evidence: &mut Evidence, notes: &mut Notes) {
    if evidence.depth > Depth::Listing {
        return;
    }
    for (_, file) in evidence.tree.iter().filter(|(_, file)| names::is_safetensors(&file.path)) {
        if let Some(problem) = too_small(file.size) {
            let message = format!("{} is damaged: {problem}; {UPLOAD_AGAIN}", names::shown(&file.path));
            notes.fatal(Reason::Corrupt, Some(&file.path), message);
        }
    }
}

fn too_small(size: u64) -> Option<String> {
    (size < 8).then(|| {
        format!("it has {size} bytes, but a safetensors file begins with 8 bytes that tell its header's length")
    })
}

/// Reads a header.
struct HeaderProbe {
    path: String,
    size: u64,
    /// How much was read.
    at: u64,
    /// The end of the header in the file, once its length is known.
    end: Option<u64>,
    parser: Parser,
    header: Header,
    magic: Magic,
    problem: Option<String>,
}

impl HeaderProbe {
    fn new(path: &str, size: u64) -> Self {
        let (parser, header) = (Parser::new(LIMITS, 8), Header::default());
        Self {
            path: path.to_owned(),
            size,
            at: 0,
            end: None,
            parser,
            header,
            magic: Magic::Other,
            problem: too_small(size),
        }
    }

    fn begin(&mut self, bytes: &[u8]) {
        self.magic = magic::sniff(bytes, &self.path, self.size);
        let Some(length) = bytes.first_chunk().map(|first| u64::from_le_bytes(*first)) else {
            return self.problem = Some("its first bytes could not be read".to_owned());
        };
        let room = self.size.saturating_sub(8);
        if length > MAX_HEADER {
            self.problem = Some(format!(
                "its first 8 bytes announce a header of {length} bytes, more than {MAX_HEADER}: it is no safetensors file, or damaged"
            ));
        } else if length > room {
            self.problem =
                Some(format!("its header has {length} bytes, but only {room} follow its length: it is truncated"));
        } else {
            self.end = Some(8 + length);
        }
    }

    fn feed(&mut self, bytes: &[u8]) -> Result<(), JsonError> {
        self.parser.feed(bytes, &mut self.header)?;
        if Some(self.at) >= self.end { self.parser.finish(&mut self.header) } else { Ok(()) }
    }
}

impl Probe for HeaderProbe {
    fn next(&self) -> Option<Range<u64>> {
        if self.problem.is_some() || self.magic == Magic::LfsPointer {
            return None;
        }
        let (end, length) = self.end.map_or((self.size, FIRST_READ), |end| (end, MAX_READ));
        (self.at < end).then(|| self.at..end.min(self.at + length))
    }

    fn take(&mut self, bytes: &[u8], ledger: &mut Ledger) {
        let skip = if self.at == 0 { 8.min(bytes.len()) } else { 0 };
        if self.at == 0 {
            self.begin(bytes);
        }
        let Some(end) = self.end else { return };
        let until = usize::try_from(end - self.at).unwrap_or(usize::MAX).min(bytes.len());
        self.at += bytes.len() as u64;
        let before = self.header.tensors.len();
        if let Err(error) = self.feed(&bytes[skip..until]) {
            self.problem = Some(format!("its header cannot be read: {error}"));
        }
        ledger.charge((self.header.tensors.len() - before) as u64);
    }

    fn finish(self: Box<Self>, file: usize, evidence: &mut Evidence, notes: &mut Notes) {
        let foreign = note_magic(self.magic, file, evidence, notes);
        if foreign && self.magic == Magic::LfsPointer {
            return;
        }
        let result = match (self.problem, self.magic) {
            (Some(_), Magic::Pickle(kind)) => Err(Problem::Text(format!("it is {kind}, no safetensors file"))),
            (Some(problem), _) => Err(Problem::Text(problem)),
            (None, _) => summarize(self.header, self.size, self.end.unwrap_or_default(), evidence.keep_names),
        };
        let path = self.path;
        let shown = names::shown(&path);
        match result {
            Ok(summary) => {
                evidence.safetensors.insert(file, summary);
            }
            Err(Problem::Text(text)) => {
                notes.fatal(Reason::Corrupt, Some(&path), format!("{shown} is damaged: {text}; {UPLOAD_AGAIN}"));
            }
            Err(Problem::Tensor { name, after }) => notes.drafts.push(Draft {
                reason: Reason::Corrupt,
                file: path,
                name_file: file,
                name: name.range(),
                before: format!("{shown} is damaged: tensor "),
                after: format!(" {after}; {UPLOAD_AGAIN}"),
            }),
        }
    }
}

/// The checks that concern all tensors together.
fn summarize(header: Header, size: u64, data_begin: u64, keep_names: bool) -> Result<Summary, Problem> {
    let Header { mut tensors, elements, format, .. } = header;
    let mut names: Vec<Name> = tensors.iter().map(|tensor| tensor.name).collect();
    names.sort_unstable();
    let same = names.windows(2).filter(|pair| pair[0].hash == pair[1].hash).map(|pair| pair[1]);
    if let Some(name) = same.min_by_key(|name| name.at) {
        // The reference reader takes the last of them; the format forbids it.
        return Err(Problem::Tensor { name, after: "is described twice".to_owned() });
    }
    let data = contiguous(&mut tensors)?;
    let available = size - data_begin;
    if data != available {
        let described = data_begin.saturating_add(data);
        let (what, difference) = if data > available {
            ("it is truncated: it", format!("{} too few", data - available))
        } else {
            ("it", format!("{} too many", available - data))
        };
        return Err(Problem::Text(format!("{what} has {size} bytes, its header describes {described} ({difference})")));
    }
    let tensors = names.len() as u64;
    if !keep_names {
        names = Vec::new();
    }
    Ok(Summary { tensors, elements, data, format, names })
}

/// The end of the data, when the tensors cover it without gap or overlap.
fn contiguous(tensors: &mut [Tensor]) -> Result<u64, Problem> {
    tensors.sort_unstable_by_key(|tensor| (tensor.begin, tensor.end, tensor.name.at));
    let mut end = 0;
    for tensor in tensors.iter() {
        if tensor.begin != end {
            let what = if tensor.begin < end { "overlaps the tensor before it" } else { "leaves a gap before it" };
            let after = format!("begins at byte {} of the data, but byte {end} comes next: it {what}", tensor.begin);
            return Err(Problem::Tensor { name: tensor.name, after });
        }
        end = tensor.end;
    }
    Ok(end)
}

/// Counts of the weights that loaders would take.
fn describe(evidence: &Evidence, contents: &mut Contents) {
    let files = weights(evidence);
    let summaries: Vec<_> = files.iter().filter_map(|file| evidence.safetensors.get(file)).collect();
    if summaries.is_empty() {
        return;
    }
    let (mut tensors, mut parameters) = (0u64, 0u64);
    for summary in &summaries {
        tensors = tensors.saturating_add(summary.tensors);
        for (&(name, _), &elements) in DTYPES.iter().zip(&summary.elements).filter(|(_, elements)| **elements > 0) {
            parameters = parameters.saturating_add(elements);
            let sum = contents.dtypes.entry(name.to_owned()).or_default();
            *sum = sum.saturating_add_unsigned(elements);
        }
    }
    contents.tensors = Some(i64::try_from(tensors).unwrap_or(i64::MAX));
    contents.parameters = Some(i64::try_from(parameters).unwrap_or(i64::MAX));
    if contents.framework.is_none() {
        let format = summaries.iter().find_map(|summary| summary.format.as_deref());
        contents.framework = format.map(|format| match format {
            "pt" => "pytorch".to_owned(),
            "tf" => "tensorflow".to_owned(),
            "np" => "numpy".to_owned(),
            other => fact(other),
        });
    }
}

/// The safetensors files that make up the model: transformers takes the single file first, then the index; without either,
/// all of them count.
fn weights(evidence: &Evidence) -> Vec<usize> {
    let tree = &evidence.tree;
    for single in ["model.safetensors", "adapter_model.safetensors"] {
        if let Some(file) = tree.at_home(single) {
            return vec![file];
        }
    }
    let main = tree
        .at_home("model.safetensors.index.json")
        .and_then(|file| evidence.indexes.get(&file).map(|index| (file, index)));
    if let Some((file, index)) = main {
        return sharded::shards_of(tree, file, index).into_iter().flatten().collect();
    }
    // Parts that ranks wrote are no tensors yet.
    let whole = |path: &str| names::is_safetensors(path) && names::rank_shard(names::base(path)).is_none();
    tree.iter().filter(|(_, file)| whole(&file.path)).map(|(file, _)| file).collect()
}
