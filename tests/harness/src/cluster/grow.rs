//! Storage nodes that come later, or start again with other options.

use holdfast_model::Role;

use super::{Cluster, ClusterOptions, node, pool_node, role, write_config};

impl Cluster {
    /// Starts one more storage node, and names it in the configuration of every coordinator, which reads that at its next
    /// start. `duty` is `data` or `witness`.
    pub fn add_node(&mut self, options: &ClusterOptions, site: &str, duty: &str) {
        let id = self.nodes.len() + 1;
        let address = self.node_addresses[id - 1].clone();
        let port = address.rsplit_once(':').and_then(|(_, port)| port.parse().ok()).expect("a port");
        let name = format!("node-{id}");
        let text = node(&self.folder, options, (id, site), port);
        let config = write_config(&self.folder, &self.pki, options, (Role::StorageNode, &name), &text);
        self.nodes.push(role(&self.folder, &name, "storage-node", &config));
        for nth in 1..=self.coordinators.len() {
            let path = self.folder.join(format!("coordinator-{nth}.toml"));
            let text = std::fs::read_to_string(&path).expect("read the configuration");
            // The pool's nodes come last.
            std::fs::write(&path, text + &pool_node(id, site, &address, duty))
                .expect("write the configuration");
        }
    }

    /// Replaces a line of a storage node's configuration; the node reads it at its next start.
    pub fn set_node_option(&self, index: usize, option: &str, value: &str) {
        let path = self.node_config(index);
        let text = std::fs::read_to_string(&path).expect("read the configuration");
        let prefix = format!("{option} = ");
        assert_eq!(text.lines().filter(|line| line.starts_with(&prefix)).count(), 1, "{option} in {text}");
        let set = |line: &str| match line.starts_with(&prefix) {
            true => format!("{prefix}{value}\n"),
            false => format!("{line}\n"),
        };
        std::fs::write(&path, text.lines().map(set).collect::<String>()).expect("write the configuration");
    }
}
