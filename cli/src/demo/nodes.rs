//! Storage nodes as child processes of this binary.
//!
//! They never outlive it: killed when dropped, and where this process dies without dropping anything (`kill -9`) their standard
//! input ends, and they with it.

use std::{
    os::unix::process::CommandExt as _,
    process::{Child, Command, Stdio},
};

use crate::{error::CliError, local::LocalCluster};

/// The running nodes, each with its site. Killed when dropped.
pub struct NodeProcesses(Vec<(String, Child)>);

impl NodeProcesses {
    pub fn start(cluster: &LocalCluster) -> Result<Self, CliError> {
        let binary = std::env::current_exe()?;
        let mut nodes = Self(Vec::new());
        for node in &cluster.nodes {
            let child = Command::new(&binary)
                .args(["storage-node", "--config"])
                .arg(&node.config)
                .arg("--until-stdin-ends")
                // Ctrl-C in a terminal is for the demo, which then stops them in its order.
                .process_group(0)
                .stdin(Stdio::piped())
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .spawn()?;
            nodes.0.push((node.site.clone(), child));
        }
        Ok(nodes)
    }

    /// `kill -9` on every node of a site: how many there were.
    pub fn kill_site(&mut self, site: &str) -> usize {
        let mut killed = 0;
        for (_, child) in self.0.iter_mut().filter(|(of, _)| of == site) {
            // An error means that it is gone already, which is what was wanted.
            let _ = child.kill();
            let _ = child.wait();
            killed += 1;
        }
        killed
    }

    pub fn stop(self) {
        drop(self);
    }
}

impl Drop for NodeProcesses {
    fn drop(&mut self) {
        for (_, child) in &mut self.0 {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}
