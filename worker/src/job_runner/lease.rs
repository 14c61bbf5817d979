//! A lease as the worker uses it: typed, with tokens that heartbeats renew.

use std::{
    path::PathBuf,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use holdfast_graph_client::{AccessToken, Cloud, GraphClient, GraphOptions, HeldToken, QuotaLedger};
use holdfast_model::{
    Clock, ConflictPolicy, Epoch, ExportFormat, Fence, JobClass, JobId, JobKind, Layout, ResourceId,
    Sequence, TenantId, Workload,
};
use holdfast_proto::{
    convert::{WireError, id, required, word},
    coordinator::{self, GraphToken, HeartbeatResponse, RejectedToken, lease},
    storage::SessionToken,
};
use holdfast_record::Pin;
use holdfast_repository::JobKeys;
use holdfast_storage_client::{ReadStore, StorageSession};

use crate::{JobError, backup::Shared};

/// What a backup is to do.
pub(crate) struct BackupSpec {
    pub base: Option<Pin>,
    pub sequence: Sequence,
    pub epoch: Epoch,
    pub retain_until_ms: u64,
}

/// What a restore is to do.
pub(crate) struct RestoreSpec {
    pub pin: Pin,
    pub paths: Vec<String>,
    pub into: String,
    pub conflict: ConflictPolicy,
    pub restore_key: String,
}

/// What an export is to do.
pub(crate) struct ExportSpec {
    pub pin: Pin,
    pub paths: Vec<String>,
    pub format: ExportFormat,
    pub out: PathBuf,
}

/// What a shard is to do.
pub(crate) struct ShardSpec {
    pub input: Bytes,
}

/// What a verify is to do.
pub(crate) struct VerifySpec {
    pub pin: Pin,
    pub sample_percent: u32,
}

pub(crate) enum Spec {
    Backup(BackupSpec),
    Restore(RestoreSpec),
    Export(ExportSpec),
    Verify(VerifySpec),
    Shard(ShardSpec),
}

struct Access {
    graph: coordinator::GraphAccess,
    token: Arc<HeldToken>,
}

/// Who gets the next session token.
#[derive(Clone)]
pub(crate) enum TokenUser {
    Session(StorageSession),
    Reader(ReadStore),
}

/// A claimed job.
pub(crate) struct HeldLease {
    pub job: JobId,
    pub fence: Fence,
    pub kind: JobKind,
    pub class: JobClass,
    pub workload: Workload,
    pub tenant: TenantId,
    pub resource: ResourceId,
    pub keys: Arc<JobKeys>,
    pub layout: Arc<Layout>,
    pub spec: Spec,
    access: Option<Access>,
    lease_ms: AtomicU64,
    session_token: Mutex<SessionToken>,
    token_users: Mutex<Vec<TokenUser>>,
}

impl HeldLease {
    /// Reads what the coordinator sent.
    pub fn read(wire: coordinator::Lease, clock: Arc<dyn Clock>) -> Result<Self, JobError> {
        let tenant = id("tenant", &wire.tenant)?;
        let resource = id("resource", &wire.resource)?;
        let keys = required("keys", wire.keys)?;
        let keys = JobKeys::from_bytes(&keys.job_keys).map_err(holdfast_repository::Error::from)?;
        if keys.tenant != tenant || keys.resource != resource {
            return Err(WireError { field: "keys", problem: "those of another resource" }.into());
        }
        let access = match wire.graph {
            None => None,
            Some(mut graph) => {
                let token = required("graph.token", graph.token.take())?;
                Some(Access { graph, token: Arc::new(HeldToken::new(access_token(token), clock)) })
            }
        };
        Ok(Self {
            job: id("job", &wire.job)?,
            fence: required("fence", wire.fence)?.into(),
            kind: word("kind", &wire.kind)?,
            class: word("class", &wire.class)?,
            workload: word("workload", &wire.workload)?,
            tenant,
            resource,
            keys: Arc::new(keys),
            layout: Arc::new(Layout::try_from(required("layout", wire.layout)?)?),
            spec: read_spec(required("spec", wire.spec)?)?,
            access,
            lease_ms: AtomicU64::new(wire.lease_ms),
            session_token: Mutex::new(required("session_token", wire.session_token)?),
            token_users: Mutex::default(),
        })
    }

    /// How long the lease is.
    pub fn duration(&self) -> Duration {
        Duration::from_millis(self.lease_ms.load(Ordering::Relaxed))
    }

    /// The session token as it is now.
    pub fn session_token(&self) -> SessionToken {
        self.session_token.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// From now on this one gets new session tokens too.
    pub fn keep_renewed(&self, user: TokenUser) {
        self.token_users.lock().unwrap_or_else(PoisonError::into_inner).push(user);
    }

    /// Takes what a heartbeat brought.
    pub fn renew(&self, answer: HeartbeatResponse) {
        if answer.lease_ms > 0 {
            self.lease_ms.store(answer.lease_ms, Ordering::Relaxed);
        }
        if let (Some(token), Some(access)) = (answer.token, &self.access) {
            access.token.set(access_token(token));
        }
        if let Some(token) = answer.session_token {
            for user in self.token_users.lock().unwrap_or_else(PoisonError::into_inner).iter() {
                match user {
                    TokenUser::Session(session) => session.set_token(token.clone()),
                    TokenUser::Reader(reader) => reader.set_token(token.clone()),
                }
            }
            *self.session_token.lock().unwrap_or_else(PoisonError::into_inner) = token;
        }
    }

    /// That Microsoft refuses the Graph token, for the coordinator.
    pub fn rejected_token(&self) -> Option<RejectedToken> {
        let rejection = self.access.as_ref()?.token.rejection()?;
        let claims = rejection.claims.map(|claims| claims.as_str().to_owned()).unwrap_or_default();
        Some(RejectedToken { fingerprint: rejection.fingerprint.0.to_vec().into(), claims })
    }

    /// Waits until Microsoft refuses the Graph token; for ever where there is none. Cancel safe.
    pub async fn token_rejected(&self) {
        match &self.access {
            Some(access) => access.token.rejected().await,
            None => std::future::pending().await,
        }
    }

    /// Microsoft's id of the user.
    pub fn user_id(&self) -> Result<&str, JobError> {
        let access = required("graph", self.access.as_ref())?;
        Ok(&access.graph.user_id)
    }

    /// A client for this job, counted in the shared ledger.
    pub fn graph(
        &self,
        user_agent: &str,
        ledger: Arc<dyn QuotaLedger>,
        shared: &Shared,
    ) -> Result<GraphClient, JobError> {
        let access = required("graph", self.access.as_ref())?;
        let graph = &access.graph;
        let cloud: Cloud = word("graph.cloud", &graph.cloud)?;
        let mut options = GraphOptions::new(cloud, &graph.microsoft_tenant, &graph.client_id);
        if !graph.graph_url.is_empty() {
            options.graph_url.clone_from(&graph.graph_url);
        }
        user_agent.clone_into(&mut options.user_agent);
        let (clock, random) = (shared.clock.clone(), shared.random.clone());
        Ok(GraphClient::new(options, access.token.clone(), ledger, self.class, clock, random)?)
    }
}

fn access_token(token: GraphToken) -> AccessToken {
    AccessToken::new(token.access_token, token.expires_at_ms)
}

fn read_spec(spec: lease::Spec) -> Result<Spec, JobError> {
    Ok(match spec {
        lease::Spec::Backup(spec) => Spec::Backup(BackupSpec {
            base: if spec.base_pin.is_empty() { None } else { Some(Pin::decode(&spec.base_pin)?) },
            sequence: Sequence(spec.sequence),
            epoch: Epoch(spec.epoch),
            retain_until_ms: spec.retain_until_ms,
        }),
        lease::Spec::Restore(spec) => Spec::Restore(RestoreSpec {
            pin: Pin::decode(&spec.pin)?,
            paths: spec.paths,
            into: spec.into,
            conflict: word("conflict", &spec.conflict)?,
            restore_key: spec.restore_key,
        }),
        lease::Spec::Export(spec) => Spec::Export(ExportSpec {
            pin: Pin::decode(&spec.pin)?,
            paths: spec.paths,
            format: word("format", &spec.format)?,
            out: spec.out.into(),
        }),
        lease::Spec::Verify(spec) => Spec::Verify(VerifySpec {
            pin: Pin::decode(&spec.pin)?,
            sample_percent: spec.sample_percent.clamp(1, 100),
        }),
        lease::Spec::Shard(spec) => Spec::Shard(ShardSpec { input: spec.input }),
    })
}
