//! Looks into a token before the API server is asked about it, only to turn away early what cannot be a worker. No I/O.
//!
//! Nothing that is read here is believed: what the token says must be confirmed by a `TokenReview`.

use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use serde::Deserialize;

use crate::contract::progress::{AUDIENCE, TOKEN_LIMIT};

/// The pod that a token claims to come from.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Claimed {
    pub namespace: String,
    pub pod: String,
    pub pod_uid: String,
}

#[derive(Deserialize)]
struct Payload {
    aud: Audiences,
    #[serde(rename = "kubernetes.io")]
    kubernetes: Kubernetes,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Audiences {
    One(String),
    Some(Vec<String>),
}

#[derive(Deserialize)]
struct Kubernetes {
    namespace: String,
    pod: Named,
}

#[derive(Deserialize)]
struct Named {
    name: String,
    uid: String,
}

/// What the token claims, if it claims to be a pod's token for us.
#[must_use]
pub fn claimed(token: &str) -> Option<Claimed> {
    if token.len() > TOKEN_LIMIT {
        return None;
    }
    let mut parts = token.split('.');
    let (Some(_), Some(payload), Some(_), None) = (parts.next(), parts.next(), parts.next(), parts.next()) else {
        return None;
    };
    let payload: Payload = serde_json::from_slice(&BASE64_URL_SAFE_NO_PAD.decode(payload).ok()?).ok()?;
    let for_us = match payload.aud {
        Audiences::One(audience) => audience == AUDIENCE,
        Audiences::Some(audiences) => audiences.iter().any(|audience| audience == AUDIENCE),
    };
    let Kubernetes { namespace, pod } = payload.kubernetes;
    for_us.then_some(Claimed { namespace, pod: pod.name, pod_uid: pod.uid })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn only_a_pods_token_for_us_is_worth_a_question() {
        let pod =
            json!({ "namespace": "team", "pod": { "name": "load", "uid": "p" }, "serviceaccount": { "name": "x" } });
        let encode = |value: serde_json::Value| BASE64_URL_SAFE_NO_PAD.encode(value.to_string());
        let of = |audiences: serde_json::Value, kubernetes: &serde_json::Value| {
            format!("e30.{}.c2ln", encode(json!({ "aud": audiences, "kubernetes.io": kubernetes, "exp": 1 })))
        };
        let expected = Claimed { namespace: "team".into(), pod: "load".into(), pod_uid: "p".into() };
        for good in [of(json!([AUDIENCE]), &pod), of(json!(AUDIENCE), &pod), of(json!(["x", AUDIENCE]), &pod)] {
            assert_eq!(claimed(&good), Some(expected.clone()), "{good}");
        }
        for bad in [
            of(json!(["https://kubernetes.default.svc"]), &pod),
            of(json!([]), &pod),
            of(json!([AUDIENCE]), &json!({ "namespace": "team" })),
            of(json!([AUDIENCE]), &json!({ "namespace": "team", "node": { "name": "n", "uid": "u" } })),
            of(json!([AUDIENCE]), &pod) + ".more",
            format!("e30.{}", encode(json!({}))),
            "e30.e30.e30".to_owned(),
            "e30.!!!.e30".to_owned(),
            "..".to_owned(),
            String::new(),
            "x".repeat(TOKEN_LIMIT + 1),
        ] {
            assert_eq!(claimed(&bad), None, "{bad}");
        }
    }
}
