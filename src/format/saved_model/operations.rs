//! Operations of TensorFlow that reach beyond the tensors they are given (TensorFlow 2.21, the 1,462 names of `tf.raw_ops`).
//! An operation that is none of TensorFlow's own cannot be told from a new one unless its name has a namespace. No I/O.

/// What an operation does beside computing.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(super) enum Reach {
    /// Files, the network or Python, when the model runs.
    Outside,
    /// A file of the model's own, such as a vocabulary.
    Table,
    /// Only what a library beside TensorFlow does.
    Library,
}

/// Operations on any file.
const FILES: [&str; 37] = [
    "CSVDataset",
    "CSVDatasetV2",
    "CacheDataset",
    "CacheDatasetV2",
    "CreateSummaryDbWriter",
    "CreateSummaryFileWriter",
    "DatasetToTFRecord",
    "DistributedSave",
    "FixedLengthRecordDataset",
    "FixedLengthRecordDatasetV2",
    "FixedLengthRecordReader",
    "FixedLengthRecordReaderV2",
    "GenerateVocabRemapping",
    "LMDBDataset",
    "LMDBReader",
    "ListSnapshotChunksDataset",
    "LoadAndRemapMatrix",
    "LoadDataset",
    "MatchingFiles",
    "MatchingFilesDataset",
    "ReadFile",
    "SaveDataset",
    "SaveDatasetV2",
    "SnapshotChunkDataset",
    "SnapshotDataset",
    "SnapshotDatasetReader",
    "SnapshotDatasetV2",
    "SnapshotNestedDatasetReader",
    "SqlDataset",
    "TFRecordDataset",
    "TFRecordDatasetV2",
    "TFRecordReader",
    "TFRecordReaderV2",
    "TextLineDataset",
    "TextLineReader",
    "WholeFileReader",
    "WriteFile",
];
/// More of them, and what reaches for the network, for Python, or for a graph that is hidden in a text.
const OTHERS: [&str; 20] = [
    "DataServiceDataset",
    "DataServiceDatasetV2",
    "DataServiceDatasetV3",
    "DataServiceDatasetV4",
    "DatasetFromGraph",
    "DebugIdentity",
    "DebugIdentityV2",
    "DebugIdentityV3",
    "DebugNanCount",
    "DebugNumericSummary",
    "DebugNumericSummaryV2",
    "EagerPyFunc",
    "FileSystemSetConfiguration",
    "PyFunc",
    "PyFuncStateless",
    "RegisterDataset",
    "RegisterDatasetV2",
    "RemoteCall",
    "TextLineReaderV2",
    "WholeFileReaderV2",
];
/// Tables that are filled from a text file.
const TABLES: [&str; 2] = ["InitializeTableFromTextFile", "InitializeTableFromTextFileV2"];
/// Prints to the log, or to a file that its attribute names.
pub(super) const PRINT: &str = "PrintV2";
/// Variables: a model with one has values for it.
pub(super) const VARIABLES: [&str; 3] = ["VarHandleOp", "VariableV2", "Variable"];

/// What an operation of this name reaches for. Savers (`SaveV2`, `RestoreV2` and their like) are in every model, because
/// TensorFlow loads and stores its variables with them; they are not told apart.
pub(super) fn reach(name: &str) -> Option<Reach> {
    let plain = name.strip_prefix("Experimental").unwrap_or(name);
    if FILES.contains(&plain) || OTHERS.contains(&plain) {
        Some(Reach::Outside)
    } else if TABLES.contains(&plain) {
        Some(Reach::Table)
    } else if name.contains('>') {
        Some(Reach::Library)
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_decide() {
        for (name, expected) in [
            ("ReadFile", Some(Reach::Outside)),
            ("ExperimentalSqlDataset", Some(Reach::Outside)),
            ("EagerPyFunc", Some(Reach::Outside)),
            ("InitializeTableFromTextFileV2", Some(Reach::Table)),
            ("Addons>Gelu", Some(Reach::Library)),
            ("MatMul", None),
            ("Print", None),
            ("SaveV2", None),
            ("ReadVariableOp", None),
        ] {
            assert_eq!(reach(name), expected, "{name}");
        }
    }
}
