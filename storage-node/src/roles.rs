//! Which role may call which RPC of the storage node, and which node a certificate names.

use holdfast_model::{
    NodeId,
    Role::{self, Coordinator, Operator, StorageNode, Worker},
};
use holdfast_runtime::{PeerIdentity, RoleTable};
use tonic::Request;

use crate::{Error, StorageNodeOptions};

const EVERYBODY: &[Role] = &[Coordinator, Worker, StorageNode, Operator];
const WRITER: &[Role] = &[Worker];
const READER: &[Role] = &[Worker, Coordinator];

/// Every RPC and who may call it. What is not here is refused.
pub static ROLE_TABLE: RoleTable = RoleTable(&[
    ("/holdfast.storage.v1.StorageNode/Hello", EVERYBODY),
    ("/holdfast.storage.v1.StorageNode/OpenSession", WRITER),
    ("/holdfast.storage.v1.StorageNode/RenewSession", WRITER),
    ("/holdfast.storage.v1.StorageNode/CloseSession", WRITER),
    ("/holdfast.storage.v1.StorageNode/Have", WRITER),
    ("/holdfast.storage.v1.StorageNode/Put", WRITER),
    ("/holdfast.storage.v1.StorageNode/Get", READER),
    // The coordinator sends the ticket of a vanished worker again.
    ("/holdfast.storage.v1.StorageNode/PutPin", READER),
    ("/holdfast.storage.v1.StorageNode/PutCheckpoint", WRITER),
    ("/holdfast.storage.v1.StorageNode/ReadPins", READER),
    ("/holdfast.storage.v1.StorageNode/RaiseFence", &[Coordinator]),
    ("/holdfast.storage.v1.StorageNode/ApplyLayout", &[Coordinator]),
    ("/holdfast.storage.v1.StorageNode/Status", &[Coordinator, Operator]),
    ("/holdfast.storage.v1.StorageNode/Replicate", &[StorageNode]),
    ("/holdfast.storage.v1.StorageNode/HaveLocal", &[StorageNode]),
    ("/holdfast.storage.v1.StorageRepair/Digests", &[StorageNode]),
    ("/holdfast.storage.v1.StorageRepair/Leaves", &[StorageNode]),
    ("/holdfast.storage.v1.StorageRepair/Keys", &[StorageNode]),
    ("/holdfast.storage.v1.StorageRepair/Holds", &[StorageNode]),
    ("/holdfast.storage.v1.StorageRepair/Fetch", &[StorageNode]),
    ("/holdfast.storage.v1.StorageRepair/Mend", &[StorageNode]),
    ("/holdfast.storage.v1.StorageRepair/HandOver", &[StorageNode]),
]);

/// Which node calls, by its certificate: none where that is not the one of a node.
pub(crate) fn node_of<T>(request: &Request<T>) -> Option<NodeId> {
    request.extensions().get::<PeerIdentity>().and_then(node_named)
}

fn node_named(identity: &PeerIdentity) -> Option<NodeId> {
    let id = identity.name.strip_prefix("node-").and_then(|id| id.parse().ok()).map(NodeId);
    // One way to write it: `node-07` is nobody.
    id.filter(|id| identity.role == StorageNode && identity.name == id.to_string())
}

/// Refuses a certificate that was made for another process: the other nodes would hand nothing over to this one.
pub(crate) fn check_certificate(options: &StorageNodeOptions) -> Result<(), Error> {
    let refused = |error: holdfast_runtime::GrpcError| Error::Grpc(error.into());
    options.tls.check_role(StorageNode).map_err(refused)?;
    let identity = options.tls.identity().map_err(refused)?;
    let own = NodeId(options.node_id);
    if node_named(&identity) == Some(own) {
        return Ok(());
    }
    let problem = format!("is the certificate of '{}': give this node the one of '{own}'", identity.name);
    Err(Error::Option { option: "tls.cert-file", problem })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_certificate_names_one_node() {
        let named = |role, name: &str| {
            node_named(&PeerIdentity { cluster: "test".to_owned(), role, name: name.to_owned() })
        };
        assert_eq!(named(StorageNode, "node-7"), Some(NodeId(7)));
        for wrong in ["node-07", "node-+7", "node-", "7", "node-7-b"] {
            assert_eq!(named(StorageNode, wrong), None, "{wrong}");
        }
        assert_eq!(named(Worker, "node-7"), None);
    }

    #[test]
    fn every_rpc_of_the_service_is_in_the_table_and_nothing_else() {
        let proto = include_str!("../../proto/proto/holdfast/storage/v1/storage.proto");
        let (mut declared, mut service) = (Vec::new(), "");
        for line in proto.lines().map(str::trim) {
            if let Some(name) = line.strip_prefix("service ") {
                service = name.trim_end_matches(" {");
            } else if let Some(name) = line.strip_prefix("rpc ").and_then(|rest| rest.split('(').next()) {
                declared.push(format!("/holdfast.storage.v1.{service}/{name}"));
            }
        }
        assert!(declared.len() >= 22, "found only {} RPCs", declared.len());
        for rpc in &declared {
            assert!(ROLE_TABLE.roles(rpc).is_some_and(|roles| !roles.is_empty()), "{rpc} has no roles");
        }
        assert!(ROLE_TABLE.rpcs().all(|rpc| declared.iter().any(|one| one == rpc)));
    }

    #[test]
    fn only_storage_nodes_repair() {
        let repair: Vec<_> = ROLE_TABLE.rpcs().filter(|rpc| rpc.contains("StorageRepair/")).collect();
        assert_eq!(repair.len(), 7);
        assert!(repair.iter().all(|rpc| ROLE_TABLE.roles(rpc) == Some(&[StorageNode][..])));
    }

    #[test]
    fn only_storage_nodes_replicate_and_only_the_coordinator_rules() {
        let roles = |rpc: &str| ROLE_TABLE.roles(&format!("/holdfast.storage.v1.StorageNode/{rpc}")).unwrap();
        assert_eq!(roles("Replicate"), &[StorageNode]);
        assert_eq!(roles("ApplyLayout"), &[Coordinator]);
        assert!(!roles("Get").contains(&Operator));
    }
}
