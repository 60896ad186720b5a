//! Commands for configuration, such as endpoints and schedules, and for events.
//!
//! A table lists the resources and their actions. One function runs all of them.

use std::process::ExitCode;

use clap::{Arg, ArgMatches, Args, Command, FromArgMatches, Subcommand};
use hyper::Method;

use crate::client::{Client, ClientArgs, encode};
use crate::command::print;
use crate::response::array;
use crate::submit::argument;
use crate::{exit, render};

/// Resource of the API, such as endpoints, and its commands.
struct Resource {
    /// Name of the command.
    name: &'static str,
    about: &'static str,
    path: &'static str,
    /// True if the API has several resources of this type, each with a name.
    has_names: bool,
    /// Columns of the list of these resources.
    columns: &'static [&'static str],
    actions: &'static [Action],
}

/// Action on a resource: one request.
struct Action {
    /// Name of the action's subcommand, below the resource's command.
    name: &'static str,
    about: &'static str,
    method: Method,
    /// End of the URL path, after the name of the resource.
    end: &'static str,
    body: Body,
}

/// Body of the request.
#[derive(PartialEq)]
enum Body {
    /// No body and no name: the action lists all resources.
    List,
    /// A body and no name: the action creates a resource.
    New,
    None,
    Fixed(&'static str),
    Optional,
    Required,
}

const fn action(
    name: &'static str,
    about: &'static str,
    method: Method,
    end: &'static str,
    body: Body,
) -> Action {
    Action { name, about, method, end, body }
}

/// Actions of queues and of kinds.
const LANE: [Action; 4] = [
    action("get", "Show the configuration and the state of the limits", Method::GET, "", Body::None),
    action(
        "put",
        "Change the configuration. Omitted fields keep their values",
        Method::PUT,
        "",
        Body::Required,
    ),
    action(
        "pause",
        "Pause: start no more tasks. Running tasks go on",
        Method::PUT,
        "",
        Body::Fixed(r#"{"paused":true}"#),
    ),
    action("resume", "Start tasks again after a pause", Method::PUT, "", Body::Fixed(r#"{"paused":false}"#)),
];

const RESOURCES: [Resource; 10] = [
    Resource {
        name: "endpoints",
        about: "Configure endpoints: receivers of tasks of kind http",
        path: "/v1/endpoints",
        has_names: true,
        columns: &["name", "url", "paused", "gone", "created_at"],
        actions: &[
            action("list", "List endpoints, by name", Method::GET, "", Body::List),
            action(
                "get",
                "Show an endpoint, its limits and its circuit breaker",
                Method::GET,
                "",
                Body::None,
            ),
            action(
                "put",
                "Create or replace an endpoint. A new secret is shown once",
                Method::PUT,
                "",
                Body::Required,
            ),
            action(
                "delete",
                "Remove an endpoint. Its tasks are held until it is created again",
                Method::DELETE,
                "",
                Body::None,
            ),
            action(
                "pause",
                "Hold the endpoint's tasks. Running tasks go on",
                Method::POST,
                "/pause",
                Body::None,
            ),
            action(
                "resume",
                "Call the endpoint again, after a pause, a 410 or an open circuit breaker",
                Method::POST,
                "/resume",
                Body::None,
            ),
            action(
                "rotate",
                "Replace the endpoint's signing secret. The new secret is shown once",
                Method::POST,
                "/rotate",
                Body::Optional,
            ),
            action(
                "test",
                "Call the endpoint once and show the response (exit code 4 if a task would not succeed)",
                Method::POST,
                "/test",
                Body::Optional,
            ),
        ],
    },
    Resource {
        name: "events",
        about: "Publish and show events",
        path: "/v1/events",
        has_names: true,
        columns: &["id", "type", "source", "subject", "status", "created_at"],
        actions: &[
            action("publish", "Publish an event", Method::POST, "", Body::New),
            action("list", "List events, newest first", Method::GET, "", Body::List),
            action("get", "Show an event and its tasks", Method::GET, "", Body::None),
            action(
                "replay",
                "Run the task of one subscription again",
                Method::POST,
                "/replay",
                Body::Required,
            ),
        ],
    },
    Resource {
        name: "subscriptions",
        about: "Configure subscriptions: which events create which tasks",
        path: "/v1/subscriptions",
        has_names: true,
        columns: &["name", "topic", "filter", "paused", "created_at"],
        actions: &[
            action("list", "List subscriptions, by name", Method::GET, "", Body::List),
            action("get", "Show a subscription", Method::GET, "", Body::None),
            action("put", "Create or replace a subscription", Method::PUT, "", Body::Required),
            action("delete", "Remove a subscription. Its tasks stay", Method::DELETE, "", Body::None),
            action(
                "test",
                "Show what an event would create. Nothing is stored",
                Method::POST,
                "/test",
                Body::Required,
            ),
        ],
    },
    Resource {
        name: "schedules",
        about: "Configure schedules: tasks at planned times",
        path: "/v1/schedules",
        has_names: true,
        columns: &["name", "cron", "timezone", "every", "paused", "next"],
        actions: &[
            action("list", "List schedules, by name", Method::GET, "", Body::List),
            action(
                "get",
                "Show a schedule, its next planned times and its last decisions",
                Method::GET,
                "",
                Body::None,
            ),
            action("put", "Create or replace a schedule", Method::PUT, "", Body::Required),
            action("delete", "Remove a schedule. Its tasks stay", Method::DELETE, "", Body::None),
            action("pause", "Create no more tasks", Method::POST, "/pause", Body::None),
            action("resume", "Create tasks again after a pause", Method::POST, "/resume", Body::None),
            action("run", "Create a task now", Method::POST, "/run", Body::None),
        ],
    },
    Resource {
        name: "sources",
        about: "Configure sources: webhooks of providers",
        path: "/v1/sources",
        has_names: true,
        columns: &["name", "path", "verify", "created_at"],
        actions: &[
            action("list", "List sources, by name", Method::GET, "", Body::List),
            action(
                "get",
                "Show a source, the counts of its requests and the last rejections",
                Method::GET,
                "",
                Body::None,
            ),
            action("put", "Create or replace a source", Method::PUT, "", Body::Required),
            action("delete", "Remove a source. Its tasks and events stay", Method::DELETE, "", Body::None),
        ],
    },
    Resource {
        name: "queues",
        about: "Configure queues: limits, retries, pause",
        path: "/v1/queues",
        has_names: true,
        columns: &[],
        actions: &LANE,
    },
    Resource {
        name: "kinds",
        about: "Configure kinds: limits, pause",
        path: "/v1/kinds",
        has_names: true,
        columns: &[],
        actions: &LANE,
    },
    Resource {
        name: "limits",
        about: "Configure limit keys: limits that tasks with the same key share",
        path: "/v1/limits",
        has_names: true,
        columns: &[],
        actions: &[
            action("get", "Show the configuration and the state of the limits", Method::GET, "", Body::None),
            action("put", "Replace the limits. Omitted limits are removed", Method::PUT, "", Body::Required),
        ],
    },
    Resource {
        name: "tenants",
        about: "Configure tenants: their limits",
        path: "/v1/tenants",
        has_names: true,
        columns: &["name", "request_rate", "max_pending_tasks", "max_payload_bytes", "limits"],
        actions: &[
            action("list", "List tenants that have limits, by name", Method::GET, "", Body::List),
            action("get", "Show the limits of a tenant", Method::GET, "", Body::None),
            action(
                "put",
                "Replace the limits of a tenant. Omitted limits are removed",
                Method::PUT,
                "",
                Body::Required,
            ),
        ],
    },
    Resource {
        name: "callback-secret",
        about: "Configure the secret that callbacks are signed with",
        path: "/v1/callback-secret",
        has_names: false,
        columns: &[],
        actions: &[
            action(
                "get",
                "Show which secrets sign callbacks, without their values",
                Method::GET,
                "",
                Body::None,
            ),
            action(
                "put",
                "Set the secret. A generated secret is shown once",
                Method::PUT,
                "",
                Body::Optional,
            ),
            action(
                "rotate",
                "Replace the secret. The previous secret also signs for `grace_period` seconds. Default: a day",
                Method::POST,
                "/rotate",
                Body::Optional,
            ),
            action(
                "delete",
                "Remove the secrets. Callbacks are no longer signed",
                Method::DELETE,
                "",
                Body::None,
            ),
        ],
    },
];

/// Parsed command: resource, action and arguments.
pub(crate) struct Call {
    resource: &'static Resource,
    action: &'static Action,
    name: Option<String>,
    body: Option<String>,
    target: ClientArgs,
}

impl Call {
    pub(crate) async fn run(self) -> anyhow::Result<ExitCode> {
        let client = Client::new(&self.target)?;
        if self.action.body == Body::List {
            let found = client.list(self.resource.path, &[], usize::MAX).await?;
            print(&if self.target.json {
                array(&found)
            } else {
                render::records(&found, self.resource.columns)
            })?;
            return Ok(ExitCode::SUCCESS);
        }
        let name = self.name.as_deref().map(|name| format!("/{}", encode(name))).unwrap_or_default();
        let path = format!("{}{name}{}", self.resource.path, self.action.end);
        let body = match (&self.action.body, &self.body) {
            (Body::Fixed(body), _) => Some((*body).to_owned()),
            (_, Some(body)) => Some(argument(body)?.get().to_owned()),
            _ => None,
        };
        let answer = client.send(self.action.method.clone(), &path, body, None).await?;
        let object = answer.object();
        print(&if self.target.json { format!("{}\n", answer.text()) } else { render::object(&object) })?;
        let is_call = self.resource.name == "endpoints" && self.action.name == "test";
        let has_failed = is_call && object.raw("error") != "null";
        Ok(if has_failed { exit::NOT_SUCCEEDED.into() } else { ExitCode::SUCCESS })
    }
}

impl Resource {
    fn command(&self) -> Command {
        let command =
            Command::new(self.name).about(self.about).subcommand_required(true).arg_required_else_help(true);
        self.actions.iter().fold(command, |command, action| command.subcommand(action.command(self)))
    }
}

impl Action {
    /// Returns true if the action is about one resource.
    fn has_name(&self) -> bool {
        !matches!(self.body, Body::List | Body::New)
    }

    fn command(&self, resource: &Resource) -> Command {
        let mut command = Command::new(self.name);
        if resource.has_names && self.has_name() {
            command = command.arg(Arg::new("name").value_name("NAME").required(true).help("Name"));
        }
        if matches!(self.body, Body::Optional | Body::Required | Body::New) {
            let help = "Fields, as in the API: JSON, @FILE, or - for standard input";
            command = command.arg(
                Arg::new("body")
                    .long("body")
                    .value_name("JSON")
                    .required(self.body != Body::Optional)
                    .help(help),
            );
        }
        // `about` comes last, since `ClientArgs` would overwrite it with its own description.
        ClientArgs::augment_args(command).about(self.about)
    }
}

impl Subcommand for Call {
    fn augment_subcommands(command: Command) -> Command {
        RESOURCES.iter().fold(command, |command, resource| command.subcommand(resource.command()))
    }

    fn augment_subcommands_for_update(command: Command) -> Command {
        Self::augment_subcommands(command)
    }

    fn has_subcommand(name: &str) -> bool {
        RESOURCES.iter().any(|resource| resource.name == name)
    }
}

impl FromArgMatches for Call {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        let missing = || clap::Error::new(clap::error::ErrorKind::MissingSubcommand);
        let (name, matches) = matches.subcommand().ok_or_else(missing)?;
        let resource = RESOURCES.iter().find(|resource| resource.name == name).ok_or_else(missing)?;
        let (name, matches) = matches.subcommand().ok_or_else(missing)?;
        let action = resource.actions.iter().find(|action| action.name == name).ok_or_else(missing)?;
        // An argument that the action does not have is an error of `try_get_one`.
        let text = |id| matches.try_get_one::<String>(id).ok().flatten().cloned();
        Ok(Self {
            resource,
            action,
            name: text("name"),
            body: text("body"),
            target: ClientArgs::from_arg_matches(matches)?,
        })
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        *self = Self::from_arg_matches(matches)?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn each_command_is_described_by_its_own_text() {
        for resource in &RESOURCES {
            let command = resource.command();
            let told = command.get_subcommands().map(|action| action.get_about().map(ToString::to_string));
            assert_eq!(
                told.collect::<Vec<_>>(),
                resource.actions.iter().map(|action| Some(action.about.to_owned())).collect::<Vec<_>>()
            );
        }
    }

    #[test]
    fn every_operation_on_configuration_has_a_command() {
        let document = serde_json::to_value(nobat_api::openapi()).unwrap();
        let mut expected = BTreeSet::new();
        for (path, item) in document["paths"].as_object().unwrap() {
            let is_ours = |resource: &Resource| {
                path == resource.path || path.starts_with(&format!("{}/", resource.path))
            };
            if RESOURCES.iter().any(is_ours) {
                expected.extend(
                    item.as_object().unwrap().keys().map(|method| {
                        format!("{} {}", method.to_uppercase(), path.replace("{id}", "{name}"))
                    }),
                );
            }
        }
        let mut known = BTreeSet::new();
        for resource in &RESOURCES {
            for action in resource.actions {
                let name = if resource.has_names && action.has_name() { "/{name}" } else { "" };
                known.insert(format!("{} {}{name}{}", action.method, resource.path, action.end));
            }
        }
        assert_eq!(known, expected);
    }
}
