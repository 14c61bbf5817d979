//! The object store that S3 is.
//!
//! Errors are told by the server's error code, never by its text nor by what was sent: neither keys nor signatures get into a
//! log line.

use std::{
    error::Error as StdError,
    io,
    ops::Range,
    path::Path,
    sync::Arc,
    time::{Duration, SystemTime},
};

use async_trait::async_trait;
use aws_sdk_s3::{
    Client,
    config::{
        BehaviorVersion, Credentials, Region, RequestChecksumCalculation, ResponseChecksumValidation,
        retry::RetryConfig, timeout::TimeoutConfig,
    },
    error::{ProvideErrorMetadata, SdkError},
    primitives::{ByteStream, DateTime},
    types::{BucketVersioningStatus, ObjectLockEnabled, ObjectLockMode},
};
use base64::{Engine as _, prelude::BASE64_STANDARD};
use bytes::Bytes;
use holdfast_model::{Clock, Millis};

use super::{ListPage, Listed, ObjectError, ObjectInfo, ObjectStore, PutNew, load::sha256};
use crate::{Error, options::S3Options};

/// How often a call is made before it counts as failed.
const ATTEMPTS: u32 = 3;
const CONNECT_WITHIN: Duration = Duration::from_secs(5);
/// One attempt of a call with a small body.
const ANSWER_WITHIN: Duration = Duration::from_secs(30);
/// A range up to this is one record or a few.
const SMALL_BYTES: u64 = 1 << 20;
/// One attempt of a call that moves a segment, at the slowest line that makes sense: 64 MiB at 256 KiB/s.
const MOVE_WITHIN: Duration = Duration::from_secs(300);
/// No file of a key is longer.
const KEY_BYTES_MAX: usize = 4_096;
/// How much of a network error is told.
const REASON_CHARS_MAX: usize = 200;

const PUT: &str = "create an object";
const GET: &str = "read an object";
const HEAD: &str = "look at an object";
const LIST: &str = "list the bucket";
const LOCK: &str = "read the bucket's versioning and object lock";
const DELETE: &str = "delete a version";

/// A bucket.
pub struct S3Store {
    client: Client,
    bucket: String,
}

impl S3Store {
    /// Reads the keys; connects at the first call.
    pub fn new(options: &S3Options, clock: Arc<dyn Clock>) -> Result<Self, Error> {
        let id = read_key("s3.access-key-id-file", &options.access_key_id_file)?;
        let secret = read_key("s3.secret-access-key-file", &options.secret_access_key_file)?;
        let timeouts = TimeoutConfig::builder()
            .connect_timeout(CONNECT_WITHIN)
            .operation_attempt_timeout(ANSWER_WITHIN)
            .build();
        let mut config = aws_sdk_s3::Config::builder()
            .behavior_version(BehaviorVersion::latest())
            .credentials_provider(Credentials::new(id, secret, None, None, "holdfast"))
            .region(Region::new(options.region.clone()))
            .force_path_style(options.path_style)
            .retry_config(RetryConfig::standard().with_max_attempts(ATTEMPTS))
            .timeout_config(timeouts)
            .time_source(Time(clock))
            // We send and check hashes of our own; some servers send the whole object's with a range.
            .request_checksum_calculation(RequestChecksumCalculation::WhenRequired)
            .response_checksum_validation(ResponseChecksumValidation::WhenRequired);
        if let Some(url) = &options.endpoint_url {
            config = config.endpoint_url(url);
        }
        Ok(Self { client: Client::from_conf(config.build()), bucket: options.bucket.clone() })
    }
}

/// The first line of a key's file.
fn read_key(option: &'static str, path: &Path) -> Result<String, Error> {
    let text = std::fs::read_to_string(path).map_err(|error| match error.kind() {
        io::ErrorKind::InvalidData => {
            Error::Option { option, problem: format!("names {}, which is not text", path.display()) }
        }
        _ => Error::Io { action: "read", path: path.to_owned(), source: error },
    })?;
    let key = text.trim();
    let is_key = !key.is_empty() && key.len() <= KEY_BYTES_MAX && key.chars().all(|c| c.is_ascii_graphic());
    if is_key {
        return Ok(key.to_owned());
    }
    Err(Error::Option { option, problem: format!("names {}, which is not a single key", path.display()) })
}

/// Requests are signed with the node's clock.
#[derive(Clone)]
struct Time(Arc<dyn Clock>);

impl std::fmt::Debug for Time {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Time")
    }
}

impl aws_smithy_async::time::TimeSource for Time {
    fn now(&self) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_millis(self.0.now_ms())
    }
}

/// Calls that move a whole segment get more time.
fn patient() -> aws_sdk_s3::config::Builder {
    let timeouts = TimeoutConfig::builder()
        .connect_timeout(CONNECT_WITHIN)
        .operation_attempt_timeout(MOVE_WITHIN)
        .build();
    aws_sdk_s3::Config::builder().timeout_config(timeouts)
}

/// Makes one of our errors of one of the SDK's.
fn failed<E>(action: &'static str, key: &str, error: SdkError<E>) -> ObjectError
where
    E: ProvideErrorMetadata,
{
    let server = |code: &str| ObjectError::Server { action, code: code.to_owned() };
    let unreachable = |reason: String| ObjectError::Unreachable { action, reason };
    match error {
        SdkError::ServiceError(answer) => {
            let status = answer.raw().status().as_u16();
            let code = answer.err().code().unwrap_or_default();
            match (code, status) {
                ("NoSuchBucket", _) => ObjectError::NoBucket,
                ("InvalidAccessKeyId" | "SignatureDoesNotMatch" | "InvalidToken" | "ExpiredToken", _) => {
                    ObjectError::Credentials
                }
                ("InvalidRange", _) | (_, 416) => ObjectError::TooShort { key: key.to_owned() },
                ("NoSuchKey" | "NotFound" | "NoSuchVersion", _) | ("", 404) => {
                    ObjectError::NotFound { key: key.to_owned() }
                }
                ("AccessDenied", _) | (_, 403) => ObjectError::Denied { action },
                ("", status) => server(&format!("status {status}")),
                (code, _) => server(code),
            }
        }
        SdkError::TimeoutError(_) => unreachable("no answer in time".to_owned()),
        SdkError::DispatchFailure(failure) => unreachable(
            failure.as_connector_error().map_or("no connection".to_owned(), |error| innermost(error)),
        ),
        SdkError::ResponseError(_) => server("something that is not S3"),
        _ => server("nothing: the request could not be made"),
    }
}

/// What is at the bottom of a chain of network errors: the others only wrap it.
fn innermost(error: &dyn StdError) -> String {
    let mut last: &dyn StdError = error;
    while let Some(source) = last.source() {
        last = source;
    }
    last.to_string().chars().take(REASON_CHARS_MAX).collect()
}

fn len_of(found: Option<i64>) -> u64 {
    found.and_then(|len| u64::try_from(len).ok()).unwrap_or(0)
}

#[async_trait]
impl ObjectStore for S3Store {
    async fn put_new(
        &self,
        key: &str,
        bytes: Bytes,
        locked_until_ms: Option<Millis>,
    ) -> Result<PutNew, ObjectError> {
        let until =
            locked_until_ms.map(|until| DateTime::from_millis(i64::try_from(until).unwrap_or(i64::MAX)));
        let put = self
            .client
            .put_object()
            .bucket(&self.bucket)
            .key(key)
            .if_none_match("*")
            .checksum_sha256(BASE64_STANDARD.encode(sha256(&bytes)))
            .set_object_lock_mode(until.map(|_| ObjectLockMode::Compliance))
            .set_object_lock_retain_until_date(until)
            .content_length(i64::try_from(bytes.len()).unwrap_or(i64::MAX))
            .body(ByteStream::from(bytes));
        match put.customize().config_override(patient()).send().await {
            Ok(_) => Ok(PutNew::Stored),
            Err(error) if error.raw_response().is_some_and(|raw| raw.status().as_u16() == 412) => {
                Ok(PutNew::Exists)
            }
            Err(error) => Err(failed(PUT, key, error)),
        }
    }

    async fn get_range(&self, key: &str, range: Range<u64>) -> Result<Bytes, ObjectError> {
        let want = range.end.saturating_sub(range.start);
        let last = range.end.saturating_sub(1);
        let get = self
            .client
            .get_object()
            .bucket(&self.bucket)
            .key(key)
            .range(format!("bytes={}-{last}", range.start));
        let sent = if want > SMALL_BYTES {
            get.customize().config_override(patient()).send().await
        } else {
            get.send().await
        };
        let found = sent.map_err(|error| failed(GET, key, error))?;
        // Known before the body is read, so that a server that ignores the range fills no memory.
        let len = len_of(found.content_length());
        if len < want {
            return Err(ObjectError::TooShort { key: key.to_owned() });
        }
        if len > want {
            let code = "more than the range".to_owned();
            return Err(ObjectError::Server { action: GET, code });
        }
        let body = found
            .body
            .collect()
            .await
            .map_err(|error| ObjectError::Unreachable { action: GET, reason: innermost(&error) })?;
        let bytes = body.into_bytes();
        if bytes.len() as u64 == want {
            return Ok(bytes);
        }
        Err(ObjectError::Unreachable { action: GET, reason: "the answer broke off".to_owned() })
    }

    async fn head(&self, key: &str) -> Result<ObjectInfo, ObjectError> {
        let sent = self.client.head_object().bucket(&self.bucket).key(key).send().await;
        let found = sent.map_err(|error| failed(HEAD, key, error))?;
        let is_compliance = found.object_lock_mode() == Some(&ObjectLockMode::Compliance);
        let until = found.object_lock_retain_until_date().filter(|_| is_compliance);
        let locked_until_ms = until.and_then(|until| Millis::try_from(until.to_millis().ok()?).ok());
        let version = found.version_id().map(str::to_owned);
        Ok(ObjectInfo { len: len_of(found.content_length()), version, locked_until_ms })
    }

    async fn list_page(&self, prefix: &str, from: Option<String>) -> Result<ListPage, ObjectError> {
        let list = self.client.list_objects_v2().bucket(&self.bucket).prefix(prefix);
        let sent = list.set_continuation_token(from).send().await;
        let page = sent.map_err(|error| failed(LIST, prefix, error))?;
        let mut objects = Vec::new();
        for object in page.contents() {
            let (Some(key), Some(len)) = (object.key(), object.size()) else {
                return Err(ObjectError::Listing { problem: "an object has no key or no length" });
            };
            objects.push(Listed { key: key.to_owned(), len: len_of(Some(len)) });
        }
        let next = page.next_continuation_token().map(str::to_owned);
        match (page.is_truncated() == Some(true), next) {
            (true, None) => {
                Err(ObjectError::Listing { problem: "it says that there is more, and not where" })
            }
            (true, next) => Ok(ListPage { objects, next }),
            (false, _) => Ok(ListPage { objects, next: None }),
        }
    }

    async fn is_lockable(&self) -> Result<bool, ObjectError> {
        let versioning = self.client.get_bucket_versioning().bucket(&self.bucket).send().await;
        let versioning = versioning.map_err(|error| failed(LOCK, "", error))?;
        if versioning.status() != Some(&BucketVersioningStatus::Enabled) {
            return Ok(false);
        }
        match self.client.get_object_lock_configuration().bucket(&self.bucket).send().await {
            Ok(found) => {
                let lock = found.object_lock_configuration().and_then(|lock| lock.object_lock_enabled());
                Ok(lock == Some(&ObjectLockEnabled::Enabled))
            }
            Err(error) if error.code() == Some("ObjectLockConfigurationNotFoundError") => Ok(false),
            Err(error) => Err(failed(LOCK, "", error)),
        }
    }

    async fn delete_version(&self, key: &str, version: &str) -> Result<(), ObjectError> {
        let delete = self.client.delete_object().bucket(&self.bucket).key(key).version_id(version);
        delete.send().await.map(|_| ()).map_err(|error| failed(DELETE, key, error))
    }
}
