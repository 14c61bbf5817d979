//! `holdfast tenant`: connect a Microsoft 365 tenant.

use std::path::{Path, PathBuf};

use holdfast_proto::coordinator::{AppRegistration, ConnectTenantRequest, ListTenantsRequest};
use holdfast_runtime::Exit;

use crate::{
    client::{self, ServerArguments},
    error::CliError,
    output::{Format, Table, say},
};

/// Connect Microsoft 365 tenants
#[derive(Debug, clap::Subcommand)]
pub enum Command {
    /// Check the permissions of an app registration and store it
    #[command(after_help = "\
Examples:
  holdfast tenant connect contoso --tenant-id 8f0c… --client-id 51d2… --client-secret-file secret.txt \\
      --restore-client-id 77aa… --restore-client-secret-file restore-secret.txt")]
    Connect(Box<ConnectOptions>),
    /// List connected tenants
    #[command(after_help = "Examples:\n  holdfast tenant list\n  holdfast tenant list --json")]
    List,
}

#[derive(Debug, clap::Args)]
pub struct ConnectOptions {
    /// The name you will use for it
    name: String,
    /// Microsoft's id of the directory
    #[arg(long, value_name = "ID")]
    tenant_id: String,
    /// The app registration that reads
    #[arg(long, value_name = "ID")]
    client_id: String,
    /// File with its secret
    #[arg(long, value_name = "F", required_unless_present = "certificate", conflicts_with = "certificate")]
    client_secret_file: Option<PathBuf>,
    /// PEM file with its certificate and private key
    #[arg(long, value_name = "F")]
    certificate: Option<PathBuf>,
    /// The app registration that writes, for restores; default: the one that reads
    #[arg(long, value_name = "ID")]
    restore_client_id: Option<String>,
    /// File with its secret
    #[arg(long, value_name = "F", requires = "restore_client_id", conflicts_with = "restore_certificate")]
    restore_client_secret_file: Option<PathBuf>,
    /// PEM file with its certificate and private key
    #[arg(long, value_name = "F", requires = "restore_client_id")]
    restore_certificate: Option<PathBuf>,
    /// Microsoft's cloud: global, usgov-l4, usgov-l5 or china
    #[arg(long, value_name = "C", default_value = "global")]
    cloud: String,
    /// Another Graph address, for simulators
    #[arg(long, value_name = "URL")]
    graph_url: Option<String>,
    /// Another login address, for simulators
    #[arg(long, value_name = "URL")]
    login_url: Option<String>,
}

pub async fn run(command: Command, server: &ServerArguments, format: Format) -> Result<Exit, CliError> {
    match command {
        Command::Connect(options) => connect(*options, server, format).await,
        Command::List => list(server, format).await,
    }
}

async fn connect(
    options: ConnectOptions,
    server: &ServerArguments,
    format: Format,
) -> Result<Exit, CliError> {
    let backup_app =
        app(options.client_id, options.client_secret_file.as_deref(), options.certificate.as_deref())?;
    let restore_app = match options.restore_client_id {
        Some(id) => Some(app(
            id,
            options.restore_client_secret_file.as_deref(),
            options.restore_certificate.as_deref(),
        )?),
        None => None,
    };
    let request = ConnectTenantRequest {
        name: options.name.clone(),
        microsoft_tenant: options.tenant_id,
        backup_app: Some(backup_app),
        restore_app,
        cloud: options.cloud,
        graph_url: options.graph_url.unwrap_or_default(),
        login_url: options.login_url.unwrap_or_default(),
    };
    let answer = client::connect(server)?.connect_tenant(request).await?.into_inner();
    format.print(&answer, |answer| {
        say!("Connected {}: {} resources found.", options.name, answer.resources);
        for check in &answer.permissions {
            let mark = if check.granted { "ok     " } else { "MISSING" };
            say!("  {mark} {} ({})", check.permission, check.needed_for);
        }
    })?;
    Ok(if answer.permissions.iter().all(|check| check.granted) { Exit::Ok } else { Exit::Exceptions })
}

fn app(
    client_id: String,
    secret: Option<&Path>,
    certificate: Option<&Path>,
) -> Result<AppRegistration, CliError> {
    let mut app = AppRegistration { client_id, ..Default::default() };
    match (secret, certificate) {
        (Some(file), None) => app.client_secret = read(file)?.trim().to_owned(),
        (None, Some(file)) => app.certificate_pem = read(file)?,
        _ => {
            return Err(CliError::usage(
                "name either a secret file or a certificate for each app registration",
            ));
        }
    }
    if app.client_secret.is_empty() && app.certificate_pem.is_empty() {
        return Err(CliError::usage("the secret file is empty"));
    }
    Ok(app)
}

fn read(file: &Path) -> Result<String, CliError> {
    std::fs::read_to_string(file)
        .map_err(|error| CliError::usage(format!("cannot read {}: {error}", file.display())))
}

async fn list(server: &ServerArguments, format: Format) -> Result<Exit, CliError> {
    let answer = client::connect(server)?.list_tenants(ListTenantsRequest {}).await?.into_inner();
    format.print(&answer, |answer| {
        let mut table = Table::new(&["TENANT", "MICROSOFT ID", "CLOUD", "RESOURCES"]);
        for tenant in &answer.tenants {
            table.row([
                tenant.name.clone(),
                tenant.microsoft_tenant.clone(),
                tenant.cloud.clone(),
                tenant.resources.to_string(),
            ]);
        }
        table.print("No tenants yet: connect one with `holdfast tenant connect`.");
    })?;
    Ok(Exit::Ok)
}
