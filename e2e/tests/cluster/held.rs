//! Checkpoints that are held at a chosen point of their life (network and file I/O).

use anyhow::{Context, Result};
use checkpoint_operator_e2e::kubernetes::{CHECKPOINT, PATIENCE};
use checkpoint_operator_e2e::wait::{Now, wait_until_async};
use kube::ResourceExt;
use serde_json::{Value, json};

use super::support::{IMMEDIATE_CLASS, Scene};
use super::traces::{folder_of, wait_child, wait_volume, wait_worker_runs};
use super::valve::{LISTING, Valve};

/// The file that a held load lacks. Files of more than 1 MiB are completed one by one.
pub const HELD: &str = "held.dat";
const LARGE: usize = 2 << 20;
/// The files that a held load has.
pub const OTHERS: [&str; 3] = ["a.dat", "b.dat", "c.txt"];

/// The points at which a life can be held.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Point {
    /// The first worker lists and gets no answer.
    Inspecting,
    /// The load's pod finds no node, so a volume that waits for it is not there either.
    Unscheduled,
    /// All files but one are on disk; that one gets no answer.
    Loading,
    /// Loaded and not published, because of `spec.suspend`.
    Loaded,
    /// Done.
    Published,
}

impl Point {
    /// All of them, in the order of a life.
    pub const ALL: [Self; 5] = [Self::Inspecting, Self::Unscheduled, Self::Loading, Self::Loaded, Self::Published];

    /// For names of objects.
    pub fn name(self) -> &'static str {
        match self {
            Self::Inspecting => "inspecting",
            Self::Unscheduled => "unscheduled",
            Self::Loading => "loading",
            Self::Loaded => "loaded",
            Self::Published => "published",
        }
    }
}

/// A Checkpoint at such a point. Its claim has its name.
pub struct Held {
    pub name: String,
    pub uid: String,
    pub valve: Valve,
}

/// Uploads what all held Checkpoints of a scene share.
pub fn upload(scene: &Scene) -> Result<()> {
    let (large, held) = (vec![1; LARGE], vec![2; LARGE]);
    scene.put("run", &[("a.dat", &large), ("b.dat", &large), ("c.txt", b"small"), (HELD, &held)])
}

/// Makes a Checkpoint and waits until it is at the point.
pub async fn hold(scene: &Scene, point: Point, policy: &str) -> Result<Held> {
    let marker = if point == Point::Inspecting { LISTING } else { HELD };
    let valve = Valve::holding(&scene.s3.endpoint, marker).await?;
    let name = point.name().to_owned();
    let uid = scene.checkpoint(&name, spec(scene, &valve, &name, point, policy)).await?.uid().context("no UID")?;
    let held = Held { name, uid, valve };
    held.reach(scene, point).await.with_context(|| format!("on the way to {point:?}"))?;
    Ok(held)
}

fn spec(scene: &Scene, valve: &Valve, claim: &str, point: Point, policy: &str) -> Value {
    let mut spec = scene.s3_spec("run", &[claim]);
    spec["storage"]["s3"]["endpoint"] = json!(valve.endpoint);
    // The inspection is not to read the file that holds the load.
    spec["validation"] = json!({"depth": "Listing", "pickle": "Allow"});
    spec["volumes"][0]["deletionPolicy"] = json!(policy);
    if point == Point::Unscheduled {
        spec["volumes"][0]["placement"] = json!({"nodeSelector": {"node": "none-here"}});
    } else if point == Point::Loaded {
        spec["volumes"][0]["storageClassName"] = json!(IMMEDIATE_CLASS);
    }
    spec
}

impl Held {
    async fn reach(&self, scene: &Scene, point: Point) -> Result<()> {
        match point {
            Point::Inspecting => {
                wait_worker_runs(scene, &self.uid, "inspect").await?;
                self.wait_asked(LISTING).await
            }
            Point::Unscheduled => {
                wait_child(scene, "v1/Pod", &self.uid, "load").await?;
                scene.condition(&self.name, "Materialized", "Unknown", "WorkerNotStarting").await.map(drop)
            }
            Point::Loading => self.wait_all_but_one(scene).await,
            Point::Loaded => {
                self.wait_all_but_one(scene).await?;
                self.suspend(scene, true).await?;
                self.valve.open();
                wait_volume(scene, &self.name, "Publishing", "Suspended").await
            }
            Point::Published => {
                self.valve.open();
                scene.ready(&self.name).await.map(drop)
            }
        }
    }

    /// Sets `spec.suspend`.
    pub async fn suspend(&self, scene: &Scene, suspend: bool) -> Result<()> {
        let patch = json!({"spec": {"suspend": suspend}});
        scene.kube.merge(CHECKPOINT, &scene.namespace, &self.name, patch).await.map(drop)
    }

    /// Waits until a request with the text was made.
    pub async fn wait_asked(&self, marker: &str) -> Result<()> {
        wait_until_async(&format!("a request with {marker}"), PATIENCE, async || {
            let requests = self.valve.requests();
            Ok(Now::when(requests.iter().any(|line| line.contains(marker)), &format!("{requests:?}")))
        })
        .await
    }

    /// Waits until all files but one have their names on the node's disk, and the worker asks for that one.
    async fn wait_all_but_one(&self, scene: &Scene) -> Result<()> {
        let staging = wait_child(scene, "v1/PersistentVolumeClaim", &self.uid, "staging").await?.name_any();
        wait_worker_runs(scene, &self.uid, "load").await?;
        let folder = folder_of(&scene.kube, &scene.namespace, &staging).await?;
        wait_until_async("all files but one to be on disk", PATIENCE, async || {
            let there: Vec<_> = OTHERS.iter().filter(|name| folder.join(name).exists()).collect();
            Ok(Now::when(there.len() == OTHERS.len(), &format!("{there:?} in {}", folder.display())))
        })
        .await?;
        self.wait_asked(HELD).await
    }

    /// How often each file of [`OTHERS`] was asked for.
    pub fn asked_for_others(&self) -> usize {
        let asks = |line: &String| OTHERS.iter().any(|name| line.contains(&format!("/run/{name}")));
        self.valve.requests().iter().filter(|line| asks(line)).count()
    }

    /// Lets it go on to the end, and looks at the bytes.
    pub async fn finish(&self, scene: &Scene) -> Result<()> {
        self.valve.open();
        self.suspend(scene, false).await?;
        scene.ready(&self.name).await?;
        let folder = folder_of(&scene.kube, &scene.namespace, &self.name).await?;
        for (name, byte) in [("a.dat", 1), ("b.dat", 1), (HELD, 2)] {
            let bytes = std::fs::read(folder.join(name))?;
            anyhow::ensure!(bytes.len() == LARGE && bytes.iter().all(|found| *found == byte), "{name} is wrong");
        }
        Ok(())
    }
}
