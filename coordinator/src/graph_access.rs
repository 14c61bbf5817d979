//! The coordinator's own way to Microsoft: app credentials, which never leave it, and tokens made from them.
//!
//! A tenant has two apps: the one that reads makes tokens for backups, the one that writes for restores.

use std::{
    collections::HashMap,
    fmt,
    sync::{Arc, Mutex, PoisonError},
};

use holdfast_graph_client::{
    AccessToken, AppCredentials, ClientCredentials, Credential, GraphClient, GraphError, GraphOptions,
    QuotaLedger, Rejection, TokenSource,
};
use holdfast_model::{Clock, JobClass, Random, TenantId};
use holdfast_repository::KeyProvider;
use zeroize::Zeroizing;

use crate::{catalog::tenant::TenantRow, error::Error};

/// Token sources kept; more than that and the map starts anew.
const MAX_SOURCES: usize = 10_000;
const SECRET: u8 = b's';
const CERTIFICATE: u8 = b'c';

/// Which of a tenant's apps.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum App {
    Backup,
    Restore,
}

impl App {
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Backup => "backup",
            Self::Restore => "restore",
        }
    }
}

impl fmt::Display for App {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

type Source = (Vec<u8>, Arc<ClientCredentials>);

/// Makes tokens and clients for tenants.
pub(crate) struct GraphAccess {
    keys: Arc<dyn KeyProvider>,
    ledger: Arc<dyn QuotaLedger>,
    clock: Arc<dyn Clock>,
    random: Arc<dyn Random>,
    sources: Mutex<HashMap<(TenantId, App), Source>>,
}

impl GraphAccess {
    pub(crate) fn new(
        keys: Arc<dyn KeyProvider>,
        ledger: Arc<dyn QuotaLedger>,
        clock: Arc<dyn Clock>,
        random: Arc<dyn Random>,
    ) -> Self {
        Self { keys, ledger, clock, random, sources: Mutex::default() }
    }

    /// Seals an app's credential for the catalog.
    pub(crate) async fn seal(
        &self,
        tenant: TenantId,
        app: App,
        credential: &Credential,
    ) -> Result<Vec<u8>, Error> {
        let (tag, text) = match credential {
            Credential::Secret(text) => (SECRET, text),
            Credential::Certificate { pem } => (CERTIFICATE, pem),
        };
        let mut plain = Zeroizing::new(vec![tag]);
        plain.extend_from_slice(text.as_bytes());
        Ok(self.keys.seal_secret(&context(tenant, app), &plain).await?)
    }

    /// The token source of a tenant's app; made anew when its credential changed.
    pub(crate) async fn source(&self, tenant: &TenantRow, app: App) -> Result<Arc<ClientCredentials>, Error> {
        let (client_id, sealed) = match app {
            App::Backup => (&tenant.backup_client_id, &tenant.backup_secret),
            App::Restore => (&tenant.restore_client_id, &tenant.restore_secret),
        };
        let known =
            self.sources.lock().unwrap_or_else(PoisonError::into_inner).get(&(tenant.id, app)).cloned();
        if let Some((_, source)) = known.filter(|(of, _)| of == sealed) {
            return Ok(source);
        }
        let plain = self.keys.open_secret(&context(tenant.id, app), sealed).await?;
        let text = std::str::from_utf8(plain.get(1..).unwrap_or_default())
            .map_err(|_| Error::CatalogDamaged { column: "secret" })?;
        let text = Zeroizing::new(text.to_owned());
        let secret = match plain.first() {
            Some(&SECRET) => Credential::Secret(text),
            Some(&CERTIFICATE) => Credential::Certificate { pem: text },
            _ => return Err(Error::CatalogDamaged { column: "secret" }),
        };
        let source = self.unstored_source(tenant, AppCredentials { client_id: client_id.clone(), secret })?;
        let mut sources = self.sources.lock().unwrap_or_else(PoisonError::into_inner);
        if sources.len() >= MAX_SOURCES {
            sources.clear();
        }
        sources.insert((tenant.id, app), (sealed.clone(), source.clone()));
        Ok(source)
    }

    /// A token source of credentials that are not stored yet.
    pub(crate) fn unstored_source(
        &self,
        tenant: &TenantRow,
        app: AppCredentials,
    ) -> Result<Arc<ClientCredentials>, Error> {
        ClientCredentials::new(
            &tenant.login_url,
            &tenant.graph_url,
            &tenant.microsoft_tenant,
            app,
            self.clock.clone(),
            self.random.clone(),
        )
        .map(Arc::new)
        .map_err(|error| microsoft("an access token", error))
    }

    /// A token for a worker.
    pub(crate) async fn token(&self, tenant: &TenantRow, app: App) -> Result<AccessToken, Error> {
        self.source(tenant, app).await?.token().await.map_err(|error| refused(app, error))
    }

    /// A token for a worker whose token Microsoft rejected; none when it is too early to renew it.
    pub(crate) async fn replace(
        &self,
        tenant: &TenantRow,
        app: App,
        rejection: &Rejection,
    ) -> Result<Option<AccessToken>, Error> {
        self.source(tenant, app).await?.replace(rejection).await.map_err(|error| refused(app, error))
    }

    /// A client for the coordinator's own calls.
    pub(crate) fn client(
        &self,
        tenant: &TenantRow,
        source: Arc<ClientCredentials>,
    ) -> Result<GraphClient, Error> {
        let options = GraphOptions {
            graph_url: tenant.graph_url.clone(),
            ..GraphOptions::new(tenant.cloud, &tenant.microsoft_tenant, &tenant.backup_client_id)
        };
        let (clock, random) = (self.clock.clone(), self.random.clone());
        GraphClient::new(options, source, self.ledger.clone(), JobClass::Incremental, clock, random)
            .map_err(|error| microsoft("a client", error))
    }
}

/// What to do when Microsoft is content with no token of the app.
const BLOCKED: &str = "a Conditional Access policy blocks the app: exclude it from the policy";

/// Says what to do about a refusal of the token endpoint.
pub(crate) fn refused(app: App, error: GraphError) -> Error {
    let GraphError::TokenRefused { error: name, codes, .. } = &error else {
        return microsoft("an access token", error);
    };
    let (code, advice) = advice(codes);
    let code = code.map_or_else(|| name.clone(), |code| format!("AADSTS{code}"));
    Error::CredentialsRefused { app: app.as_str(), code, advice }
}

fn advice(codes: &[u64]) -> (Option<u64>, &'static str) {
    const KNOWN: &[(u64, &str)] = &[
        (7_000_215, "the client secret is wrong: create a new secret, and give its value, not its id"),
        (
            7_000_222,
            "the client secret has expired: create a new secret in Microsoft Entra and connect again",
        ),
        (
            700_016,
            "there is no such app in this tenant: check --client-id and --tenant-id, and consent to the app there",
        ),
        (90_002, "there is no such Microsoft tenant: check --tenant-id"),
        (900_023, "there is no such Microsoft tenant: check --tenant-id"),
        (
            700_027,
            "the certificate is not registered for this app: upload it in Microsoft Entra and connect again",
        ),
        (7_000_229, "the app has no service principal in this tenant: grant admin consent first"),
        (53_003, BLOCKED),
    ];
    let known = codes.iter().find_map(|code| KNOWN.iter().find(|(known, _)| known == code));
    match known {
        Some((code, advice)) => (Some(*code), advice),
        None => (
            codes.first().copied(),
            "check the client id, the credential and the tenant id in Microsoft Entra",
        ),
    }
}

/// Any other failure of a call to Microsoft. The coordinator itself calls with the backup app only.
pub(crate) fn microsoft(what: &'static str, error: GraphError) -> Error {
    if let GraphError::ClaimsDemanded { .. } = &error {
        let code = error.code().to_owned();
        return Error::CredentialsRefused { app: App::Backup.as_str(), code, advice: BLOCKED };
    }
    Error::Microsoft {
        what,
        code: error.code().to_owned(),
        retryable: error.is_retryable(),
        source: Box::new(error),
    }
}

fn context(tenant: TenantId, app: App) -> String {
    format!("holdfast app credential 1 {tenant} {app}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_demand_for_claims_that_no_token_meets_says_what_to_do() {
        let error = microsoft("the users of the tenant", GraphError::ClaimsDemanded { request_id: None });
        let text = error.to_string();
        assert!(
            text.contains("(insufficient-claims)") && text.contains("exclude it from the policy"),
            "{text}"
        );
        assert!(!error.is_retryable());
    }

    #[test]
    fn a_wrong_secret_is_explained_and_not_repeated() {
        let error = GraphError::TokenRefused {
            status: 401,
            error: "invalid_client".to_owned(),
            codes: vec![7_000_215],
        };
        let text = refused(App::Backup, error).to_string();
        assert!(text.starts_with("Microsoft refused the backup app (AADSTS7000215)"), "{text}");
        assert!(text.contains("create a new secret"), "{text}");
    }
}
