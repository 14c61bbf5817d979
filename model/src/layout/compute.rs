//! Which nodes own which partition: the fullest layout that capacities and sites allow, with the fewest moves from the last one.
//!
//! A partition is as large as possible while every copy still fits, each in another site; that size gives every node its quota.
//! Within the quotas a minimum-cost flow keeps as many owners as it can. Both steps follow Garage's layout
//! (<https://garagehq.deuxfleurs.fr/documentation/design/internals/>). Invariant: the same input gives the same layout.

use std::collections::BTreeMap;

use super::{
    Layout, LayoutError, LayoutNode, NodeDuty, PARTITION_COUNT, PartitionId, Replication, flow::Network,
    rendezvous,
};
use crate::{LayoutVersion, NodeId, PoolId, SiteName};

/// Capacities are scaled up by so much, so that small ones divide finely too.
const SCALE: u128 = 1 << 32;
const PARTITIONS: u64 = PARTITION_COUNT as u64;

impl Layout {
    /// The first layout of a pool: each copy in another site, shares by capacity, the same input always the same layout.
    pub fn compute(
        version: LayoutVersion,
        pool: PoolId,
        replication: Replication,
        nodes: Vec<LayoutNode>,
    ) -> Result<Self, LayoutError> {
        let nodes = ordered(nodes)?;
        check_input(&pool, replication, &nodes)?;
        // Without a layout before it, what rendezvous hashing likes counts as one: neighbours in the id space then have different
        // pairs of owners, and the load of a lost node falls on many.
        let wanted: Vec<Vec<NodeId>> = (0..PARTITION_COUNT)
            .map(|p| {
                let indexes = rendezvous(PartitionId(p), replication.copies, &nodes);
                indexes.into_iter().map(|index| nodes[usize::from(index)].id).collect()
            })
            .collect();
        let owners = assign(&pool, replication, &nodes, &wanted)?;
        Ok(Self::at_rest((version, pool, replication), nodes, owners))
    }

    /// Owners for other nodes, capacities or copies: as few partitions move as the new quotas allow. It says nothing of who
    /// owned them before: [`Layout::changed`] does.
    pub(super) fn recompute(
        &self,
        version: LayoutVersion,
        replication: Replication,
        nodes: Vec<LayoutNode>,
    ) -> Result<Self, LayoutError> {
        let nodes = ordered(nodes)?;
        check_input(&self.pool, replication, &nodes)?;
        let wanted: Vec<Vec<NodeId>> = (0..PARTITION_COUNT)
            .map(|p| self.owners_of(PartitionId(p)).map(|owner| owner.id).collect())
            .collect();
        let owners = assign(&self.pool, replication, &nodes, &wanted)?;
        Ok(Self::at_rest((version, self.pool.clone(), replication), nodes, owners))
    }

    fn at_rest(
        (version, pool, replication): (LayoutVersion, PoolId, Replication),
        nodes: Vec<LayoutNode>,
        owners: Vec<Vec<u16>>,
    ) -> Self {
        let (moved_in, previous, handover) = Default::default();
        Self { version, pool, replication, nodes, owners, moved_in, previous, handover }
    }
}

fn ordered(mut nodes: Vec<LayoutNode>) -> Result<Vec<LayoutNode>, LayoutError> {
    nodes.sort_by_key(|node| node.id);
    match nodes.windows(2).find(|pair| pair[0].id == pair[1].id) {
        Some(pair) => Err(LayoutError::DuplicateNode(pair[0].id)),
        None => Ok(nodes),
    }
}

fn check_input(pool: &PoolId, replication: Replication, nodes: &[LayoutNode]) -> Result<(), LayoutError> {
    let Replication { copies, ack_sites } = replication;
    if ack_sites == 0 || ack_sites > copies {
        return Err(LayoutError::AckSites { ack_sites, copies });
    }
    let sites = by_site(nodes);
    if sites.len() < usize::from(copies) {
        return Err(LayoutError::TooFewSites { pool: pool.clone(), copies, sites: sites.len() });
    }
    let is_useless = |node: &&LayoutNode| node.duty == NodeDuty::Witness && sites.contains_key(&node.site);
    nodes.iter().find(is_useless).map_or(Ok(()), |node| Err(LayoutError::WitnessAmongData(node.id)))
}

/// The nodes that may own something, by site.
fn by_site(nodes: &[LayoutNode]) -> BTreeMap<&SiteName, Vec<usize>> {
    let mut sites: BTreeMap<&SiteName, Vec<usize>> = BTreeMap::new();
    for (index, node) in nodes.iter().enumerate().filter(|(_, node)| node.share_bytes() > 0) {
        sites.entry(&node.site).or_default().push(index);
    }
    sites
}

/// How many partitions each node may own: what fits when a partition is as large as it can be, in the pool, and then once
/// more in every site that could take more than one copy of everything, so that its nodes share evenly.
fn quotas(copies: u8, nodes: &[LayoutNode], sites: &BTreeMap<&SiteName, Vec<usize>>) -> Vec<u64> {
    let quota = |index: usize, size: u128| {
        let fits = u128::from(nodes[index].share_bytes()) * SCALE / size;
        u64::try_from(fits).unwrap_or(PARTITIONS).min(PARTITIONS)
    };
    let of_site = |members: &[usize], size| members.iter().map(|index| quota(*index, size)).sum::<u64>();
    let pool_size = largest(|size| {
        let room = |members: &Vec<usize>| of_site(members, size).min(PARTITIONS);
        sites.values().map(room).sum::<u64>() >= PARTITIONS * u64::from(copies)
    });
    let mut quotas = vec![0; nodes.len()];
    for members in sites.values() {
        let everything = of_site(members, pool_size) >= PARTITIONS;
        let size = if everything { largest(|size| of_site(members, size) >= PARTITIONS) } else { pool_size };
        for index in members {
            quotas[*index] = quota(*index, size);
        }
    }
    quotas
}

/// The largest size that still fits; the smaller, the better it fits.
fn largest(fits: impl Fn(u128) -> bool) -> u128 {
    let (mut low, mut high) = (1, u128::from(u64::MAX) * SCALE);
    while low < high {
        let middle = low + (high - low).div_ceil(2);
        if fits(middle) { low = middle } else { high = middle - 1 }
    }
    low
}

/// The owners of every partition as indexes into `nodes`, the first owner first.
fn assign(
    pool: &PoolId,
    replication: Replication,
    nodes: &[LayoutNode],
    wanted: &[Vec<NodeId>],
) -> Result<Vec<Vec<u16>>, LayoutError> {
    let sites = by_site(nodes);
    let quotas = quotas(replication.copies, nodes, &sites);
    let partitions = usize::from(PARTITION_COUNT);
    // Vertices: source, sink, nodes, partitions, (partition, site).
    let (source, sink, first_node) = (0, 1, 2);
    let first_partition = first_node + nodes.len();
    let first_pair = first_partition + partitions;
    let mut network = Network::new(first_pair + partitions * sites.len());
    for (index, quota) in quotas.iter().enumerate() {
        network.edge(first_node + index, sink, *quota, 0);
    }
    let mut owns = Vec::new();
    for (partition, wanted) in wanted.iter().enumerate() {
        network.edge(source, first_partition + partition, u64::from(replication.copies), 0);
        for (place, members) in sites.values().enumerate() {
            let pair = first_pair + partition * sites.len() + place;
            network.edge(first_partition + partition, pair, 1, 0);
            // Turned by the partition, so that what must move is spread over the site.
            for turn in 0..members.len() {
                let index = members[(turn + partition) % members.len()];
                let cost = i64::from(!wanted.contains(&nodes[index].id));
                owns.push((partition, index, network.edge(pair, first_node + index, 1, cost)));
            }
        }
    }
    let needed = PARTITIONS * u64::from(replication.copies);
    if network.fill(source, sink) < needed {
        return Err(LayoutError::TooFewSites {
            pool: pool.clone(),
            copies: replication.copies,
            sites: sites.len(),
        });
    }
    let mut owners = vec![Vec::new(); partitions];
    for (partition, index, edge) in owns {
        if network.carries(edge) {
            owners[partition].push(index);
        }
    }
    Ok(owners.into_iter().zip(0..).map(|(owners, p)| in_order(PartitionId(p), owners, nodes)).collect())
}

/// Orders owners by their rendezvous weight, so that being first is spread by capacity too.
fn in_order(partition: PartitionId, owners: Vec<usize>, nodes: &[LayoutNode]) -> Vec<u16> {
    let mut ranked: Vec<(f64, usize)> =
        owners.into_iter().map(|index| (super::weight(partition, &nodes[index]), index)).collect();
    ranked.sort_by(|a, b| b.0.total_cmp(&a.0).then(a.1.cmp(&b.1)));
    ranked.into_iter().filter_map(|(_, index)| u16::try_from(index).ok()).collect()
}
