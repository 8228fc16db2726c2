//! The test cluster and the helpers of the tests on it; this crate runs commands and talks to Kubernetes.
//!
//! `cargo e2e up` brings up a real one-node Kubernetes in a network namespace of its own; the tests
//! under `e2e/tests` and the demo use it (or the cluster that `KUBECONFIG` names) through these modules.

pub mod audit;
pub mod bench;
pub mod cache;
pub mod cluster;
pub mod command;
pub mod demo;
pub mod dependencies;
pub mod fixtures;
pub mod folder_server;
#[path = "../fuzz/src/suite/mod.rs"]
pub mod fuzzing;
pub mod go_tools;
pub mod image;
pub mod images;
pub mod kubernetes;
pub mod operator;
pub mod paths;
pub mod python;
pub mod s3;
pub mod schemas;
pub mod seaweedfs;
pub mod servers;
pub mod stages;
pub mod tiny_volume;
pub mod wait;
