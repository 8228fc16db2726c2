//! What imports of a pickle mean: lists as data beside this file, each with its source. Pure, no I/O.

use std::{collections::BTreeMap, sync::LazyLock};

use crate::contract::PickleTier;

/// Module, and its names; a module without names stands for all of them and all modules below it.
type List = BTreeMap<&'static str, BTreeMap<&'static str, Usage>>;

static TORCH: LazyLock<List> = LazyLock::new(|| read(include_str!("torch.txt")));
static DISTRIBUTED: LazyLock<List> = LazyLock::new(|| read(include_str!("distributed.txt")));
static TRAINING: LazyLock<List> = LazyLock::new(|| read(include_str!("training.txt")));
static DANGEROUS: LazyLock<List> = LazyLock::new(|| read(include_str!("dangerous.txt")));
static RENAMED: LazyLock<Renamed> = LazyLock::new(renames);

/// What Python 3 takes for names of Python 2: modules, and names that moved alone.
#[derive(Default)]
struct Renamed {
    modules: BTreeMap<&'static str, &'static str>,
    names: BTreeMap<(&'static str, &'static str), (&'static str, &'static str)>,
}

/// How a known import may be used.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Usage {
    /// In any way.
    Any,
    /// Objects may be made of it without its constructor (`*` in the list).
    Made,
    /// It may be named, not called (`-` in the list).
    Named,
}

/// Loads a pickle of torch from bytes; it is as safe as what it is given.
pub(super) const NESTED: (&str, &str) = ("torch.storage", "_load_from_bytes");

/// Classes of TorchScript, whose code lies in the archive: only its own interpreter knows this module.
const SCRIPT: &str = "__torch__";
/// Names with more dots than this are not followed.
const PARTS: usize = 16;

fn read(text: &'static str) -> List {
    let mut list = List::new();
    for line in text.lines().filter(|line| !line.starts_with('#')) {
        let mut words = line.split_whitespace();
        if let Some(module) = words.next() {
            list.entry(module).or_default().extend(words.map(|word| match word.strip_suffix(['*', '-']) {
                Some(name) if word.ends_with('*') => (name, Usage::Made),
                Some(name) => (name, Usage::Named),
                None => (word, Usage::Any),
            }));
        }
    }
    list
}

fn renames() -> Renamed {
    let mut renamed = Renamed::default();
    for line in include_str!("python2.txt").lines().filter(|line| !line.starts_with('#')) {
        match line.split_whitespace().collect::<Vec<_>>()[..] {
            [old, new] => {
                renamed.modules.insert(old, new);
            }
            [module, name, new_module, new_name] => {
                renamed.names.insert((module, name), (new_module, new_name));
            }
            _ => {}
        }
    }
    renamed
}

/// Module and name in Python 3.
pub(super) fn renamed<'a>(module: &'a str, name: &'a str) -> (&'a str, &'a str) {
    match RENAMED.names.get(&(module, name)) {
        Some(&new) => new,
        None => (RENAMED.modules.get(module).copied().unwrap_or(module), name),
    }
}

/// How dangerous an import is, in Python 3's names. `script` in the archives of TorchScript.
///
/// `TensorsOnly` is about what loading can do: it asks for torch's own list of imports, not for the 34 opcodes that its reader
/// knows. The others arrange data only, and the metadata of distributed checkpoints needs some of them; those that call
/// (`INST`, `OBJ`, `NEWOBJ_EX`) count as `KnownSafe`, and the registry of `copyreg` and outside buffers as worse.
pub(in crate::format) fn tier(module: &str, name: &str, script: bool) -> PickleTier {
    let has = |list: &List| list.get(module).is_some_and(|names| names.contains_key(name));
    if has(&TORCH) || has(&DISTRIBUTED) {
        PickleTier::TensorsOnly
    } else if has(&TRAINING) || (module, name) == NESTED {
        PickleTier::KnownSafe
    } else if is_dangerous(module, name) {
        PickleTier::Dangerous
    } else if script && !name.contains('.') && module.split('.').next() == Some(SCRIPT) {
        PickleTier::KnownSafe
    } else {
        PickleTier::Code
    }
}

/// How an import may be used.
pub(super) fn usage(module: &str, name: &str) -> Usage {
    TRAINING.get(module).and_then(|names| names.get(name)).copied().unwrap_or(Usage::Any)
}

/// A name may lead through other modules (`os.system` of `pathlib`), and a module may be an attribute of another, so every way
/// to divide the path into a module and a name counts.
fn is_dangerous(module: &str, name: &str) -> bool {
    let path = format!("{module}.{name}");
    let parts: Vec<&str> = path.split('.').collect();
    let own = name.split('.').count();
    if parts.len() > PARTS || (own > 1 && name.split('.').any(|part| part.starts_with("__"))) {
        return true;
    }
    // The module's own name counts from its beginning; the name's parts may each begin another module.
    let begins = std::iter::once(0).chain(parts.len() - own..parts.len());
    begins.into_iter().any(|begin| {
        (begin + 1..=parts.len()).any(|end| {
            let Some(names) = parts.get(begin..end).and_then(|parts| DANGEROUS.get(parts.join(".").as_str())) else {
                return false;
            };
            let rest = parts.get(end..).unwrap_or_default();
            // Something of a whole module; a name that only sounds like one (`code` of `collections`) is nothing.
            (names.is_empty() && !rest.is_empty())
                || rest.first().is_some_and(|first| names.contains_key(first))
                || names.contains_key(rest.join(".").as_str())
        })
    })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

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
            ("torch", "serialization.load", PickleTier::Dangerous),
            ("torch", "jit.load", PickleTier::Dangerous),
            ("x", "y.z.subprocess.Popen", PickleTier::Dangerous),
            ("x", "a.b.c.d.e.f.g.h.i.j.k.l.m.n.o.p.q", PickleTier::Dangerous),
            ("transformers.models.test", "Model", PickleTier::Code),
            ("mine", "code", PickleTier::Code),
        ] {
            assert_eq!(tier(module, name, false), expected, "{module} {name}");
        }
        assert_eq!(renamed("__builtin__", "reduce"), ("functools", "reduce"));
        assert_eq!(renamed("__builtin__", "eval"), ("builtins", "eval"));
        assert_eq!(renamed("torch", "load"), ("torch", "load"));
        assert_eq!(tier("__torch__.model", "M", true), PickleTier::KnownSafe);
        assert_eq!(tier("__torch__.model", "M", false), PickleTier::Code);
        assert_eq!(tier("__torch__.model", "os.system", true), PickleTier::Dangerous);
    }

    /// The list is what an installed torch accepts, no more and no less.
    #[test]
    fn torchs_own_list() {
        let own = include_str!("../../../e2e/fixtures/torch/weights_only_globals.txt");
        let own: BTreeSet<String> = own.lines().filter(|line| !line.starts_with('#')).map(str::to_owned).collect();
        let ours = TORCH.iter().flat_map(|(module, names)| names.keys().map(move |name| format!("{module}.{name}")));
        assert_eq!(ours.collect::<BTreeSet<_>>(), own);
    }

    #[test]
    fn no_import_is_on_two_lists() {
        let safe = [&*TORCH, &*DISTRIBUTED, &*TRAINING];
        for (position, list) in safe.iter().enumerate() {
            for (module, names) in *list {
                assert!(!names.is_empty(), "{module}: a safe module must name what is safe in it");
                for name in names.keys() {
                    assert!(!is_dangerous(module, name), "{module} {name}");
                    let others = safe.iter().skip(position + 1);
                    assert!(
                        !others
                            .into_iter()
                            .any(|other| other.get(module).is_some_and(|known| known.contains_key(name))),
                        "{module} {name}"
                    );
                }
            }
        }
    }
}
