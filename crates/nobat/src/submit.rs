//! `nobat submit`: submits a task and, on request, waits until it has ended.

use std::collections::BTreeMap;
use std::io::Read;
use std::process::ExitCode;

use anyhow::Context;
use clap::Args;
use hyper::Method;
use serde::Serialize;
use serde_json::value::RawValue;

use crate::client::{Client, ClientArgs, Refusal};
use crate::command::{print_task, wait};
use crate::fields::{Fields, flag_of};
use crate::response::to_json;

/// `nobat submit`
#[derive(Args)]
pub(crate) struct Submit {
    /// Kind of the task: http, noop, or a kind that the program registered
    kind: String,
    /// Payload: JSON, @FILE, or - for standard input
    #[arg(long, short)]
    payload: Option<String>,
    #[command(flatten)]
    fields: Fields,
    /// Idempotency key: submitting again with the same key and the same task returns the first task
    #[arg(long)]
    idempotency_key: Option<String>,
    /// Wait until the task has ended, then show it. The id is written to standard error as soon as the task
    /// is accepted
    #[arg(long, short)]
    wait: bool,
    #[command(flatten)]
    target: ClientArgs,
}

impl Submit {
    pub(crate) async fn run(self) -> anyhow::Result<ExitCode> {
        let client = Client::new(&self.target)?;
        let (body, key) = (self.body()?, self.idempotency_key.as_deref());
        let answer = client.send(Method::POST, "/v1/tasks", Some(body), key).await.map_err(|error| {
            match error.downcast::<Refusal>() {
                Ok(refusal) => refusal.renamed(flag_of).into(),
                Err(other) => other,
            }
        })?;
        if self.wait {
            let id = answer.object().text("id").context("the response is not a task")?;
            // A script then knows the id even if the wait fails, and does not have to submit the task again.
            eprintln!("accepted: {id}");
            return wait(&client, &id, None, &self.target).await;
        }
        print_task(&answer, &self.target)?;
        Ok(ExitCode::SUCCESS)
    }

    /// Returns the body. It contains only fields that were given, so the server's defaults apply to all other
    /// fields.
    fn body(&self) -> anyhow::Result<String> {
        let mut root = BTreeMap::new();
        insert(&mut root, "/kind", json(to_json(&self.kind))?);
        if let Some(payload) = &self.payload {
            insert(&mut root, "/payload", argument(payload).context("--payload")?);
        }
        for (pointer, value) in &self.fields.0 {
            insert(&mut root, pointer, value.clone());
        }
        Ok(to_json(&root))
    }
}

/// Object under construction, or a value in it.
#[derive(Serialize)]
#[serde(untagged)]
enum Node {
    Value(Box<RawValue>),
    Object(BTreeMap<String, Node>),
}

fn insert(object: &mut BTreeMap<String, Node>, pointer: &str, value: Box<RawValue>) {
    let path = pointer.trim_start_matches('/');
    match path.split_once('/') {
        None => drop(object.insert(path.to_owned(), Node::Value(value))),
        Some((first, rest)) => {
            if let Node::Object(inner) =
                object.entry(first.to_owned()).or_insert_with(|| Node::Object(BTreeMap::new()))
            {
                insert(inner, rest, value);
            }
        }
    }
}

/// Returns the JSON of an argument: the text itself, `@FILE`, or `-` for standard input.
pub(crate) fn argument(given: &str) -> anyhow::Result<Box<RawValue>> {
    let mut text = String::new();
    match given.strip_prefix('@') {
        Some(file) => {
            text = std::fs::read_to_string(file).with_context(|| format!("{file} cannot be read"))?;
        }
        None if given == "-" => drop(std::io::stdin().read_to_string(&mut text)?),
        None => given.clone_into(&mut text),
    }
    json(text)
}

fn json(text: String) -> anyhow::Result<Box<RawValue>> {
    RawValue::from_string(text).context("the text is not JSON")
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Cli {
        #[command(flatten)]
        submit: Submit,
    }

    fn body(arguments: &[&str]) -> String {
        Cli::try_parse_from([&["nobat", "noop"], arguments].concat())
            .unwrap_or_else(|error| panic!("{error}"))
            .submit
            .body()
            .unwrap()
    }

    #[test]
    fn flags_become_the_body_with_numbers_unchanged() {
        assert_eq!(body(&[]), r#"{"kind":"noop"}"#);
        assert_eq!(
            body(&["--payload", r#"{"n": 1e999}"#, "--delay", "1.10"]),
            r#"{"delay":1.10,"kind":"noop","payload":{"n": 1e999}}"#
        );
        assert_eq!(
            body(&["--retry-delays", "5,60", "--label", "a=1", "--label", "b=c=d"]),
            r#"{"kind":"noop","labels":{"a":"1","b":"c=d"},"retry":{"delays":[5,60]}}"#
        );
        assert_eq!(
            body(&[
                "--callback-url",
                "https://x",
                "--callback-on",
                "failed,expired",
                "--callback-retry-max-attempts",
                "3"
            ]),
            r#"{"callback":{"on":["failed","expired"],"retry":{"max_attempts":3},"url":"https://x"},"kind":"noop"}"#
        );
    }
}
