//! Operators of other libraries in an ONNX model: those of a domain that neither ONNX nor ONNX Runtime has, unless the model brings
//! them itself as functions. They run only where somebody registers the library. Pure, no I/O.

use std::collections::BTreeSet;

use super::super::evidence::fact;

/// Domains of ONNX 1.23, and those that ONNX Runtime 1.23 has built in.
const KNOWN: [&str; 12] = [
    "",
    "ai.onnx",
    "ai.onnx.ml",
    "ai.onnx.preview",
    "ai.onnx.preview.training",
    "ai.onnx.training",
    "com.microsoft",
    "com.microsoft.experimental",
    "com.microsoft.nchwc",
    "com.ms.internal.nhwc",
    "org.pytorch._caffe2",
    "org.pytorch.aten",
];
/// The most operators and functions that are kept, and the most that are named.
const KEPT: usize = 4096;
const NAMED: usize = 16;

/// What a model uses and what it brings, each with its domain.
#[derive(Debug, Default)]
pub(super) struct Operators {
    used: BTreeSet<(String, String)>,
    functions: BTreeSet<(String, String)>,
}

/// Whether an operator of this domain is one of ONNX itself.
pub(super) fn is_known(domain: &str) -> bool {
    KNOWN.contains(&domain)
}

impl Operators {
    /// A node has this operator.
    pub fn use_one(&mut self, domain: &str, name: &str) {
        if !is_known(domain) && self.used.len() < KEPT {
            self.used.insert((fact(domain), fact(name)));
        }
    }

    /// The model says what this operator is made of.
    pub fn define(&mut self, domain: &str, name: &str) {
        if self.functions.len() < KEPT {
            self.functions.insert((fact(domain), fact(name)));
        }
    }

    /// What needs a library; none when nothing does.
    pub fn foreign(&self) -> Option<String> {
        let names: Vec<String> = self
            .used
            .difference(&self.functions)
            .map(|(domain, name)| format!("{domain}.{name}"))
            .take(NAMED)
            .collect();
        let what = "operators of another library, which has to be registered";
        (!names.is_empty()).then(|| format!("{what} ({})", names.join(", ")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn domains_and_functions_decide() {
        let mut operators = Operators::default();
        for (domain, name) in [("", "MatMul"), ("com.microsoft", "Gelu"), ("ai.onnx.ml", "Scaler"), ("mine", "Sum")] {
            operators.use_one(domain, name);
        }
        operators.define("mine", "Sum");
        assert_eq!(operators.foreign(), None);
        operators.define("mine", "Other");
        operators.use_one("com.example", "Marker");
        let words = "operators of another library, which has to be registered (com.example.Marker)";
        assert_eq!(operators.foreign().as_deref(), Some(words));
    }
}
