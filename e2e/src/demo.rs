//! x
/// x
pub fn run(_c: &crate::cluster::Cluster) -> anyhow::Result<()> {
    Ok(())
}
