//! A second observer and applier for the same plan, without a cluster: claims are folders. Only `plan` computes conditions.

pub mod documents;
pub mod schema;
pub mod world;

pub use documents::{DocumentError, Documents};
pub use world::World;
