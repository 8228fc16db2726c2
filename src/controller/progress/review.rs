//! Asks the API server whose token it is, and the caches whose worker that pod is. Does I/O.

use k8s_openapi::api::authentication::v1::{TokenReview, TokenReviewSpec};
use kube::{Api, Client, ResourceExt as _, api::PostParams, runtime::reflector::ObjectRef};

use super::{
    super::{
        calls::call,
        context::{Cached, World},
        error::Error,
    },
    token::Claimed,
};
use crate::{api::LABEL_CHECKPOINT_UID, contract::progress::AUDIENCE};

/// Of [`k8s_openapi::api::authentication::v1::UserInfo`]: the UID of the pod that a token is bound to.
const POD_UID: &str = "authentication.kubernetes.io/pod-uid";

/// A worker: the UID of its Checkpoint, and its name.
pub struct Worker {
    pub checkpoint_uid: String,
    pub checkpoint: ObjectRef<Cached>,
}

/// The worker that a pod is, if we made its Job.
pub fn worker(world: &World, claimed: &Claimed) -> Option<Worker> {
    let scope = world.scope(&claimed.namespace)?;
    let pod = scope.pods.get(&ObjectRef::new(&claimed.pod).within(&claimed.namespace))?;
    if pod.metadata.uid.as_deref() != Some(&claimed.pod_uid) {
        return None;
    }
    // A label is easily written; that the Job is the Checkpoint's and the pod the Job's, their controllers say.
    let owner = pod.owner_references().iter().find(|owner| owner.kind == "Job" && owner.controller == Some(true))?;
    let job = scope.jobs.get(&ObjectRef::new(&owner.name).within(&claimed.namespace))?;
    let checkpoint_uid = job.labels().get(LABEL_CHECKPOINT_UID)?;
    let is_ours = job.metadata.uid.as_ref() == Some(&owner.uid)
        && job.owner_references().iter().any(|owner| owner.uid == *checkpoint_uid);
    let checkpoint = world.by_uid(checkpoint_uid).filter(|_| is_ours)?;
    (checkpoint.namespace.as_ref() == Some(&claimed.namespace))
        .then(|| Worker { checkpoint_uid: checkpoint_uid.clone(), checkpoint })
}

/// Whether the API server says that this is a token for us, of the pod that it claims.
///
/// # Errors
/// When the API server refuses the question or does not answer it.
pub async fn is_authentic(client: &Client, token: &str, claimed: &Claimed) -> Result<bool, Error> {
    let review = TokenReview {
        spec: TokenReviewSpec { audiences: Some(vec![AUDIENCE.to_owned()]), token: Some(token.to_owned()) },
        ..TokenReview::default()
    };
    let api: Api<TokenReview> = Api::all(client.clone());
    let status = call("review a token", api.create(&PostParams::default(), &review)).await?.status.unwrap_or_default();
    // An API server that knows nothing of audiences names none.
    let for_us = status.audiences.iter().flatten().any(|audience| audience == AUDIENCE);
    let user = status.user.unwrap_or_default();
    let account = format!("system:serviceaccount:{}:", claimed.namespace);
    let in_namespace = user.username.is_some_and(|name| name.starts_with(&account));
    let of_pod =
        user.extra.and_then(|mut extra| extra.remove(POD_UID)).unwrap_or_default() == [claimed.pod_uid.as_str()];
    Ok(status.authenticated == Some(true) && for_us && in_namespace && of_pod)
}
