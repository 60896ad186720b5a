//! `nobat keys`: of a server, by its API; or of the file or the table, where the first key comes from.

use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use clap::{Args, Subcommand};
use nobat_api::{App, Door, Keys as Asked, Parts};
use nobat_core::directory::Edition;
use nobat_core::endpoint::NoTester;
use nobat_core::json::Json;
use nobat_core::name::Name;
use nobat_core::network::Network;
use nobat_core::ports::Clock;
use nobat_core::scope::Scopes;
use nobat_core::submit::{Aim, Kinds, Unfit};
use nobat_core::vault::Without;
use nobat_worker::system::SystemClock;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use crate::backend::{self, Settings};
use crate::client::{Client, Target};
use crate::command::{encode, print};
use crate::show;

/// `nobat keys`
#[derive(Args)]
pub(crate) struct Keys {
    #[command(subcommand)]
    command: Command,
    /// The nobat whose keys are meant; without it, those in the file or the table
    #[arg(long, env = "NOBAT_URL", global = true)]
    url: Option<String>,
    /// A key to that nobat with the scope admin
    #[arg(long, env = "NOBAT_KEY", hide_env_values = true, global = true)]
    key: Option<String>,
    /// Print JSON, for programs
    #[arg(long, global = true)]
    json: bool,
    #[command(flatten)]
    place: Settings,
}

#[derive(Subcommand)]
enum Command {
    /// Make a key, and print it, once
    Create(Create),
    /// List keys
    List(List),
    /// Make another key in place of one
    Rotate(Rotate),
    /// Make a key useless
    Revoke(Revoke),
}

#[derive(Args)]
struct Create {
    /// Inside which tenant it opens anything
    #[arg(long, default_value = "default")]
    tenant: String,
    /// What it may do: of tasks:write, tasks:read, payload:view, tasks:replay, config:write, work and admin, with commas between them
    #[arg(long, default_value = "tasks:write,tasks:read,payload:view,tasks:replay")]
    scopes: Scopes,
    /// What it is for
    #[arg(long, default_value = "")]
    label: String,
    /// From when it opens nothing any more (RFC 3339)
    #[arg(long)]
    expires_at: Option<String>,
    /// From where it may be used (CIDRs, separated by commas); from anywhere unless said
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
    /// The key's id
    id: String,
    /// For how many seconds the old one stays good
    #[arg(long, default_value_t = 0)]
    overlap: u32,
}

#[derive(Args)]
struct Revoke {
    /// The key's id
    id: String,
}

impl Keys {
    pub(crate) async fn run(self) -> anyhow::Result<ExitCode> {
        let client = self.client().await?;
        match &self.command {
            Command::Create(create) => {
                let body = json!({
                    "tenant": create.tenant, "label": create.label, "scopes": create.scopes,
                    "expires_at": create.expires_at, "networks": create.networks,
                });
                self.show_new(&client.post("/v1/keys", body.to_string(), None).await?)?;
            }
            Command::Rotate(Rotate { id, overlap }) => {
                let path = format!("/v1/keys/{}/rotate", encode(id));
                self.show_new(&client.post(&path, json!({ "overlap": overlap }).to_string(), None).await?)?;
            }
            Command::Revoke(Revoke { id }) => {
                let key = client.delete(&format!("/v1/keys/{}", encode(id))).await?;
                self.show(&[key])?;
            }
            Command::List(List { tenant }) => self.show(&all(&client, tenant.as_deref()).await?)?,
        }
        Ok(ExitCode::SUCCESS)
    }

    async fn client(&self) -> anyhow::Result<Client> {
        if let Some(url) = &self.url {
            return Client::new(&Target { url: url.clone(), key: self.key.clone(), json: self.json });
        }
        let clock: Arc<dyn Clock> = Arc::new(SystemClock);
        let opened = backend::open(&self.place, &clock).await;
        let opened = opened.context("to go through the server that has it open, say --url, and NOBAT_KEY if it asks for keys")?;
        Ok(Client::Here(App::new(Parts {
            edition: Edition::default(),
            backend: opened.backend,
            clock,
            kinds: Arc::new(NoKinds),
            door: Door { keys: Asked::Never, admitted: Vec::new(), proxies: Vec::new() },
            recount: opened.recount,
            max_timeout: Duration::ZERO,
            max_wait: Duration::ZERO,
            tester: Arc::new(NoTester),
            vault: Arc::new(Without),
            cursor_key: opened.cursor_key,
            shutdown: CancellationToken::new(),
        })))
    }

    /// The key alone on standard output, for scripts; what is to be said of it beside it.
    fn show_new(&self, key: &Value) -> anyhow::Result<()> {
        if self.json {
            return print(&format!("{key}\n"));
        }
        let text = key["key"].as_str().context("the answer is not a key")?;
        eprintln!("{} of tenant {}; this is the only time that the key itself is shown:", text_of(key, "id"), text_of(key, "tenant"));
        print(&format!("{text}\n"))
    }

    fn show(&self, keys: &[Value]) -> anyhow::Result<()> {
        print(&if self.json { format!("{}\n", Value::from(keys)) } else { show::keys(keys) })
    }
}

fn text_of<'a>(key: &'a Value, field: &str) -> &'a str {
    key[field].as_str().unwrap_or_default()
}

async fn all(client: &Client, tenant: Option<&str>) -> anyhow::Result<Vec<Value>> {
    let tenant = tenant.map(|tenant| format!("&tenant={}", encode(tenant))).unwrap_or_default();
    let (mut keys, mut cursor) = (Vec::new(), String::new());
    loop {
        let page = client.get(&format!("/v1/keys?limit=100{tenant}{cursor}")).await?;
        keys.extend(page["data"].as_array().into_iter().flatten().cloned());
        match page["next_cursor"].as_str() {
            Some(next) => cursor = format!("&cursor={}", encode(next)),
            None => return Ok(keys),
        }
    }
}

/// Nothing is run here.
struct NoKinds;

impl Kinds for NoKinds {
    fn check(&self, _kind: &Name, _payload: &Json, _: Aim) -> Result<(), Unfit> {
        Err(Unfit::UnknownKind(Vec::new()))
    }

    fn check_authority(&self, _pem: &str) -> Result<(), String> {
        Err("nothing is called from here".to_owned())
    }
}
