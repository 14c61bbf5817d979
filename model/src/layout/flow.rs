//! Minimum-cost maximum flow on a small network with costs of 0 and 1: which owners a layout keeps.
//!
//! Invariant: the flow is maximal, and no other maximal flow costs less. The same network always gives the same flow.

use std::{cmp::Reverse, collections::BinaryHeap};

/// One direction of an edge; its reverse is the edge with the last bit of the index flipped.
struct Edge {
    to: usize,
    room: u64,
    cost: i64,
}

/// A network with one source and one sink.
pub(super) struct Network {
    edges: Vec<Edge>,
    leaving: Vec<Vec<usize>>,
}

impl Network {
    pub(super) fn new(n_vertices: usize) -> Self {
        Self { edges: Vec::new(), leaving: vec![Vec::new(); n_vertices] }
    }

    /// Adds an edge and says its index.
    pub(super) fn edge(&mut self, from: usize, to: usize, room: u64, cost: i64) -> usize {
        let index = self.edges.len();
        self.edges.push(Edge { to, room, cost });
        self.edges.push(Edge { to: from, room: 0, cost: -cost });
        self.leaving[from].push(index);
        self.leaving[to].push(index + 1);
        index
    }

    /// Whether anything flows through an edge.
    pub(super) fn carries(&self, edge: usize) -> bool {
        self.edges[edge ^ 1].room > 0
    }

    /// Fills the network and says how much flows.
    ///
    /// Primal-dual: distances give potentials, then everything that fits goes along edges that cost nothing beyond them. The
    /// distance of the sink rises in every round, and costs of 0 and 1 leave few values for it.
    pub(super) fn fill(&mut self, source: usize, sink: usize) -> u64 {
        let mut potential = vec![0; self.leaving.len()];
        let mut flow = 0;
        while self.raise_potentials(source, sink, &mut potential) {
            while let Some(levels) = self.levels(source, sink, &potential) {
                let mut next = vec![0; self.leaving.len()];
                flow += self.push_all(source, sink, &Admissible { levels, potential: &potential }, &mut next);
            }
        }
        flow
    }

    fn reduced(&self, from: usize, edge: usize, potential: &[i64]) -> i64 {
        self.edges[edge].cost + potential[from] - potential[self.edges[edge].to]
    }

    /// Dijkstra over reduced costs. False: the sink is out of reach.
    fn raise_potentials(&self, source: usize, sink: usize, potential: &mut [i64]) -> bool {
        let mut distance = vec![i64::MAX; self.leaving.len()];
        distance[source] = 0;
        let mut queue = BinaryHeap::from([(Reverse(0), source)]);
        while let Some((Reverse(so_far), vertex)) = queue.pop() {
            if so_far > distance[vertex] {
                continue;
            }
            for &edge in &self.leaving[vertex] {
                let to = self.edges[edge].to;
                let through = so_far + self.reduced(vertex, edge, potential);
                if self.edges[edge].room > 0 && through < distance[to] {
                    distance[to] = through;
                    queue.push((Reverse(through), to));
                }
            }
        }
        let reach = distance[sink];
        if reach == i64::MAX {
            return false;
        }
        for (potential, distance) in potential.iter_mut().zip(distance) {
            *potential += distance.min(reach);
        }
        true
    }

    /// How many edges each vertex is away from the source, over edges that cost nothing beyond the potentials.
    fn levels(&self, source: usize, sink: usize, potential: &[i64]) -> Option<Vec<usize>> {
        let mut levels = vec![usize::MAX; self.leaving.len()];
        levels[source] = 0;
        let mut frontier = vec![source];
        while !frontier.is_empty() && levels[sink] == usize::MAX {
            let mut beyond = Vec::new();
            for &vertex in &frontier {
                for &edge in &self.leaving[vertex] {
                    let to = self.edges[edge].to;
                    let open = self.edges[edge].room > 0 && self.reduced(vertex, edge, potential) == 0;
                    if open && levels[to] == usize::MAX {
                        levels[to] = levels[vertex] + 1;
                        beyond.push(to);
                    }
                }
            }
            frontier = beyond;
        }
        (levels[sink] < usize::MAX).then_some(levels)
    }

    /// Pushes along admissible paths until none is left; `next` remembers per vertex which edges are spent.
    fn push_all(&mut self, source: usize, sink: usize, rule: &Admissible<'_>, next: &mut [usize]) -> u64 {
        let mut pushed = 0;
        let mut path: Vec<usize> = Vec::new();
        loop {
            let vertex = path.last().map_or(source, |edge| self.edges[*edge].to);
            if vertex == sink {
                pushed += self.push(&path);
                path.clear();
                continue;
            }
            let spent = next[vertex];
            match self.leaving[vertex][spent..].iter().position(|edge| self.admits(vertex, *edge, rule)) {
                Some(ahead) => {
                    next[vertex] = spent + ahead;
                    path.push(self.leaving[vertex][next[vertex]]);
                }
                None => {
                    next[vertex] = self.leaving[vertex].len();
                    let Some(edge) = path.pop() else { return pushed };
                    next[self.edges[edge ^ 1].to] += 1;
                }
            }
        }
    }

    fn admits(&self, from: usize, edge: usize, rule: &Admissible<'_>) -> bool {
        let Edge { to, room, .. } = self.edges[edge];
        let deeper = rule.levels[to] < usize::MAX && rule.levels[to] == rule.levels[from] + 1;
        room > 0 && deeper && self.reduced(from, edge, rule.potential) == 0
    }

    fn push(&mut self, path: &[usize]) -> u64 {
        let fits = path.iter().map(|edge| self.edges[*edge].room).min().unwrap_or(0);
        for edge in path {
            self.edges[*edge].room -= fits;
            self.edges[edge ^ 1].room += fits;
        }
        fits
    }
}

/// Which edges one round may use.
struct Admissible<'a> {
    levels: Vec<usize>,
    potential: &'a [i64],
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cheapest_of_the_largest_flows_is_found() {
        // 0 → {1, 2} → {3, 4} → 5, one unit each. The free edge 1→3 alone would block the second unit; the largest flow
        // needs 1→4 and 2→3, or pays more.
        let mut network = Network::new(6);
        for (from, to) in [(0, 1), (0, 2), (3, 5), (4, 5)] {
            network.edge(from, to, 1, 0);
        }
        let free = network.edge(1, 3, 1, 0);
        let first = network.edge(1, 4, 1, 1);
        let second = network.edge(2, 3, 1, 1);
        assert_eq!(network.fill(0, 5), 2);
        assert!(network.carries(first) && network.carries(second) && !network.carries(free));
    }

    #[test]
    fn what_is_free_is_kept_where_it_does_not_cost_flow() {
        let mut network = Network::new(6);
        for (from, to) in [(0, 1), (0, 2), (3, 5), (4, 5)] {
            network.edge(from, to, 1, 0);
        }
        let kept = [network.edge(1, 3, 1, 0), network.edge(2, 4, 1, 0)];
        let moved = [network.edge(1, 4, 1, 1), network.edge(2, 3, 1, 1)];
        assert_eq!(network.fill(0, 5), 2);
        assert!(kept.into_iter().all(|edge| network.carries(edge)));
        assert!(!moved.into_iter().any(|edge| network.carries(edge)));
    }

    #[test]
    fn a_network_without_a_way_carries_nothing() {
        let mut network = Network::new(3);
        network.edge(0, 1, 5, 0);
        assert_eq!(network.fill(0, 2), 0);
    }
}
