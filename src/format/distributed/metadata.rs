//! `.metadata`: a pickle of `torch.distributed.checkpoint.metadata.Metadata`. Pure, no I/O.

use std::collections::BTreeMap;

use super::super::{
    counts::Counts,
    evidence::{Evidence, PickleFact},
    findings::Notes,
    names,
    pickle::{self, Limits, Stream, Value, ValueId, Values},
    probe::{Problem, note_problem},
    torch::tensors::dtype,
    window::{Parse, Parsed, Window},
};
use crate::contract::PickleTier;

const MODULE: &str = "torch.distributed.checkpoint.metadata";

/// The most chunks of all tensors.
const CHUNKS: u64 = 2_000_000;
/// More dimensions than a tensor has.
const DIMENSIONS: usize = 64;

/// Where an item lies.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct Slice {
    /// Name of the tensor or object.
    pub item: String,
    /// File, below the folder of the metadata.
    pub path: String,
    /// First byte.
    pub offset: u64,
    /// Length in bytes.
    pub length: u64,
}

/// What the metadata says.
#[derive(Debug, Default)]
pub(super) struct Metadata {
    pub slices: Vec<Slice>,
    pub counts: Counts,
}

pub(super) struct MetadataFile;

impl Parse for MetadataFile {
    type Output = (Option<PickleFact>, Result<Metadata, String>);

    fn remembered((_, metadata): &Self::Output) -> u64 {
        metadata.as_ref().map_or(0, |metadata| metadata.slices.len() as u64)
    }

    fn parse(&self, file: &Window<'_>) -> Parsed<Self::Output> {
        let context = pickle::Context { named: true, metadata: true, ..pickle::Context::default() };
        let fact = pickle::judge(file, "", context)?;
        let stream = pickle::read(file, 0, &Limits::METADATA)?;
        let found = stream.problem.clone().map_or_else(|| metadata(&stream), Err);
        Ok((fact, found))
    }

    fn finish(self, outcome: Result<Self::Output, Problem>, file: usize, evidence: &mut Evidence, notes: &mut Notes) {
        match outcome {
            Ok((fact, metadata)) => {
                if let Some(fact) = fact {
                    evidence.note_pickle(file, fact);
                }
                match metadata {
                    Ok(metadata) => evidence.put(file, metadata),
                    Err(problem) => super::unreadable(file, &problem, evidence, notes),
                }
            }
            Err(Problem::Broken(problem)) => super::unreadable(file, &problem, evidence, notes),
            Err(Problem::TooLarge(problem)) => {
                let what = format!("was not checked ({problem})");
                evidence.note_pickle(file, PickleFact { tier: PickleTier::Unchecked, what, broken: None });
                note_problem(&Problem::TooLarge(problem), file, evidence, notes);
            }
            Err(Problem::Foreign) => {}
        }
    }
}

/// A chunk of a tensor: where it begins and its size in each dimension.
type Chunk = (Vec<u64>, Vec<u64>);

fn metadata(stream: &Stream) -> Result<Metadata, String> {
    let values = &stream.values;
    let root = stream.root.ok_or("it is empty")?;
    if values.callable(root) != Some((MODULE, "Metadata")) {
        return Err("it is no metadata of a distributed checkpoint".to_owned());
    }
    let table =
        |name: &str| values.attribute(root, name).and_then(|id| values.entries(id)).ok_or(format!("it has no {name}"));
    let mut metadata = Metadata::default();
    let mut stored: BTreeMap<&str, u64> = BTreeMap::new();
    for (index, info) in table("storage_data")? {
        let item = values.attribute(*index, "fqn").and_then(|id| values.text(id)).ok_or("an item has no name")?;
        let slice =
            slice(values, item, *info).ok_or_else(|| format!("it does not say where {:?} lies", names::shown(item)))?;
        if slice.path.starts_with('/') || slice.path.split('/').any(|part| matches!(part, "" | "." | "..")) {
            return Err(format!(
                "it places {:?} in {:?}, which is no safe path",
                names::shown(item),
                names::shown(&slice.path)
            ));
        }
        *stored.entry(item).or_default() += 1;
        metadata.slices.push(slice);
    }
    let mut pieces_in_all = 0u64;
    for (name, described) in table("state_dict_metadata")? {
        let name = values.text(*name).ok_or("an item has no name")?;
        let shown = || names::shown(name);
        let pieces = match values.callable(*described) {
            Some((MODULE, "BytesStorageMetadata")) => 1,
            Some((MODULE, "TensorStorageMetadata")) => {
                let (chunks, elements) =
                    tensor(values, *described).map_err(|problem| format!("its tensor {:?} {problem}", shown()))?;
                metadata.counts.add(element_type(values, *described), elements);
                chunks
            }
            _ => return Err(format!("it describes {:?} in a way that torch does not", shown())),
        };
        // One list of chunks can be that of very many tensors: all are looked through, so all are counted.
        pieces_in_all = pieces_in_all.saturating_add(pieces);
        if pieces_in_all > CHUNKS {
            return Err(format!("its tensors have more than {CHUNKS} chunks"));
        }
        let found = stored.get(name).copied().unwrap_or(0);
        if found < pieces {
            return Err(format!("{found} of the {pieces} chunks of {:?} are placed in files", shown()));
        }
    }
    Ok(metadata)
}

fn slice(values: &Values, item: &str, info: ValueId) -> Option<Slice> {
    let attribute = |name| values.attribute(info, name);
    Some(Slice {
        item: item.to_owned(),
        path: values.text(attribute("relative_path")?)?.to_owned(),
        offset: values.size(attribute("offset")?)?,
        length: values.size(attribute("length")?)?,
    })
}

/// Number of chunks and elements, when the chunks fill the tensor.
fn tensor(values: &Values, id: ValueId) -> Result<(u64, u64), String> {
    let malformed = || "is described in a way that torch does not".to_owned();
    let size = values.attribute(id, "size").and_then(|id| sizes(values, id)).ok_or_else(malformed)?;
    let elements = volume(&size).ok_or_else(malformed)?;
    let chunks = values.attribute(id, "chunks").and_then(|id| values.elements(id)).ok_or_else(malformed)?;
    let mut sum = 0u64;
    for chunk in chunks {
        let (offsets, lengths) = read_chunk(values, *chunk).ok_or_else(malformed)?;
        let bounds = offsets.iter().zip(&lengths).map(|(offset, length)| offset.checked_add(*length));
        let inside = offsets.len() == size.len()
            && lengths.len() == size.len()
            && bounds.zip(&size).all(|(end, size)| end.is_some_and(|end| end <= *size));
        if !inside {
            return Err("has a chunk outside of its bounds".to_owned());
        }
        sum = sum.saturating_add(volume(&lengths).ok_or_else(malformed)?);
    }
    if sum != elements {
        return Err(format!("has {elements} elements, its chunks have {sum}"));
    }
    Ok((chunks.len() as u64, elements))
}

fn read_chunk(values: &Values, id: ValueId) -> Option<Chunk> {
    let read = |name| sizes(values, values.attribute(id, name)?);
    Some((read("offsets")?, read("sizes")?))
}

/// A `torch.Size`, or a plain tuple or list.
fn sizes(values: &Values, id: ValueId) -> Option<Vec<u64>> {
    let inner = values.is_call(id, "torch", "Size").and_then(<[_]>::first).copied().unwrap_or(id);
    let sizes = values.elements(inner).filter(|sizes| sizes.len() <= DIMENSIONS)?;
    sizes.iter().map(|size| values.size(*size)).collect()
}

fn volume(sizes: &[u64]) -> Option<u64> {
    sizes.iter().try_fold(1u64, |product, size| product.checked_mul(*size))
}

/// The properties' state is a tuple that begins with the data type, or a dict.
fn element_type(values: &Values, id: ValueId) -> &'static str {
    let properties = values.attribute(id, "properties");
    let named = properties.and_then(|id| values.attribute(id, "dtype"));
    let first = || match values.get(properties?) {
        Value::Object(object) => values.elements(object.state?)?.first().copied(),
        _ => None,
    };
    let global = named.or_else(first).and_then(|id| values.global(id));
    global.and_then(|(_, name)| dtype(name)).map_or("unknown", |(name, _)| name)
}
