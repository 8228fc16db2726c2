//! The schema's rules for volumes against the real API server (network I/O). As in [`crate::schema`] everything but the objects that
//! updates start from is a dry run.

use anyhow::Result;
use serde_json::{Value, json};

use crate::{
    schema::{all_accepted, all_refused, everything, spec_with, updates, with, without},
    support::shared,
};

fn volume(member: &str, value: Value) -> Value {
    let entry = with(json!({"claimName": "a"}), &format!("/{member}"), value);
    json!({"path": "pvc://source/p", "volumes": [entry]})
}

#[tokio::test]
async fn volumes_are_accepted_and_refused_by_their_rules() -> Result<()> {
    shared("schema-volumes", async |scene| {
        let entries = |names: &[&str]| names.iter().map(|name| json!({"claimName": name})).collect::<Value>();
        let numbered: Vec<_> = (0..17).map(|number| format!("claim-{number}")).collect();
        let numbered: Vec<_> = numbered.iter().map(String::as_str).collect();
        all_accepted(
            scene,
            [
                spec_with("volumes", entries(&numbered[..16])),
                volume("size", json!(12345)),
                volume("size", json!("1.5Ti")),
                volume("accessModes", json!(["ReadWriteOncePod"])),
                volume("claimName", json!("a".repeat(63))),
                volume("reuseFrom", json!("step-1")),
                volume("parallelism", json!(1)),
                with(
                    volume("parallelism", json!(64)),
                    "/volumes/0/accessModes",
                    json!(["ReadWriteOnce", "ReadWriteMany"]),
                ),
                volume("reuseFrom", json!(format!("b.{}", "a".repeat(251)))),
                // A null is the same as leaving the field out: the API server drops it.
                volume("placement", Value::Null),
            ],
        )
        .await?;
        all_refused(
            scene,
            [
                (spec_with("volumes", entries(&numbered)), "must have at most 16 items"),
                (spec_with("volumes", entries(&["a", "b", "a"])), "volumes[2]: Duplicate value"),
                (spec_with("volumes", json!([{}])), "claimName: Required"),
                (volume("claimName", json!("Upper")), "volumes[0].claimName"),
                (volume("reuseFrom", json!("a")), "reuseFrom names the claim of an earlier checkpoint"),
                (volume("reuseFrom", json!("")), "volumes[0].reuseFrom"),
                (volume("parallelism", json!(0)), "volumes[0].parallelism"),
                (volume("parallelism", json!(65)), "volumes[0].parallelism"),
                (volume("parallelism", json!(2)), "add ReadWriteMany to accessModes"),
                (
                    with(volume("parallelism", json!(2)), "/volumes/0/accessModes", json!(["ReadOnlyMany"])),
                    "add ReadWriteMany to accessModes",
                ),
                (volume("reuseFrom", json!("../a")), "volumes[0].reuseFrom"),
                (volume("reuseFrom", json!("a".repeat(254))), "volumes[0].reuseFrom"),
                (volume("claimName", json!("-a")), "volumes[0].claimName"),
                (volume("claimName", json!("a.b")), "volumes[0].claimName"),
                (volume("claimName", json!("a".repeat(64))), "volumes[0].claimName"),
                (volume("storageClassName", json!("")), "volumes[0].storageClassName"),
                (volume("accessModes", json!(["RWO"])), "volumes[0].accessModes[0]: Unsupported value"),
                (volume("accessModes", json!(vec!["ReadWriteOnce"; 5])), "must have at most 4 items"),
                (volume("size", json!("big")), "volumes[0].size"),
                (volume("size", json!("-1Gi")), "volumes[0].size"),
                (volume("include", json!([""])), "volumes[0].include[0]"),
                (volume("include", json!(["x".repeat(257)])), "volumes[0].include[0]"),
                (volume("exclude", json!(vec!["x"; 65])), "must have at most 64 items"),
                (volume("deletionPolicy", json!("Keep")), "volumes[0].deletionPolicy: Unsupported value"),
                (
                    volume("placement", json!({"tolerations": vec![json!({"key": "x"}); 33]})),
                    "must have at most 32 items",
                ),
            ],
        )
        .await
    })
    .await
}

#[tokio::test]
async fn volumes_can_only_be_added_and_removed() -> Result<()> {
    shared("schema-immutable-volumes", async |scene| {
        let message = Some("a volume entry cannot be changed, except for its deletionPolicy and parallelism");
        let all = everything();
        let other = [
            ("storageClassName", json!("other")),
            ("accessModes", json!(["ReadWriteMany"])),
            ("size", json!("21Gi")),
            ("include", json!(["*.bin"])),
            ("exclude", json!(["*.bin"])),
            ("placement", json!({"nodeSelector": {"disk": "slow"}})),
            ("reuseFrom", json!("other")),
        ];
        let mut cases = Vec::new();
        for (member, value) in &other {
            cases.push((with(all.clone(), &format!("/volumes/0/{member}"), value.clone()), message));
            cases.push((without(all.clone(), &format!("/volumes/0/{member}")), message));
        }
        let affinity = "/volumes/0/placement/affinity";
        cases.push((without(all.clone(), affinity), message));
        cases.push((with(all.clone(), "/volumes/1/placement", Value::Null), None));
        cases.push((with(all.clone(), "/volumes/0/deletionPolicy", json!("Retain")), None));
        cases.push((without(all.clone(), "/volumes/0/deletionPolicy"), None));
        cases.push((with(all.clone(), "/volumes/0/parallelism", json!(3)), None));
        cases.push((without(all.clone(), "/volumes/0/parallelism"), None));
        cases.push((without(all.clone(), "/volumes"), None));
        cases.push((with(all.clone(), "/volumes", json!([all["volumes"][1], all["volumes"][0]])), None));
        cases.push((with(all.clone(), "/volumes", json!([{"claimName": "c"}, all["volumes"][0]])), None));
        updates(scene, "full", &all, cases).await?;
        let plain = json!({"path": "s3://models/p", "volumes": [{"claimName": "a"}]});
        let added = other
            .iter()
            .map(|(member, value)| (with(plain.clone(), &format!("/volumes/0/{member}"), value.clone()), message));
        let mut cases: Vec<_> = added.collect();
        cases.push((with(plain.clone(), "/volumes/0/deletionPolicy", json!("Delete")), None));
        updates(scene, "plain", &plain, cases).await
    })
    .await
}
