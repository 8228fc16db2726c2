//! The chart grants exactly the calls that the controller makes. Reads files; that the templates render these rules is tested
//! by the chart's own unit tests.

use std::collections::{BTreeMap, BTreeSet};

use checkpoint_operator::controller::API_CALLS;
use k8s_openapi::api::rbac::v1::PolicyRule;

use super::{read, repository};

const TEMPLATES: &str = "charts/checkpoint-operator/templates";

/// Verbs by API group and resource.
type Rights = BTreeMap<(String, String), BTreeSet<String>>;

/// The rules between `define` and `end`, which must be plain YAML: then what is read here is what is rendered.
fn rules(template: &str) -> Vec<PolicyRule> {
    let text = read(&repository(TEMPLATES).join("_rules.tpl"));
    let (_, body) = text.split_once(&format!("define \"checkpoint-operator.{template}\" -}}}}")).unwrap();
    let (body, _) = body.split_once("{{- end }}").unwrap();
    assert!(!body.contains("{{"), "{template} is more than plain YAML");
    serde_yaml::from_str(body).unwrap()
}

fn granted(template: &str) -> Rights {
    let mut rights = Rights::new();
    for rule in rules(template) {
        assert!(rule.resource_names.is_none() && rule.non_resource_urls.is_none(), "{rule:?}");
        for group in rule.api_groups.as_deref().unwrap() {
            for resource in rule.resources.as_deref().unwrap() {
                let verbs = rights.entry((group.clone(), resource.clone())).or_default();
                for verb in &rule.verbs {
                    assert!(verbs.insert(verb.clone()), "{verb} of {resource} is granted twice");
                }
            }
        }
    }
    rights
}

fn called(namespaced: bool) -> Rights {
    let of_scope = API_CALLS.iter().filter(|call| call.namespaced == namespaced);
    of_scope
        .map(|call| {
            let verbs = call.verbs.iter().map(ToString::to_string).collect();
            ((call.group.to_owned(), call.resource.to_owned()), verbs)
        })
        .collect()
}

#[test]
fn namespaced_rules_are_the_calls() {
    assert_eq!(granted("namespacedRules"), called(true));
}

#[test]
fn cluster_rules_are_the_calls() {
    let (mut rights, progress) = (granted("clusterRules"), granted("progressRules"));
    assert!(progress.keys().all(|right| !rights.contains_key(right)), "{progress:?}");
    rights.extend(progress);
    assert_eq!(rights, called(false));
}

#[test]
fn nothing_grants_secrets_or_everything() {
    let templates = ["namespacedRules", "clusterRules", "progressRules"];
    for ((group, resource), verbs) in templates.into_iter().flat_map(granted) {
        assert!(!resource.starts_with("secrets"), "{group} {resource}");
        for text in verbs.iter().chain([&group, &resource]) {
            assert!(!text.contains('*'), "{group} {resource} {verbs:?}");
        }
        for verb in ["escalate", "bind", "impersonate", "deletecollection"] {
            assert!(!verbs.contains(verb), "{group} {resource} {verb}");
        }
    }
}

/// A rule that another template adds would escape the comparison.
#[test]
fn rules_stand_in_no_other_template() {
    let mut holders = BTreeSet::new();
    for entry in std::fs::read_dir(repository(TEMPLATES)).unwrap() {
        let path = entry.unwrap().path();
        if read(&path).lines().any(|line| line.trim_start().trim_start_matches("- ").starts_with("verbs:")) {
            holders.insert(path.file_name().unwrap().to_string_lossy().into_owned());
        }
    }
    let expected = ["_rules.tpl", "aggregated-roles.yaml"].map(str::to_owned);
    assert_eq!(holders, BTreeSet::from(expected), "aggregated roles are for people and not bound to the controller");
}
