//! Official libraries: of Standard Webhooks, with which endpoints verify nobat's signatures, and of providers,
//! which sign webhooks.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use serde_json::json;
use standardwebhooks::Webhook;

use crate::harness::program::workspace;
use crate::harness::receiver::Received;
use crate::scratch::Scratch;
use crate::tools::Tools;

/// Library of a language.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Library {
    /// `standardwebhooks` from `PyPI`.
    Python,
    /// `standardwebhooks` from npm.
    JavaScript,
    /// `standardwebhooks` from crates.io, in this process.
    Rust,
}

impl Library {
    /// All libraries.
    pub const ALL: [Self; 3] = [Self::Python, Self::JavaScript, Self::Rust];

    /// Installs the library if necessary. Call it before signing: the installation takes longer than
    /// signatures are valid.
    pub fn install(self) {
        match self {
            Self::Python => drop(Tools::WebhooksPython.programs()),
            Self::JavaScript => drop(Tools::WebhooksNode.programs()),
            Self::Rust => {}
        }
    }

    /// Returns for each request true if the library accepts its signature with this secret.
    pub fn takes(self, secret: &str, requests: &[Received]) -> Vec<bool> {
        match self {
            Self::Python => {
                run(&Tools::WebhooksPython.programs().join("python"), "verify.py", secret, requests)
            }
            Self::JavaScript => run(&"node".into(), "verify.mjs", secret, requests),
            Self::Rust => {
                let webhook = Webhook::new(secret).expect("the secret is valid");
                requests
                    .iter()
                    .map(|request| webhook.verify(&request.body, &request.headers).is_ok())
                    .collect()
            }
        }
    }
}

/// Returns the headers with which the official npm library of each provider signs a webhook. The provider is
/// `stripe`, `github` or `standard_webhooks`.
pub fn signed_headers(webhooks: &[OutgoingWebhook<'_>]) -> Vec<BTreeMap<String, String>> {
    drop(Tools::WebhooksNode.programs());
    let lines = webhooks.iter().map(|OutgoingWebhook { provider, secret, id, body }| {
        format!("{}\n", json!({"library": provider, "secret": secret, "id": id, "body": body}))
    });
    let printed = run_script(&"node".into(), "sign.mjs", &lines.collect::<String>());
    printed.lines().map(|line| serde_json::from_str(line).expect("the script prints JSON")).collect()
}

/// Webhook that a provider's library signs.
#[derive(Clone, Copy, Debug)]
pub struct OutgoingWebhook<'a> {
    /// Provider.
    pub provider: &'a str,
    /// Secret.
    pub secret: &'a str,
    /// Id of the event, for providers that send it in a header.
    pub id: &'a str,
    /// Body.
    pub body: &'a str,
}

/// Passes each request to a script as a line of JSON, and reads one line for each.
fn run(program: &PathBuf, script: &str, secret: &str, requests: &[Received]) -> Vec<bool> {
    let lines: String = requests.iter().map(|request| line(secret, request)).collect();
    run_script(program, script, &lines)
        .lines()
        .map(|line| {
            line.parse().unwrap_or_else(|_| panic!("the script printed neither true nor false: {line}"))
        })
        .collect()
}

/// Passes lines to a script, and returns its output.
fn run_script(program: &PathBuf, script: &str, lines: &str) -> String {
    let scratch = Scratch::new().expect("the directory can be created");
    let file = scratch.path().join("requests");
    std::fs::write(&file, lines).expect("the file can be written");
    let script = workspace().join("tests/webhooks").join(script);
    let requests = Stdio::from(std::fs::File::open(&file).expect("the file can be opened"));
    let output = Command::new(program)
        .arg(script)
        .stdin(requests)
        .output()
        .unwrap_or_else(|error| panic!("{}: {error}", program.display()));
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{said}{}", String::from_utf8_lossy(&output.stderr));
    said.into_owned()
}

fn line(secret: &str, request: &Received) -> String {
    let headers: BTreeMap<&str, &str> =
        request.headers.keys().map(|name| (name.as_str(), request.header(name.as_str()))).collect();
    let body = std::str::from_utf8(&request.body).expect("the body is UTF-8");
    format!("{}\n", json!({"secret": secret, "headers": headers, "body": body}))
}
