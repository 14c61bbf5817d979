//! Calls the coordinator: one that is away is followed by the next, with back-off, for a bounded time.
//!
//! The one thing to know: "fenced" is an answer, not a failure to reach: it is never tried again elsewhere.

use std::{
    future::Future,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use holdfast_model::{Random, Role};
use holdfast_proto::{
    coordinator::{
        ClaimRequest, FinishJobRequest, HeartbeatRequest, HeartbeatResponse, Lease, PrepareCommitRequest,
        RecordCommitRequest, ReleaseJobRequest, SyncShardsRequest, SyncShardsResponse,
        worker_api_client::WorkerApiClient,
    },
    status::ErrorCode,
    storage::CommitTicket,
};
use holdfast_runtime::{Backoff, Channels, TlsOptions, grpc::TracedChannel};
use tonic::{Response, Status, transport::Channel};

use crate::{CoordinatorError, Error};

type Client = WorkerApiClient<TracedChannel<Channel>>;

/// How long one call may take.
const CALL_TIMEOUT: Duration = Duration::from_secs(20);
/// Passes over all coordinators for a claim or a heartbeat: the next one comes soon.
const SHORT_PASSES: u32 = 2;
/// Passes for reports and commits: uploads are done, so they wait for about half an hour.
const LONG_PASSES: u32 = 80;
/// The largest answer: a lease with a layout.
const MESSAGE_BYTES_MAX: usize = 16 << 20;

/// Talks to whichever coordinator answers; clones share which one that was.
#[derive(Clone)]
pub struct CoordinatorClient {
    clients: Arc<[Client]>,
    preferred: Arc<AtomicUsize>,
    backoff: Backoff,
    random: Arc<dyn Random>,
}

impl CoordinatorClient {
    /// Makes a client; connections are made when first used.
    pub fn new(addresses: &[String], tls: &TlsOptions, random: Arc<dyn Random>) -> Result<Self, Error> {
        let connect = |address: &String| {
            let channel = Channels::traced(Channels::connect(address, tls, Role::Coordinator)?);
            Ok(Client::new(channel)
                .max_decoding_message_size(MESSAGE_BYTES_MAX)
                .max_encoding_message_size(MESSAGE_BYTES_MAX))
        };
        let clients = addresses.iter().map(connect).collect::<Result<Arc<[Client]>, Error>>()?;
        let backoff = Backoff::new(Duration::from_millis(250), Duration::from_secs(30), LONG_PASSES)
            .expect("250 ms is below 30 s");
        Ok(Self { clients, preferred: Arc::default(), backoff, random })
    }

    /// Takes a job; none when it is refused.
    pub async fn claim(&self, request: ClaimRequest) -> Result<Option<Lease>, CoordinatorError> {
        let answer = self
            .call(SHORT_PASSES, &request, |mut client, request| async move { client.claim(request).await });
        Ok(answer.await?.lease)
    }

    /// Extends the lease.
    pub async fn heartbeat(&self, request: HeartbeatRequest) -> Result<HeartbeatResponse, CoordinatorError> {
        self.call(1, &request, |mut client, request| async move { client.heartbeat(request).await }).await
    }

    /// Asks for the ticket of a pin; waits while coordinators are away.
    pub async fn prepare_commit(
        &self,
        request: PrepareCommitRequest,
    ) -> Result<CommitTicket, CoordinatorError> {
        let call = |mut client: Client, request| async move { client.prepare_commit(request).await };
        let answer = self.call(LONG_PASSES, &request, call).await?;
        answer
            .ticket
            .ok_or_else(|| CoordinatorError::Refused { reason: "no ticket in the answer".to_owned() })
    }

    /// Records that a majority holds the pin; waits while coordinators are away.
    pub async fn record_commit(&self, request: RecordCommitRequest) -> Result<(), CoordinatorError> {
        let call = |mut client: Client, request| async move { client.record_commit(request).await };
        self.call(LONG_PASSES, &request, call).await.map(drop)
    }

    /// Ends a job that commits no snapshot; waits while coordinators are away.
    pub async fn finish(&self, request: FinishJobRequest) -> Result<(), CoordinatorError> {
        let call = |mut client: Client, request| async move { client.finish_job(request).await };
        self.call(LONG_PASSES, &request, call).await.map(drop)
    }

    /// Says which shards are wanted; the next call follows soon.
    pub async fn sync_shards(
        &self,
        request: SyncShardsRequest,
    ) -> Result<SyncShardsResponse, CoordinatorError> {
        self.call(1, &request, |mut client, request| async move { client.sync_shards(request).await }).await
    }

    /// Gives a job back.
    pub async fn release(&self, request: ReleaseJobRequest) -> Result<(), CoordinatorError> {
        let call = |mut client: Client, request| async move { client.release_job(request).await };
        self.call(SHORT_PASSES, &request, call).await.map(drop)
    }

    async fn call<Q, A, F, Fut>(&self, passes: u32, request: &Q, call: F) -> Result<A, CoordinatorError>
    where
        Q: Clone,
        F: Fn(Client, Q) -> Fut,
        Fut: Future<Output = Result<Response<A>, Status>>,
    {
        let mut reason = String::new();
        for pass in 0..passes {
            for offset in 0..self.clients.len() {
                let index = (self.preferred.load(Ordering::Relaxed) + offset) % self.clients.len();
                let answer =
                    tokio::time::timeout(CALL_TIMEOUT, call(self.clients[index].clone(), request.clone()))
                        .await;
                let status = match answer {
                    Ok(Ok(answer)) => {
                        self.preferred.store(index, Ordering::Relaxed);
                        return Ok(answer.into_inner());
                    }
                    Ok(Err(status)) => status,
                    Err(_) => ErrorCode::Unavailable.status("no answer in time"),
                };
                reason = match judge(&status) {
                    Some(refused) => return Err(refused),
                    None => status.message().to_owned(),
                };
            }
            if pass + 1 < passes {
                tokio::time::sleep(self.backoff.delay(pass, self.random.as_ref())).await;
            }
        }
        Err(CoordinatorError::Unavailable { reason })
    }
}

/// What to tell the caller at once; none when another coordinator may answer better.
fn judge(status: &Status) -> Option<CoordinatorError> {
    let reason = || status.message().to_owned();
    match ErrorCode::of(status) {
        ErrorCode::Fenced => Some(CoordinatorError::Fenced),
        ErrorCode::BadRequest | ErrorCode::NotFound | ErrorCode::Conflict | ErrorCode::Forbidden => {
            Some(CoordinatorError::Refused { reason: reason() })
        }
        ErrorCode::SessionLost | ErrorCode::Exhausted | ErrorCode::Unavailable | ErrorCode::Internal => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fenced_answer_ends_the_search_and_an_absent_coordinator_does_not() {
        assert_eq!(judge(&ErrorCode::Fenced.status("x")), Some(CoordinatorError::Fenced));
        assert_eq!(judge(&ErrorCode::Unavailable.status("x")), None);
    }
}
