//! What imports of a pickle mean: lists as data beside this file, each with its source. Pure, no I/O.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::LazyLock,
};

use crate::contract::PickleTier;

/// Module, and its names; a module without names stands for all of them and all modules below it.
type List = BTreeMap<&'static str, BTreeSet<&'static str>>;

static TORCH: LazyLock<List> = LazyLock::new(|| read(include_str!("torch.txt")));
static DISTRIBUTED: LazyLock<List> = LazyLock::new(|| read(include_str!("distributed.txt")));
static TRAINING: LazyLock<List> = LazyLock::new(|| read(include_str!("training.txt")));
static DANGEROUS: LazyLock<List> = LazyLock::new(|| read(include_str!("dangerous.txt")));

/// Names of modules in Python 2, and what Python 3 makes of them.
const RENAMED: [(&str, &str); 12] = [
    ("__builtin__", "builtins"),
    ("copy_reg", "copyreg"),
    ("cPickle", "pickle"),
    ("commands", "subprocess"),
    ("thread", "_thread"),
    ("urllib2", "urllib.request"),
    ("httplib", "http.client"),
    ("ConfigParser", "configparser"),
    ("Queue", "queue"),
    ("UserDict", "collections"),
    ("UserList", "collections"),
    ("exceptions", "builtins"),
];

/// Loads a pickle of torch from bytes; it is as safe as what it is given.
pub(super) const NESTED: (&str, &str) = ("torch.storage", "_load_from_bytes");

/// Classes of TorchScript, whose code lies in the archive: only its own interpreter knows this module.
const SCRIPT: &str = "__torch__";

fn read(text: &'static str) -> List {
    let mut list = List::new();
    for line in text.lines().filter(|line| !line.starts_with('#')) {
        let mut words = line.split_whitespace();
        if let Some(module) = words.next() {
            list.entry(module).or_default().extend(words);
        }
    }
    list
}

/// The module's name in Python 3.
pub(super) fn renamed(module: &str) -> &str {
    RENAMED.iter().find(|(old, _)| *old == module).map_or(module, |(_, new)| new)
}

/// How dangerous an import is, in Python 3's names.
pub(in crate::format) fn tier(module: &str, name: &str) -> PickleTier {
    let has = |list: &List| list.get(module).is_some_and(|names| names.contains(name));
    if has(&TORCH) || has(&DISTRIBUTED) {
        PickleTier::TensorsOnly
    } else if has(&TRAINING)
        || (module, name) == NESTED
        || module == SCRIPT
        || module.starts_with(&format!("{SCRIPT}."))
    {
        PickleTier::KnownSafe
    } else if is_dangerous(module, name) {
        PickleTier::Dangerous
    } else {
        PickleTier::Code
    }
}

/// A name may lead through other modules (`os.system` of `pathlib`), so each part of it counts too.
fn is_dangerous(module: &str, name: &str) -> bool {
    let listed = |module: &str, name: Option<&str>| {
        DANGEROUS.get(module).is_some_and(|names| names.is_empty() || name.is_some_and(|name| names.contains(name)))
    };
    let above = module.match_indices('.').map(|(at, _)| &module[..at]).any(|parent| listed(parent, None));
    let first = name.split('.').next().unwrap_or(name);
    let through = name.contains('.') && name.split('.').any(|part| listed(part, None) || part.starts_with("__"));
    above || listed(module, Some(first)) || listed(module, Some(name)) || through
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn imports_have_tiers() {
        for (module, name, expected) in [
            ("torch._utils", "_rebuild_tensor_v2", PickleTier::TensorsOnly),
            ("collections", "OrderedDict", PickleTier::TensorsOnly),
            ("torch.distributed.checkpoint.metadata", "Metadata", PickleTier::TensorsOnly),
            ("numpy", "dtype", PickleTier::KnownSafe),
            ("numpy", "load", PickleTier::Dangerous),
            ("sklearn.linear_model", "LinearRegression", PickleTier::Code),
            ("builtins", "print", PickleTier::Code),
            ("builtins", "getattr", PickleTier::Dangerous),
            ("os", "system", PickleTier::Dangerous),
            ("asyncio.unix_events", "_UnixSubprocessTransport", PickleTier::Dangerous),
            ("pathlib", "os.system", PickleTier::Dangerous),
            ("collections", "OrderedDict.__init__", PickleTier::Dangerous),
            ("osmium", "x", PickleTier::Code),
        ] {
            assert_eq!(tier(module, name), expected, "{module} {name}");
        }
        assert_eq!(renamed("__builtin__"), "builtins");
    }

    /// The list is what an installed torch accepts, no more and no less.
    #[test]
    fn torchs_own_list() {
        let own = include_str!("../../../e2e/fixtures/torch/weights_only_globals.txt");
        let own: BTreeSet<String> = own.lines().filter(|line| !line.starts_with('#')).map(str::to_owned).collect();
        let ours = TORCH.iter().flat_map(|(module, names)| names.iter().map(move |name| format!("{module}.{name}")));
        assert_eq!(ours.collect::<BTreeSet<_>>(), own);
    }

    #[test]
    fn no_import_is_on_two_lists() {
        let safe = [&*TORCH, &*DISTRIBUTED, &*TRAINING];
        for (position, list) in safe.iter().enumerate() {
            for (module, names) in *list {
                assert!(!names.is_empty(), "{module}: a safe module must name what is safe in it");
                for name in names {
                    assert!(!is_dangerous(module, name), "{module} {name}");
                    let others = safe.iter().skip(position + 1);
                    assert!(
                        !others.into_iter().any(|other| other.get(module).is_some_and(|known| known.contains(name))),
                        "{module} {name}"
                    );
                }
            }
        }
    }
}
