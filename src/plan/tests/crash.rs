//! Interrupted lives: whichever write is the last before a crash, the end is that of an undisturbed life.

use proptest::prelude::*;

use super::*;

/// A name, and how such a life begins.
type Kind = (&'static str, fn() -> Life);

fn lives() -> Vec<Kind> {
    vec![
        ("publish", || Life::new(spec(json!([{"claimName": "a"}, {"claimName": "b", "deletionPolicy": "Delete"}])))),
        ("retry", || {
            let mut life = Life::new(spec(json!([{"claimName": "a"}])));
            life.files.load_failures = vec![(Reason::LoadFailed, "broken pipe".to_owned())];
            life
        }),
        ("adopt", || {
            let mut life = Life::new(spec(json!([{"claimName": "a"}])));
            life.run(60);
            life.world.delete_checkpoint(&life.uid.clone());
            life.world.settle();
            life.uid = add(&mut life.world, "llama", spec(json!([{"claimName": "a", "deletionPolicy": "Delete"}])));
            life.writes = 0;
            life.performed.clear();
            life
        }),
    ]
}

#[test]
fn a_crash_at_any_write_changes_nothing_in_the_end() {
    for (name, make) in lives() {
        let mut undisturbed = make();
        undisturbed.run(600);
        let expected = undisturbed.outcome();
        assert_eq!(undisturbed.condition(ConditionType::Ready), "True Ready", "{name}");
        assert!(undisturbed.writes > 5);
        for write in 1..=undisturbed.writes {
            for after in [false, true] {
                let mut life = make();
                life.crash = Some((write, after));
                life.run(600);
                assert_eq!(
                    life.outcome(),
                    expected,
                    "{name}: crash {} write {write}",
                    if after { "after" } else { "before" }
                );
                let loads = |life: &Life| life.performed.iter().filter(|kind| **kind != TaskKind::Inspect).count();
                assert_eq!(loads(&life), loads(&undisturbed), "{name}: no work is done twice, write {write}");
            }
        }
    }
}

#[test]
fn deletion_after_any_write_leaves_nothing_unpublished() {
    let mut undisturbed = Life::new(spec(json!([{"claimName": "a"}])));
    undisturbed.run(600);
    for write in 1..=undisturbed.writes {
        let mut life = Life::new(spec(json!([{"claimName": "a"}])));
        life.crash = Some((write, true));
        while life.writes < write {
            life.world.settle();
            life.pass();
            life.world.settle();
            life.work();
        }
        life.world.delete_checkpoint(&life.uid.clone());
        life.world.settle();
        assert!(life.world.jobs().is_empty() && life.world.pods().is_empty(), "write {write}");
        for (name, claim) in life.world.claims() {
            let volume = claims::volume_name(claim).and_then(|name| life.world.volumes().get(name));
            let holds_data = volume.is_some_and(|volume| claims::is_tied(volume, claim));
            // Between two writes of the hand-over a claim can be without owner and without volume: the sweep of orphans
            // (see `controller::orphans`) is for these.
            let orphan = claim.metadata.owner_references.iter().flatten().count() == 0;
            assert!(name == "a" && (holds_data || orphan), "write {write}: {name} is left");
        }
    }
}

/// The Checkpoint goes at the moment at which its volume was handed over and the claim not marked yet.
#[test]
fn what_was_handed_over_is_adopted_by_the_next() {
    let mut life = Life::new(spec(json!([{"claimName": "a"}])));
    let tied = |life: &Life| {
        let claim = life.world.claims().get("a")?;
        let volume = life.world.volumes().get(claims::volume_name(claim)?)?;
        claims::is_tied(volume, claim).then_some(())
    };
    while tied(&life).is_none() {
        life.world.settle();
        life.pass();
        if tied(&life).is_none() {
            life.world.settle();
            life.work();
        }
    }
    life.world.settle();
    life.world.delete_checkpoint(&life.uid.clone());
    life.world.settle();
    life.uid = add(&mut life.world, "llama", spec(json!([{"claimName": "a"}])));
    life.performed.clear();
    life.run(600);
    assert_eq!(life.condition(ConditionType::Ready), "True Ready");
    assert_eq!(life.performed, [TaskKind::Inspect, TaskKind::Verify]);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    /// Names of children are valid for any name and UID of a Checkpoint, and any claim name that the schema lets through.
    #[test]
    fn child_names_are_valid(uid in ".{0,80}", claim in "[a-z0-9]{1,63}", class in proptest::option::of(".{0,40}"), attempt: i64) {
        let volume = crate::api::Volume { claim_name: claim, storage_class_name: class, ..Default::default() };
        for name in [super::super::names::staging(&uid, &volume), super::super::names::job(&uid, TaskKind::Inspect, "x", attempt)] {
            prop_assert!(name.len() <= 63 && crate::local::world::is_dns_subdomain(&name), "{name}");
        }
    }

    /// The same world gives the same plan, whatever happened to it, and no state of it makes the plan panic.
    #[test]
    fn plans_are_stable_in_any_world(steps in proptest::collection::vec(0u8..9, 0..40)) {
        let mut life = Life::new(spec(json!([{"claimName": "a"}, {"claimName": "b", "include": ["*.json"]}])));
        for step in steps {
            match step {
                0 | 1 => { life.pass(); }
                2 | 3 => { life.world.settle(); }
                4 => { life.work(); }
                5 => life.advance(30),
                6 => life.files.fingerprint.push('x'),
                7 => life.world.edit_checkpoint(&life.uid.clone(), |checkpoint| checkpoint.spec.suspend = !checkpoint.spec.suspend),
                _ => {
                    let claims: Vec<_> = life.world.claims().values().cloned().collect();
                    if let Some(claim) = claims.first() {
                        let action = claims::delete(claim);
                        let _ignored = life.world.apply(&action);
                    }
                }
            }
            prop_assert_eq!(life.plan(), life.plan());
        }
        life.world.edit_checkpoint(&life.uid.clone(), |checkpoint| checkpoint.spec.suspend = false);
        life.run(6 * 3600);
        prop_assert_eq!(life.condition(ConditionType::Validated), "True Complete");
    }
}
