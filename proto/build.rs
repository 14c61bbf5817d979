//! Compiles the wire format. protox reads the .proto files, so no protoc needs to be installed.

/// What the operator's command line prints with `--json`.
const PRINTED_AS_JSON: &[&str] = &[
    "Account",
    "AuditRow",
    "BrowseEntry",
    "BrowseResponse",
    "ChangeLayoutResponse",
    "ConnectTenantResponse",
    "DiffResponse",
    "FailedGroup",
    "FailedItem",
    "GetJobResponse",
    "GetLayoutResponse",
    "GetRunResponse",
    "GetStatusResponse",
    "Job",
    "LayoutMember",
    "ListAuditResponse",
    "ListJobsResponse",
    "ListNodesResponse",
    "ListResourcesResponse",
    "ListSnapshotsResponse",
    "ListTenantsResponse",
    "Node",
    "NodeMove",
    "NodeUploads",
    "PermissionCheck",
    "QuotaUse",
    "Resource",
    "RestorePlan",
    "SearchEnd",
    "SearchHit",
    "Snapshot",
    "StartRestoreResponse",
    "StartRunResponse",
    "StorageHealth",
    "Tenant",
    "TenantStatus",
    "UnreadSnapshot",
    "WorkloadStatus",
];

/// Messages that hold secrets: their `Debug` is written by hand in `secret.rs`.
const SECRETS: &[&str] = &[
    "holdfast.coordinator.v1.Keys",
    "holdfast.coordinator.v1.GraphToken",
    "holdfast.coordinator.v1.AppRegistration",
    "holdfast.storage.v1.SessionToken",
];

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let files = [
        "holdfast/storage/v1/storage.proto",
        "holdfast/coordinator/v1/worker.proto",
        "holdfast/coordinator/v1/operator.proto",
    ];
    for file in files {
        println!("cargo:rerun-if-changed=proto/{file}");
    }
    let descriptors = protox::compile(files, ["proto"])?;
    let mut builder = tonic_prost_build::configure().bytes(".").skip_debug(SECRETS);
    for message in PRINTED_AS_JSON {
        builder = builder
            .message_attribute(format!("holdfast.coordinator.v1.{message}"), "#[derive(serde::Serialize)]");
    }
    builder.compile_fds(descriptors)?;
    Ok(())
}
