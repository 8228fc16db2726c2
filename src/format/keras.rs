//! Keras 3 models (`.keras`): a zip archive of `metadata.json`, `config.json` and `model.weights.h5`, or a folder of these (keras
//! 3.15, `saving_lib.py`, `serialization_lib.py`). Lambda layers and classes from elsewhere run code when the model is loaded. No I/O.

pub(super) mod folder;
mod shards;
#[cfg(test)]
mod tests;

use serde_json::Value;

use super::{
    archive::{self, Kind},
    counts::Counts,
    evidence::{Evidence, fact},
    hdf5,
    json::{Limits, Parser, tree},
    names,
    table::Family,
    window::{Parsed, Stop, Window},
    zip::{self, Directory, Entry},
};
use crate::contract::{Contents, Format};

/// The largest configuration that is read, in bytes.
const MAX_CONFIG: u64 = 16 << 20;
/// Names of a model's weights (keras 3.15, `_VARS_FNAME`).
pub(super) const WEIGHTS: [&str; 3] = ["model.weights.h5", "model.weights.json", "model.weights.npz"];
/// The most pieces of code that are named.
const CODE: usize = 16;
/// Python's JSON, as Keras writes it.
const LIMITS: Limits = Limits { depth: 200, text: 16 << 20, python: true, halves: false };
/// Packages whose classes are Keras's own.
const PACKAGES: [&str; 7] =
    ["keras", "keras_nlp", "keras_cv", "keras_hub", "tensorflow.keras", "tensorflow.python.keras", "tf_keras"];
/// Layers that run what their configuration names: programs of other frameworks, other models, pickled modules.
const LAYERS: [&str; 4] = ["TorchModuleWrapper", "TFSMLayer", "JaxLayer", "FlaxLayer"];
/// Modules of Keras whose functions only compute.
const MODULES: [&str; 7] = ["activations", "constraints", "initializers", "losses", "metrics", "ops", "regularizers"];
/// Their functions that are known by their name alone (keras 3.15), and the short names of Keras 2.
const FUNCTIONS: &str = " acc accuracy bce binary_accuracy binary_crossentropy binary_focal_crossentropy \
    categorical_accuracy categorical_crossentropy categorical_focal_crossentropy categorical_generalized_cross_entropy \
    categorical_hinge celu circle concordance_correlation cosine_proximity cosine_similarity ctc dice elu exponential gelu glu \
    hard_shrink hard_sigmoid hard_silu hard_swish hard_tanh hinge huber kl_divergence kld kullback_leibler_divergence \
    leaky_relu linear log_cosh log_sigmoid log_softmax logcosh mae mape mean_absolute_error mean_absolute_percentage_error \
    mean_squared_error mean_squared_logarithmic_error mish mse msle pearson_correlation poisson relu relu6 selu sigmoid silu \
    soft_shrink softmax softplus softsign sparse_categorical_accuracy sparse_categorical_crossentropy sparse_plus \
    sparse_sigmoid sparse_top_k_categorical_accuracy sparsemax squared_hinge squareplus swish tanh tanh_shrink threshold \
    top_k_categorical_accuracy tversky ";

/// Keras 3 models.
pub(super) const FAMILY: Family = Family {
    claims: |evidence| archive::of_kind(evidence, Kind::Keras).next().is_some() || folder::is_home(evidence),
    places: |evidence| archive::paths(evidence, Kind::Keras).into_iter().chain(folder::places(evidence)).collect(),
    probe: |tree, file| shards::probe(tree, file).or_else(|| folder::probe(tree, file)),
    check: shards::check,
    describe,
    judged: "the archive, or a folder of its files, and its weights; Lambda layers and classes from elsewhere are code that runs on load, in old `.h5` files, too",
    ..Family::of(Format::Keras)
};

/// What an archive says, or a configuration beside weights.
#[derive(Debug, Default)]
pub(super) struct Model {
    class: Option<String>,
    version: Option<String>,
    /// Weights; none when not all could be followed.
    counts: Option<Counts>,
    /// Code, and whether it runs when the model is loaded.
    pub code: Vec<(bool, String)>,
    /// An entry that Keras does not write.
    pub unused: Option<String>,
    /// Whether it has no weights, so that Keras gives up after it ran the configuration.
    pub weightless: bool,
}

/// Reads an archive.
pub(super) fn archive(file: &Window<'_>, directory: &Directory) -> Parsed<Model> {
    let read = |name: &str| -> Parsed<Value> {
        let entry = directory.find(name).ok_or_else(|| Stop::Bad(format!("its entry {name} is missing")))?;
        let content = zip::content(file, entry, MAX_CONFIG)?;
        parse(&content).map_err(|error| Stop::Bad(format!("its entry {name} is no usable JSON: {error}")))
    };
    let config = read("config.json")?;
    // Keras writes it and does not read it.
    let metadata = if directory.find("metadata.json").is_some() { read("metadata.json")? } else { Value::Null };
    let mut model = Model { counts: Some(Counts::default()), code: code(&config), ..Model::default() };
    for entry in &directory.entries {
        if names::has_extension(&entry.name, "h5") {
            weights(file, entry, &mut model)?;
        } else if names::has_extension(&entry.name, "npz") {
            // What is pickled in it is looked for as in any other archive.
            model.counts = None;
        }
    }
    let own = |name: &str| {
        matches!(name, "metadata.json" | "config.json")
            || WEIGHTS.contains(&name)
            || name.starts_with("assets/")
            || names::has_extension(name, "h5")
    };
    model.unused = directory.entries.iter().find(|entry| !own(&entry.name)).map(|entry| names::shown(&entry.name));
    if !WEIGHTS.iter().any(|weights| directory.find(weights).is_some()) {
        model.weightless = true;
    }
    let text = |value: &Value, key: &str| value.get(key).and_then(Value::as_str).map(fact);
    (model.class, model.version) = (text(&config, "class_name"), text(&metadata, "keras_version"));
    Ok(model)
}

/// Weights in an entry.
fn weights(file: &Window<'_>, entry: &Entry, model: &mut Model) -> Parsed<()> {
    if entry.method != 0 {
        model.counts = None;
        return Ok(());
    }
    let inner = file.part(zip::data(file, entry)?)?;
    let weights = hdf5::inner(&inner).map_err(|stop| match stop {
        Stop::Bad(text) => Stop::Bad(format!("its entry {}: {text}", names::shown(&entry.name))),
        stop => stop,
    })?;
    model.counts = model.counts.take().zip(weights.counts).map(|(mut sum, more)| {
        sum.merge(&more);
        sum
    });
    model.code.extend(weights.code);
    Ok(())
}

/// A configuration as Python reads it, which has numbers that are none in JSON.
pub(super) fn parse(bytes: &[u8]) -> Result<Value, String> {
    let mut tree = tree::Tree::default();
    let mut parser = Parser::new(LIMITS, 0);
    parser.feed(bytes, &mut tree).and_then(|()| parser.finish(&mut tree)).map_err(|error| error.to_string())?;
    tree.into_value().ok_or_else(|| "it is empty".to_owned())
}

/// Layers and objects of a configuration that are more than Keras's own classes.
pub(super) fn code(config: &Value) -> Vec<(bool, String)> {
    let mut found = Vec::new();
    let mut open = vec![config];
    while let Some(value) = open.pop() {
        match value {
            Value::Array(items) => open.extend(items),
            Value::Object(members) => {
                open.extend(members.values());
                if let Some(what) = foreign(value) {
                    found.push((true, what));
                }
            }
            _ => {}
        }
        if found.len() >= CODE {
            break;
        }
    }
    found.sort();
    found.dedup();
    found
}

/// The module's name below the package of Keras that it belongs to; none when it is of no such package.
fn own(module: &str) -> Option<&str> {
    let of = |package: &&str| module.strip_prefix(*package).filter(|rest| rest.is_empty() || rest.starts_with('.'));
    let rest = PACKAGES.iter().find_map(of)?;
    let rest = rest.trim_start_matches('.');
    Some(rest.strip_prefix("src.").unwrap_or(rest))
}

fn foreign(object: &Value) -> Option<String> {
    let text = |key: &str| object.get(key).and_then(Value::as_str);
    let class = text("class_name")?;
    let shown = names::shown(class);
    let config = object.get("config");
    let member = |key: &str| config.and_then(|config| config.get(key)).and_then(Value::as_str);
    let named = || member("name").map(|name| format!(" {}", names::shown(name))).unwrap_or_default();
    if class == "__lambda__" || class.ends_with("Lambda") {
        return Some(format!("a Lambda layer{}", named()));
    }
    if class.starts_with("__") {
        // Values in Keras's own notation; types of TensorFlow name a module that only describes them.
        return None;
    }
    let (module, registered) = (text("module").unwrap_or_default(), text("registered_name").unwrap_or_default());
    if class == "function" {
        return function(config.and_then(Value::as_str).unwrap_or_default(), module);
    }
    if let Some(custom) = [registered, class].iter().find(|name| name.contains('>') && !is_own_package(name)) {
        return Some(format!("the registered custom class {}", names::shown(custom)));
    }
    if module.is_empty() {
        // Keras 2 names no modules, so there only what was registered can be told apart.
        return (!registered.is_empty()).then(|| format!("the custom class {}", names::shown(registered)));
    }
    if own(module).is_none() {
        return Some(format!("the class {shown} of the module {}, which is not of Keras", names::shown(module)));
    }
    if LAYERS.contains(&class) {
        return Some(format!("a layer{} that runs other programs ({shown})", named()));
    }
    if !class.starts_with(|first: char| first.is_ascii_uppercase()) {
        return Some(format!("the function {shown} of {}, which is no part of a model", names::shown(module)));
    }
    member("vocabulary")
        .filter(|path| !path.is_empty())
        .map(|path| format!("a layer{} ({shown}) that reads the file {:?}", named(), names::shown(path)))
}

/// `keras>Dense` and its like.
fn is_own_package(registered: &str) -> bool {
    registered.split_once('>').is_some_and(|(package, _)| own(package).is_some() || package.starts_with("keras"))
}

/// A function, by its name alone or with its module.
fn function(name: &str, module: &str) -> Option<String> {
    let shown = names::shown(name);
    let known = name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
        && FUNCTIONS.contains(&format!(" {name} "));
    match own(module) {
        Some(rest) if MODULES.contains(&rest.split('.').next().unwrap_or_default()) => None,
        Some(_) => Some(format!("the function {shown} of {}, which is no part of a model", names::shown(module))),
        None if known && matches!(module, "" | "builtins") => None,
        None => Some(format!("the custom function {shown}")),
    }
}

fn describe(evidence: &Evidence, contents: &mut Contents) {
    let mut counts = Some(Counts::default());
    for (_, model) in evidence.all::<Model>() {
        contents.architecture = contents.architecture.take().or_else(|| model.class.clone());
        let framework = model.version.as_ref().map(|version| format!("keras {version}"));
        contents.framework = contents.framework.take().or(framework);
        counts = counts.zip(model.counts.as_ref()).map(|(mut sum, more)| {
            sum.merge(more);
            sum
        });
    }
    if let Some(counts) = counts {
        counts.describe(contents);
    }
}
