//! Over how many processes a training was spread, as DeepSpeed and Megatron-LM write it into what they save. Pure, no I/O.

use super::super::pickle::{ValueId, Values};
use crate::contract::report;

/// What a file says of the training that wrote it; only what it says.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(in crate::format) struct Parallel {
    /// Data-parallel ranks (DeepSpeed's `dp_world_size`).
    pub data: Option<u64>,
    /// Model-parallel ranks (DeepSpeed's `mp_world_size`).
    pub model: Option<u64>,
    /// Parts that the optimizer's state is cut into (DeepSpeed's `partition_count`, the largest one).
    pub partitions: Option<u64>,
    /// Experts of each layer that has some (DeepSpeed's `num_experts`); none from older writers, which say one number.
    pub experts: Option<Vec<u64>>,
    /// Tensor-parallel ranks (Megatron-LM's `args`).
    pub tensor: Option<u64>,
    /// Ranks of the pipeline.
    pub pipeline: Option<u64>,
    /// Expert-parallel ranks.
    pub expert: Option<u64>,
    /// Version of the writer, DeepSpeed's.
    pub version: Option<String>,
}

/// The most entries of a list that are believed.
const LIMIT: usize = 4096;

/// Reads the dict that a file holds.
pub(super) fn read(values: &Values, root: ValueId) -> Parallel {
    let entry = |key| values.entry(root, key);
    let size = |key| entry(key).and_then(|id| values.size(id));
    // What the optimizer says lies one dict deeper.
    let optimizer = entry("optimizer_state_dict");
    let inner = |key| values.entry(optimizer?, key);
    let argument = |name: &str| {
        let arguments = entry("args")?;
        values.attribute(arguments, name).or_else(|| values.entry(arguments, name)).and_then(|id| values.size(id))
    };
    let list = |id: ValueId| -> Option<Vec<u64>> {
        let items = values.elements(id)?;
        items.iter().take(LIMIT).map(|item| values.size(*item)).collect()
    };
    let partitions = inner("partition_count")
        .and_then(|id| values.size(id).or_else(|| list(id).and_then(|counts| counts.into_iter().max())));
    let version = entry("ds_version").or_else(|| inner("ds_version")).and_then(|id| values.text(id));
    Parallel {
        data: size("dp_world_size"),
        model: size("mp_world_size"),
        partitions,
        experts: entry("num_experts").and_then(list),
        tensor: argument("tensor_model_parallel_size"),
        pipeline: argument("pipeline_model_parallel_size"),
        expert: argument("expert_model_parallel_size"),
        version: version.map(|text| report::clean(text, 64)),
    }
}
