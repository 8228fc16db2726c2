//! A second observer and applier for the same plan, without a cluster: claims are folders. Only `plan` computes conditions.

pub mod world;

pub use world::World;
