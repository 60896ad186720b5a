//! `nobat keys`: manages API keys through a server's API, or directly in the file or the table. Operators
//! create the first key directly.

use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use clap::{Args, Subcommand};
use nobat_api::{AccessPolicy, App, AppConfig, AuthMode as Asked};
use nobat_core::auth::network::Network;
use nobat_core::auth::scope::Scopes;
use nobat_core::config::endpoint::NoEndpointTester;
use nobat_core::config::kind::{KindError, KindRegistry, Target};
use nobat_core::json::Json;
use nobat_core::ports::Clock;
use nobat_core::secrets::vault::Without;
use nobat_core::service::config_cache::ConfigEpoch;
use nobat_core::task::Wait;
use nobat_core::types::name::Name;
use nobat_worker::system::SystemClock;
use serde_json::json;
use tokio_util::sync::CancellationToken;

use crate::backend::{self, Settings};
use crate::client::{Client, ClientArgs, encode};
use crate::command::print;
use crate::fields::number;
use crate::response::{Answer, array};
use crate::{in_use, render};

/// `nobat keys`
#[derive(Args)]
pub(crate) struct Keys {
    #[command(subcommand)]
    command: Command,
    /// URL of a running server. Without it, the command opens the file or the table itself
    #[arg(long, env = "NOBAT_URL", global = true)]
    url: Option<String>,
    /// API key with the scope admin, for --url. Prefer the variable: other users of this machine can read
    /// flags
    #[arg(long, env = "NOBAT_KEY", hide_env_values = true, global = true)]
    key: Option<String>,
    /// Print the API's JSON, unchanged, instead of a table
    #[arg(long, global = true)]
    json: bool,
    #[command(flatten)]
    place: Settings,
}

#[derive(Subcommand)]
enum Command {
    /// Create a key and print it. The key is not shown again
    Create(Create),
    /// List keys
    List(List),
    /// Create a key that replaces another
    Rotate(Rotate),
    /// Revoke a key at once
    Revoke(Revoke),
}

#[derive(Args)]
struct Create {
    /// Tenant that the key gives access to
    #[arg(long, default_value = "default")]
    tenant: String,
    /// Scopes, separated by commas: tasks:write, tasks:read, payload:view, tasks:replay, config:write, work,
    /// admin
    #[arg(long, default_value = "tasks:write,tasks:read,payload:view,tasks:replay")]
    scopes: Scopes,
    /// Note on the purpose of the key, up to 200 bytes
    #[arg(long, default_value = "")]
    label: String,
    /// Time from which the key is no longer valid (RFC 3339). Default: none
    #[arg(long)]
    expires_at: Option<String>,
    /// Networks from which the key can be used (CIDRs, separated by commas). Default: any
    #[arg(long, value_delimiter = ',')]
    networks: Vec<Network>,
}

#[derive(Args)]
struct List {
    /// Only keys of this tenant
    #[arg(long)]
    tenant: Option<String>,
}

#[derive(Args)]
struct Rotate {
    /// Id of the key to replace
    id: String,
    /// Seconds for which the replaced key stays valid
    #[arg(long, default_value = "0", value_parser = number)]
    grace_period: String,
}

#[derive(Args)]
struct Revoke {
    /// Id of the key
    id: String,
}

/// Columns of a list of keys.
const COLUMNS: [&str; 7] = ["id", "tenant", "scopes", "created_at", "expires_at", "revoked_at", "label"];

impl Keys {
    pub(crate) async fn run(self) -> anyhow::Result<ExitCode> {
        let client = self.client().await?;
        match &self.command {
            Command::Create(create) => {
                let body = json!({
                    "tenant": create.tenant, "label": create.label, "scopes": create.scopes,
                    "expires_at": create.expires_at, "networks": create.networks,
                });
                self.show_new(&client.post("/v1/keys", body.to_string()).await?)?;
            }
            Command::Rotate(Rotate { id, grace_period }) => {
                let path = format!("/v1/keys/{}/rotate", encode(id));
                self.show_new(&client.post(&path, format!(r#"{{"grace_period":{grace_period}}}"#)).await?)?;
            }
            Command::Revoke(Revoke { id }) => {
                let key = client.delete(&format!("/v1/keys/{}", encode(id))).await?;
                print(&if self.json { format!("{}\n", key.text()) } else { render::object(&key.object()) })?;
            }
            Command::List(List { tenant }) => {
                let filters: Vec<_> = tenant.iter().map(|tenant| ("tenant", tenant.as_str())).collect();
                let keys = client.list("/v1/keys", &filters, usize::MAX).await?;
                print(&if self.json { array(&keys) } else { render::records(&keys, &COLUMNS) })?;
            }
        }
        Ok(ExitCode::SUCCESS)
    }

    async fn client(&self) -> anyhow::Result<Client> {
        if let Some(url) = &self.url {
            return Client::new(&ClientArgs { url: url.clone(), key: self.key.clone(), json: self.json });
        }
        let clock: Arc<dyn Clock> = Arc::new(SystemClock);
        let opened = backend::open(&self.place, &clock)
            .await
            .map_err(|error| in_use::advise(error, in_use::run_through))?;
        Ok(Client::Here(App::new(AppConfig {
            epoch: ConfigEpoch::default(),
            backend: opened.backend,
            clock,
            kinds: Arc::new(NoKinds),
            access_policy: AccessPolicy { keys: Asked::Never, admitted: Vec::new(), proxies: Vec::new() },
            recount: opened.recount,
            max_timeout: Duration::ZERO,
            max_wait: Duration::ZERO,
            tester: Arc::new(NoEndpointTester),
            vault: Arc::new(Without),
            cursor_key: opened.cursor_key,
            shutdown: CancellationToken::new(),
        })))
    }

    /// Prints only the key to standard output, for scripts. Prints its id and tenant to standard error.
    fn show_new(&self, answer: &Answer) -> anyhow::Result<()> {
        if self.json {
            return print(&format!("{}\n", answer.text()));
        }
        let key = answer.object();
        let [text, id, tenant] =
            ["key", "id", "tenant"].map(|field| key.text(field).context("the response is not a key"));
        eprintln!("created {} of tenant {}. The key is not shown again:", id?, tenant?);
        print(&format!("{}\n", text?))
    }
}

/// Kinds of a process that runs no tasks.
struct NoKinds;

impl KindRegistry for NoKinds {
    fn check(&self, _kind: &Name, _payload: &Json, _: Target) -> Result<Option<Wait>, KindError> {
        Err(KindError::UnknownKind(Vec::new()))
    }

    fn check_authority(&self, _pem: &str) -> Result<(), String> {
        Err("this program does not check certificate authorities; send the request to a server".to_owned())
    }
}
