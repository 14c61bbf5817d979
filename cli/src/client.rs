//! How the command line finds its coordinator: a profile file with the address and the operator's certificate, which `up`
//! writes and an administrator copies; `--server` overrides the address.

use std::path::{Path, PathBuf};

use holdfast_model::Role;
use holdfast_proto::coordinator::operator_api_client::OperatorApiClient;
use holdfast_runtime::grpc::{Channels, TlsOptions, TracedChannel};
use serde::{Deserialize, Serialize};
use tonic::transport::Channel;

use crate::error::CliError;

/// The operator's client.
pub type Operator = OperatorApiClient<TracedChannel<Channel>>;

/// Which coordinator to talk to, and as whom.
#[derive(Debug, Clone, clap::Args)]
pub struct ServerArguments {
    /// Address of the coordinator, `host:port`; default: the one in the profile
    #[arg(
        long,
        global = true,
        env = "HOLDFAST_SERVER",
        value_name = "HOST:PORT",
        help_heading = "Connection"
    )]
    pub server: Option<String>,
    /// Profile with the coordinator's address and the operator's certificate; default: the one the local `up` wrote
    #[arg(long, global = true, env = "HOLDFAST_PROFILE", value_name = "FILE", help_heading = "Connection")]
    pub profile: Option<PathBuf>,
}

/// What a profile file holds.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Profile {
    /// Address of the coordinator, `host:port`.
    pub server: String,
    /// The operator's certificate, its key, and the cluster's authority.
    pub tls: TlsOptions,
}

impl Profile {
    /// Where `up` writes the profile and every other command looks for it.
    pub fn default_path() -> Result<PathBuf, CliError> {
        std::env::var_os("HOME")
            .map(|home| PathBuf::from(home).join(".holdfast").join("operator.toml"))
            .ok_or_else(|| CliError::usage("HOME is not set: name a profile with --profile"))
    }

    /// Writes the profile, replacing an older one whole.
    pub fn save(&self, path: &Path) -> Result<(), CliError> {
        if let Some(folder) = path.parent() {
            std::fs::create_dir_all(folder)?;
        }
        let text = toml::to_string(self).map_err(CliError::failed)?;
        let temporary = path.with_extension("toml.new");
        std::fs::write(&temporary, text)?;
        std::fs::rename(&temporary, path)?;
        Ok(())
    }

    fn load(path: &Path) -> Result<Self, CliError> {
        if !path.exists() {
            return Err(CliError::config(format!(
                "no profile at {}: start a local cluster with `holdfast up --data DIR`, or name a profile with --profile",
                path.display()
            )));
        }
        holdfast_runtime::config::load(path).map_err(CliError::config)
    }
}

/// Opens a client for the coordinator the arguments name. Connects with the first call.
pub fn connect(arguments: &ServerArguments) -> Result<Operator, CliError> {
    let path = match &arguments.profile {
        Some(path) => path.clone(),
        None => Profile::default_path()?,
    };
    let mut profile = Profile::load(&path)?;
    if let Some(server) = &arguments.server {
        profile.server.clone_from(server);
    }
    connect_to(&profile)
}

/// Opens a client for a profile.
pub fn connect_to(profile: &Profile) -> Result<Operator, CliError> {
    let channel =
        Channels::connect(&profile.server, &profile.tls, Role::Coordinator).map_err(CliError::config)?;
    Ok(OperatorApiClient::new(Channels::traced(channel)))
}
